"""Refinement against known positions."""

from __future__ import annotations

import numpy as np
import pytest
from lattice_frames import hexagonal, lattice, render

from atomid_live import lanes
from atomid_live.detect import refine as refinement
from atomid_live.detect.refine import refine
from atomid_live.detect.resample import resample, to_canonical

SHAPE = (200, 260)


def inside(columns, margin=12):
    return columns[((columns[:, :2] > margin) & (columns[:, :2] < np.asarray(SHAPE) - margin)).all(1)]


def test_noise_free_columns_are_exact_and_crowded_ones_nearly():
    columns = lattice(SHAPE, *hexagonal(13.0, 0.4), ((0, 0, 1),))
    image = render(SHAPE, columns, 2.5, 500, 4).astype(np.float32)
    start = columns[:, :2] + np.random.default_rng(0).normal(0, 0.4, (len(columns), 2))
    on = ((start > 0) & (start < np.asarray(SHAPE) - 1)).all(1)
    fit = refine(image, start[on], 2.5, fit_width=False)
    inner = ~fit.at_edge
    assert np.abs(fit.yx_px - columns[on, :2])[inner].max() < 0.02
    assert fit.amplitude[inner].mean() == pytest.approx(500 / (2 * np.pi * 2.5**2), rel=0.05)
    assert not fit.failed.any()


def test_neighbour_subtraction_takes_the_pull_away():
    pair = np.array([[100.0, 100.0, 1.0], [100.3, 108.0, 1.0]])
    image = render(SHAPE, pair, 2.5, 1000, 0).astype(np.float32)
    quick, full = (refine(image, pair[:, :2], 2.5, fit_width=False, subtract=s) for s in (False, True))
    assert np.abs(full.yx_px - pair[:, :2]).max() < 0.5 * np.abs(quick.yx_px - pair[:, :2]).max()


def test_width_moves_towards_the_true_one():
    columns = lattice(SHAPE, *hexagonal(16.0, 0.2), ((0, 0, 1),))
    image = render(SHAPE, columns, 2.7, 800, 2).astype(np.float32)
    assert refine(image, inside(columns)[:, :2], 2.5).column_sigma_px == pytest.approx(2.7, rel=0.05)


def test_error_of_a_single_column_matches_its_scatter():
    rng = np.random.default_rng(1)
    errors, claimed = [], []
    for _ in range(300):
        truth = np.array([[20.0, 25.0]]) + rng.uniform(-0.5, 0.5, (1, 2))
        spot = np.c_[truth, [[1.0]]]
        patch = rng.poisson(render((41, 51), spot, 2.5, 300, 3)).astype(np.float32)
        fit = refine(patch, truth, 2.5, fit_width=False)
        errors.append((fit.yx_px - truth)[0])
        claimed.append(fit.sigma_yx_px[0])
    assert 0.8 < np.std(np.asarray(errors) / np.asarray(claimed)) < 1.25


def test_nothing_to_fit_and_hopeless_places():
    assert len(refine(np.zeros((40, 50), np.float32), np.empty((0, 2)), 2.0).yx_px) == 0
    fit = refine(np.zeros((40, 50), np.float32), np.array([[20.0, 20.0]]), 2.0)
    assert fit.failed.all() and fit.yx_px.tolist() == [[20.0, 20.0]] and (fit.sigma_yx_px >= 1.0).all()


@pytest.mark.parametrize("fit_width", [False, True])
def test_two_lanes_give_the_fit_of_one_to_the_last_bit(fit_width):
    """And the halves, which are the same with one lane, the positions of a fit in one piece."""
    columns = lattice((400, 431), *hexagonal(14.0, 0.3), ((0, 0, 1),))
    image = np.random.default_rng(2).poisson(render((400, 431), columns, 2.6, 500, 4)).astype(np.float32)
    start = columns[((columns[:, :2] > 2) & (columns[:, :2] < (397, 428))).all(1), :2]
    assert len(start) > 2 * refinement.FEW_FOR_TWO
    one = refine(image, start, 2.5, fit_width=fit_width)
    lanes.use(2)
    two = refine(image, start, 2.5, fit_width=fit_width)
    lanes.use(1)
    for name in ("yx_px", "sigma_yx_px", "amplitude", "background", "failed"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    whole = np.zeros((len(start), 9))
    held, blank = np.zeros(len(start)), np.zeros_like(image)
    halves, pool = np.zeros_like(whole), np.zeros(7)
    refinement._fit_among(image, blank, start, held, (2.5, 0.1), start, whole, np.zeros(7))
    refinement._all_among(image, blank, start, held, (2.5, 0.1), start, halves, pool)
    np.testing.assert_array_equal(whole, halves)
    refinement._fit_alone(image, start, 2.5, True, whole)
    refinement._all_alone(image, start, 2.5, True, halves)
    np.testing.assert_array_equal(whole, halves)
    model = np.zeros_like(image)
    refinement._render(whole[:, :3].copy(), 2.5, model)
    blank.fill(0)
    refinement._render_all(whole[:, :3].copy(), 2.5, blank)
    np.testing.assert_allclose(blank, model, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("factor", [0.37, 0.5, 0.8])
def test_resampled_positions_map_back(factor):
    spot = np.array([[61.3, 97.8, 1.0]])
    image = render((150, 211), spot, 6.0, 1e5, 0).astype(np.float32)
    small = resample(image, factor)
    y, x = np.mgrid[: small.image.shape[0], : small.image.shape[1]]
    centre = np.array([[(y * small.image).sum(), (x * small.image).sum()]]) / small.image.sum()
    assert np.abs(small.to_frame(centre) - spot[:, :2]).max() < 0.02
    assert to_canonical(image, 1.5).image is image
