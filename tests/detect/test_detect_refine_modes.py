"""Both ways to refine against simulated truth: how near they come, how honest their errors are, and what tells them apart."""

from __future__ import annotations

import numpy as np
import pytest
from lattice_frames import frame, hexagonal, lattice, render
from scipy.spatial import cKDTree

from atomid_live.detect.dog import DogDetector
from atomid_live.detect.refine import refine
from atomid_live.settings import DetectSettings

SHAPE, SIGMA = (230, 260), 2.5
CRYSTALS = {
    "hexagonal": (hexagonal(13.0, 0.4), ((0, 0, 1),)),
    "threefold": (hexagonal(15.0, 0.4), ((0, 0, 1), (1 / 3, 2 / 3, 0.33))),
    "square, two kinds": (((14.0, 2.0), (-2.0, 14.0)), ((0, 0, 1), (0.5, 0.5, 0.5))),
}


def crystal_columns(name):
    """Columns (y, x, weight, site) of one of the crystals."""
    cell, basis = CRYSTALS[name]
    return lattice(SHAPE, *cell, basis)


def fitted(crystal, electrons, mode, seed=0):
    """Errors (N, 2) of all inner columns fitted from starts half a width off, and the errors claimed."""
    rng = np.random.default_rng(seed)
    columns = crystal_columns(crystal)
    pixels = rng.poisson(render(SHAPE, columns, SIGMA, electrons, 3)).astype(np.float32)
    start = columns[:, :2] + rng.normal(0, 0.15 * SIGMA, (len(columns), 2))
    on = ((start > 0) & (start < np.asarray(SHAPE) - 1)).all(1)
    fit = refine(pixels, start[on], SIGMA, subtract=mode == "full")
    inner = ~fit.at_edge & ~fit.failed & (columns[on, 2] > 0.9)
    return (fit.yx_px - columns[on, :2])[inner], fit.sigma_yx_px[inner]


@pytest.mark.parametrize("electrons", [300, 1000, 4000])
@pytest.mark.parametrize("crystal", CRYSTALS)
@pytest.mark.parametrize("mode", ["full", "fast"])
def test_errors_are_honest(crystal, electrons, mode):
    parts = [fitted(crystal, electrons, mode, seed) for seed in range(3)]
    pulls = np.concatenate([error / claimed for error, claimed in parts])
    # beside faint columns at high dose two passes leave some of the neighbours' light, which the errors take for noise
    careful = mode == "full" and crystal == "threefold" and electrons > 1000
    assert (0.55 if careful else 0.8) < pulls.std() < 1.25


@pytest.mark.parametrize("crystal", CRYSTALS)
def test_the_full_fit_is_nearer_to_the_truth(crystal):
    full, fast = (np.concatenate([fitted(crystal, 2000, mode, seed)[0] for seed in range(3)]) for mode in ("full", "fast"))
    assert np.sqrt(np.mean(full**2)) < 0.97 * np.sqrt(np.mean(fast**2))


def test_a_threefold_surrounding_does_not_pull():
    """Faint columns that nobody found stand in a triangle around each bright one; a round window feels no net pull."""
    columns = crystal_columns("threefold")
    pixels = render(SHAPE, columns, SIGMA, 2000, 3).astype(np.float32)
    bright = columns[columns[:, 2] > 0.9, :2]
    bright = bright[((bright > 15) & (bright < np.asarray(SHAPE) - 16)).all(1)]
    full, fast = (refine(pixels, bright, SIGMA, subtract=s).yx_px - bright for s in (True, False))
    assert np.hypot(*full.mean(0)) < 0.02
    assert np.hypot(*full.mean(0)) < 0.5 * np.hypot(*fast.mean(0))


def test_counting_noise_is_weighed_as_the_frame_shows_it():
    """Where the light itself is the noise, weights bring the fit nearer to the truth; gain and offset do not matter."""
    rng = np.random.default_rng(5)
    columns = crystal_columns("hexagonal")
    pixels = rng.poisson(render(SHAPE, columns, SIGMA, 3000, 0.5)).astype(np.float32)
    inner = ((columns[:, :2] > 12) & (columns[:, :2] < np.asarray(SHAPE) - 12)).all(1)
    truth = columns[inner, :2]
    weighed, alike = (refine(pixels, truth, SIGMA, fit_width=w).yx_px - truth for w in (True, False))
    assert weighed.std() < 0.93 * alike.std()
    louder = refine(40 * pixels + 500, truth, SIGMA).yx_px - truth
    np.testing.assert_allclose(louder, weighed, atol=2e-3)


def test_the_setting_reaches_the_fit():
    columns = crystal_columns("square, two kinds")
    pixels = np.random.default_rng(1).poisson(render(SHAPE, columns, SIGMA, 1500, 3)).astype(np.uint16)
    full, fast = (DogDetector(DetectSettings(refine=mode)).detect(frame(pixels)) for mode in ("full", "fast"))
    assert len(full.yx_px) == pytest.approx(len(fast.yx_px), rel=0.02)
    distance = cKDTree(fast.yx_px).query(full.yx_px)[0]
    assert 0.01 < np.median(distance) < 0.3
