"""Columns are painted where the scan sees them, and counts have the statistics of electrons."""

import numpy as np
import pytest

from atomid_live.train import paint

ROUND = (1 / 2.3**2, 0.0, 1 / 2.3**2)


def _centroid(image: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    return np.array([(image * y).sum(), (image * x).sum()]) / image.sum()


def test_columns_match_the_closed_form() -> None:
    a, b, c = 0.2, 0.05, 0.12
    centres, heights = np.array([[14.3, 20.8], [17.1, 31.2]]), np.array([3.0, 1.5])
    image = np.zeros((32, 48), np.float32)
    paint.paint_columns(image, centres, heights, (a, b, c), np.zeros((32, 2)))
    y, x = np.mgrid[0:32, 0:48]
    expected = sum(
        h * np.exp(-0.5 * (a * (y - p) ** 2 + 2 * b * (y - p) * (x - q) + c * (x - q) ** 2))
        for (p, q), h in zip(centres, heights, strict=True)
    )
    assert np.abs(image - expected).max() < 3.0 * np.exp(-0.5 * 3.4**2) * 1.5


@pytest.mark.parametrize("axis", [0, 1])
def test_centre_seen_is_the_centroid_under_smooth_jitter(axis: int) -> None:
    jitter = np.zeros((40, 2))
    jitter[:, axis] = 0.8 * np.sin(np.arange(40) / 15.0)
    image = np.zeros((40, 56), np.float32)
    seen = paint.paint_columns(image, np.array([[19.4, 27.7]]), np.ones(1), ROUND, jitter)
    assert np.abs(seen[0] - _centroid(image)).max() < 0.06
    assert np.abs(seen[0, axis] - [19.4, 27.7][axis]) > 0.3


@pytest.mark.parametrize("mean", [0.3, 2.0, 9.0, 60.0])
def test_counts_have_poisson_mean_and_variance(mean: float) -> None:
    rng = np.random.default_rng(5)
    expected = np.full((300, 260), mean, np.float32)
    noise = paint.white(paint.normal_pool(), rng.integers(0, 1 << 22, (300, 2)), 260, 0.0)
    paint.count_electrons(expected, noise, 0.0, 1.0, rng.random((300, 260), dtype=np.float32))
    assert expected.mean() == pytest.approx(mean, rel=0.03)
    assert expected.var() == pytest.approx(mean, rel=0.06)
    assert expected.min() >= 0


def test_noise_is_white_or_correlated_along_rows_as_asked() -> None:
    starts = np.random.default_rng(1).integers(0, 1 << 22, (400, 2))
    pool = paint.normal_pool()
    for asked in (0.0, 0.3):
        noise = paint.white(pool, starts, 300, asked)
        assert noise.std() == pytest.approx(1.0, abs=0.02)
        assert (noise[:, 1:] * noise[:, :-1]).mean() == pytest.approx(asked, abs=0.02)
        assert (noise[1:] * noise[:-1]).mean() == pytest.approx(0.0, abs=0.02)
