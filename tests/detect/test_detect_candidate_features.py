"""What a quick fit says of candidates whose nature is known."""

from __future__ import annotations

import numpy as np
import pytest
from lattice_frames import hexagonal, lattice, render

from atomid_live.detect.candidate_features import CandidateFeatures, candidate_features

SHAPE, SIGMA, SPACING = (210, 260), 2.4, 13.0
COLUMNS = lattice(SHAPE, *hexagonal(SPACING, 0.3), ((0, 0, 1),))


def inside(yx, margin=8):
    return yx[((yx > margin) & (yx < np.asarray(SHAPE) - 1 - margin)).all(1)]


def hollows():
    """Sites between three columns, where a lattice has none."""
    a, b = hexagonal(SPACING, 0.3)
    return inside(COLUMNS[:, :2] + (2 * np.asarray(a) + np.asarray(b)) / 3)


@pytest.fixture(scope="module")
def noisy():
    return np.random.default_rng(3).poisson(render(SHAPE, COLUMNS, SIGMA, 400, 4)).astype(np.float32)


def test_columns_and_hollow_sites_are_told_apart(noisy):
    columns, empty = inside(COLUMNS[:, :2]), hollows()
    seen = candidate_features(noisy, np.concatenate([columns, empty]), SIGMA)
    real, fake = slice(len(columns)), slice(len(columns), None)
    assert seen.d_prime[real].min() > 6 > 2 > np.median(seen.d_prime[fake])
    assert np.median(seen.relative_height[real]) == pytest.approx(1, abs=0.25) and np.median(seen.relative_height[fake]) < 0.2
    assert np.median(seen.shift[real]) < 0.2 < 0.9 < np.median(seen.shift[fake])


def test_significance_is_the_matched_filter_s():
    rng = np.random.default_rng(0)
    spot = np.array([[40.0, 40.0, 1.0]])
    flat = render((81, 81), spot, 3.0, 2 * np.pi * 9 * 5.0, 100)
    frames = [(flat + rng.normal(0, 2, flat.shape)).astype(np.float32) for _ in range(300)]
    seen = [candidate_features(each, spot[:, :2], 3.0) for each in frames]
    values = np.array([each.d_prime[0] for each in seen])
    assert values.mean() == pytest.approx(np.sqrt(np.pi) * 3.0 * 5.0 / 2.0, rel=0.03)
    assert np.mean([each.misfit[0] for each in seen]) == pytest.approx(1.0, abs=0.05)


def test_a_structure_that_is_no_column_shows_in_the_misfit():
    columns = inside(COLUMNS[:, :2])
    clear = np.random.default_rng(4).poisson(render(SHAPE, COLUMNS, SIGMA, 8000, 80)).astype(np.float32)
    right, wide = (candidate_features(clear, columns, sigma) for sigma in (SIGMA, 1.8 * SIGMA))
    assert np.median(right.misfit) < 1.1 < 2.0 < np.median(wide.misfit)
    slope = (np.arange(SHAPE[0], dtype=np.float32) * 20)[:, None]
    assert np.median(candidate_features(clear + slope, columns, SIGMA).slope) > 1.5 * np.median(right.slope)


def test_gain_offset_and_turns_change_nothing(noisy):
    columns = np.concatenate([inside(COLUMNS[:, :2]), hollows()])
    plain = candidate_features(noisy, columns, SIGMA).table()
    louder = candidate_features(7 * noisy + 3000, columns, SIGMA).table()
    turned = candidate_features(np.ascontiguousarray(noisy.T), columns[:, ::-1], SIGMA).table()
    np.testing.assert_allclose(louder, plain, rtol=5e-3, atol=5e-3)
    np.testing.assert_allclose(turned, plain, rtol=1e-3, atol=1e-3)


def test_company_is_measured_in_widths():
    yx = np.array([[50.0, 50.0], [50.0, 58.0], [150.0, 150.0]])
    heights = np.c_[yx, [1.0, 0.5, 1.0]]
    seen = candidate_features(render(SHAPE, heights, 2.0, 1000, 3).astype(np.float32), yx, 2.0)
    assert seen.nearest.tolist() == [4.0, 4.0, 6.0]
    assert seen.nearest_height[1] == pytest.approx(1.0, abs=0.1) and seen.nearest_height[2] == 0.0
    assert seen.nearest_height[0] == pytest.approx(0.5, abs=0.1)


def test_a_hole_has_a_low_level_and_dirt_a_high_one():
    ground = np.where(np.arange(SHAPE[1]) < 130, 2.0, 40.0)
    image = (render(SHAPE, COLUMNS, SIGMA, 400, 0) + ground).astype(np.float32)
    columns = inside(COLUMNS[:, :2])
    level = candidate_features(image, columns, SIGMA).background
    assert level[columns[:, 1] > 145].min() > level[columns[:, 1] < 115].max() + 1


def test_border_darkness_flat_pixels_and_nothing():
    flat = np.full((40, 50), 7.0, np.float32)
    flat[20:23, 20:23] = 0.0
    seen = candidate_features(flat, np.array([[21.0, 21.0], [0.0, 0.0], [30.0, 40.0], [-30.0, 0.0]]), 2.0)
    assert seen.d_prime[0] < 0 and seen.shift[0] == 1.0
    assert seen.inside.tolist() == pytest.approx([1.0, 16 / 49, 1.0, 0.0])
    assert np.isfinite(seen.table()[:3]).all() and np.isnan(seen.d_prime[3])
    none = candidate_features(flat, np.empty((0, 2)), 2.0)
    assert none.table().shape == (0, len(CandidateFeatures.names()))


def test_the_same_twice(noisy):
    columns = inside(COLUMNS[:, :2])
    assert (candidate_features(noisy, columns, SIGMA).table() == candidate_features(noisy, columns, SIGMA).table()).all()


def test_the_step_is_the_first_pass_of_the_fit() -> None:
    from atomid_live.detect.candidate_features import fitted_candidates
    from atomid_live.detect.refine import refine
    from atomid_live.simulate.imaging import render

    rng = np.random.default_rng(3)
    y, x = np.mgrid[12:190:13, 10:230:14].astype(np.float64)
    truth = np.stack([y.ravel(), x.ravel()], 1) + rng.uniform(-1, 1, (y.size, 2))
    image = rng.poisson(render(truth, np.full(len(truth), 900.0), 2.6, (200, 240)) + 3.0).astype(np.float32)
    start = truth + rng.normal(0, 0.4, truth.shape)
    told, first = fitted_candidates(image, start, 2.6)
    assert first.shape == (len(start), 3) and len(told.d_prime) == len(start)
    plain, quicker = refine(image, start, 2.6), refine(image, start, 2.6, first=first)
    assert np.abs(plain.yx_px - quicker.yx_px).max() < 1e-3
    assert fitted_candidates(image, np.empty((0, 2)), 2.6)[1].shape == (0, 3)
