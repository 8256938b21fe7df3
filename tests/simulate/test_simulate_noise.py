"""Counts are Poisson, noise correlation moves nothing, and grey values respect bits and limits."""

import numpy as np
import pytest
from scipy.stats import poisson as law

from atomid_live.simulate.noise import Camera, correlated, poisson, quantised, record, to_eight_bit


@pytest.mark.parametrize("mean", [0.0, 0.04, 0.5, 0.8, 3.3, 17.49, 120.2, 199.9, 260.0])
def test_counts_follow_the_poisson_law(mean: float) -> None:
    counts = poisson(np.random.default_rng(11), np.full((300, 400), mean, np.float32)).ravel()
    assert counts.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / counts.size) + 1e-9)
    edges = np.unique(law.ppf([0.001, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 0.999], max(mean, 1e-9)))
    for edge in edges:
        expected = law.cdf(edge, mean)
        assert (counts <= edge).mean() == pytest.approx(
            expected, abs=5 * np.sqrt(expected * (1 - expected) / counts.size) + 1e-6
        )


def test_counts_of_mixed_means_are_independent() -> None:
    expected = np.tile(np.array([1.0, 30.0], np.float32), (400, 100))
    counts = poisson(np.random.default_rng(2), expected)
    assert counts.shape == expected.shape
    noise = counts - expected
    np.testing.assert_allclose((noise[:, 0::2].var(), noise[:, 1::2].var()), (1.0, 30.0), rtol=0.03)
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 0.15


def test_same_seed_same_counts() -> None:
    image = np.full((20, 30), 4.0, np.float32)
    np.testing.assert_array_equal(poisson(np.random.default_rng(5), image), poisson(np.random.default_rng(5), image))


def test_correlation_keeps_mean_and_variance_and_is_as_asked() -> None:
    expected = np.full((500, 600), 20.0, np.float32)
    counts = poisson(np.random.default_rng(3), expected)
    noise = correlated(counts, expected, (0.08, 0.13)) - expected
    assert noise.var() == pytest.approx(20.0, rel=0.02)
    assert (noise[1:] * noise[:-1]).mean() / noise.var() == pytest.approx(0.08, abs=0.01)
    assert (noise[:, 1:] * noise[:, :-1]).mean() / noise.var() == pytest.approx(0.13, abs=0.01)


def test_correlation_leaves_a_noise_free_image_alone() -> None:
    image = np.zeros((40, 50), np.float32)
    image[20, 25] = 100.0
    np.testing.assert_allclose(correlated(image.copy(), image, (0.2, 0.3)), image)
    with pytest.raises(ValueError, match="outside 0 to"):
        correlated(image, image, (0.0, 0.7))


def test_gain_offset_and_readout() -> None:
    grey = record(np.random.default_rng(4), np.full((300, 400), 9.0, np.float32), Camera(60.0, 8000.0, 0.7, bits=16))
    assert grey.dtype == np.uint16
    assert grey.mean() == pytest.approx(8000 + 60 * 9, rel=1e-3)
    assert grey.std() / 60 == pytest.approx(np.sqrt(9 + 0.49), rel=0.02)


def test_quantising_clips_and_refuses() -> None:
    image = np.array([[-5.0, 3.4, 3.6, 300.0, 70000.0]], np.float32)
    np.testing.assert_array_equal(quantised(image, 8), [[0, 3, 4, 255, 255]])
    np.testing.assert_array_equal(quantised(image, 16), [[0, 3, 4, 300, 65535]])
    assert quantised(image, 0) is image
    with pytest.raises(ValueError, match="12 bits"):
        quantised(image, 12)


def test_display_export_clips_the_given_fraction() -> None:
    picture = to_eight_bit(np.random.default_rng(6).normal(5000, 100, (300, 400)), 0.01)
    assert picture.dtype == np.uint8
    assert 0.005 < (picture == 255).mean() < 0.03
    assert 0.005 < (picture == 0).mean() < 0.03
    assert not to_eight_bit(np.full((4, 5), 3.0)).any()
