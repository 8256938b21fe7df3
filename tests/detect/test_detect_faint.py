"""The gate of the scale estimate: faint lattices open it, noise of any colour and lines of spots do not."""

from __future__ import annotations

import numpy as np
import pytest
from lattice_frames import hexagonal, lattice, render
from scipy.ndimage import gaussian_filter, map_coordinates

from atomid_live.detect.faint import look_for_lattice
from atomid_live.detect.levels import Levels
from atomid_live.detect.local_contrast import local_contrast
from atomid_live.detect.spacing import estimate_scale
from atomid_live.detect.spectrum import measure_spectrum, spans_plane
from atomid_live.simulate.acquire import detectability

SHAPE = (480, 512)
SIGMA, SPACING = 4.0, 20.5


def expected(height, background=9.0, shape=SHAPE, cell=None):
    columns = lattice(shape, *(cell or hexagonal(SPACING, 0.4)), ((0, 0, 1),))
    return render(shape, columns, SIGMA, height * 2 * np.pi * SIGMA**2, background)


def height_of(d_prime, background=9.0):
    """Peak electrons per pixel at which a column has this detectability."""
    heights = np.geomspace(0.01, 100.0, 4000)
    reached = detectability(heights * 2 * np.pi * SIGMA**2, SIGMA, background)
    return float(np.interp(d_prime, reached, heights))


def noisy(image, seed):
    return np.random.default_rng(seed).poisson(image).astype(np.float32)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("d_prime", [2.0, 2.5])
def test_a_lattice_of_invisible_columns_gives_the_scale(d_prime, seed):
    pixels = noisy(expected(height_of(d_prime)), 70 + seed)
    scale = estimate_scale(pixels)
    assert scale.kind == "lattice"
    assert scale.column_sigma_px == pytest.approx(SIGMA, rel=0.12)
    assert scale.plane_px == pytest.approx(SPACING * np.sqrt(0.75), rel=0.04)


def test_the_harder_look_sees_what_single_spots_do_not_show():
    contrast = [local_contrast(noisy(expected(height_of(1.2)), 90 + seed)) for seed in range(8)]
    quick = [measure_spectrum(image).sure for image in contrast]
    hard = [look_for_lattice(image, 1).found for image in contrast]
    assert sum(hard) >= 6 and sum(quick) <= 3
    assert all(h for q, h in zip(quick, hard, strict=True) if q)


def test_spots_are_where_the_lattice_has_them():
    found = look_for_lattice(local_contrast(noisy(expected(height_of(2.5)), 5)), 1)
    cell = np.array(hexagonal(SPACING, 0.4))
    # frequencies of a lattice times its cell vectors are whole numbers
    assert np.abs((found.spot_yx @ cell.T) - np.rint(found.spot_yx @ cell.T)).max() < 0.2
    assert (found.spot_ratio > 1).all() and (found.spot_power > 0).all()


def test_a_bent_lattice_is_seen_through_wider_spots():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float64)
    bent = np.array([y + 9.0 * np.sin(x / 90.0), x + 9.0 * np.sin(y / 70.0)])
    image = map_coordinates(expected(height_of(3.0)), bent, order=1, mode="nearest")
    found = [look_for_lattice(local_contrast(noisy(image, seed)), 1) for seed in range(4)]
    assert all(one.found for one in found)
    assert any(one.width > 3 for one in found)


def empties():
    rng = np.random.default_rng(31)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float64)
    fringe = 1.0 + np.cos(2 * np.pi * (y * np.sin(0.7) + x * np.cos(0.7)) / 17.3)
    for blur in (0.0, 0.5, 0.8, 1.2, 2.0):
        yield f"along the fast axis {blur}", gaussian_filter(rng.poisson(5.0, SHAPE).astype(float), (0.0, blur))
    for blur in (0.4, 1.0, 4.0, 8.0):
        yield f"round {blur}", rng.poisson(np.clip(9 + 9 * blur * gaussian_filter(rng.normal(0, 1, SHAPE), blur), 0, None))
    for electrons in (0.05, 1.0, 30.0):
        yield f"vacuum {electrons}", rng.poisson(electrons, SHAPE)
    yield "fringes", rng.poisson(8.0 * fringe)
    yield "strong fringes", rng.poisson(900.0 * fringe)
    yield "edge and corner", rng.poisson(np.where((y > 170) & (x > 200), 60.0, 4.0))
    yield "rows out of step", rng.poisson(6.0, SHAPE) + rng.normal(0, 3.0, (SHAPE[0], 1))


@pytest.mark.parametrize(("kind", "pixels"), list(empties()), ids=lambda v: v if isinstance(v, str) else "")
def test_neither_look_opens_on_an_empty_frame(kind, pixels):
    image = np.asarray(pixels, np.float32)
    contrast = Levels(image).reduced(1).contrast
    assert not measure_spectrum(contrast).sure, kind
    assert not look_for_lattice(contrast, 1).found, kind
    assert not estimate_scale(image).found, kind


def test_chance_leaves_a_margin():
    evidence = []
    for seed in range(12):
        found = look_for_lattice(local_contrast(np.random.default_rng(500 + seed).normal(0, 1, SHAPE).astype(np.float32)), 1)
        evidence.append(found.margin)
    # 7 in the natural logarithm is a factor of a thousand
    assert max(evidence) < -7.0


def test_narrow_columns_in_a_large_frame_are_not_lost_to_the_reduction():
    shape = (2048, 1792)
    rng = np.random.default_rng(8)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    a, b = np.array(hexagonal(6.6, 0.3)) @ np.array([[0, 1], [-1, 0]]) * 2 * np.pi / (6.6**2 * np.sqrt(0.75))
    waves = sum(np.cos(y * k[0] + x * k[1]) for k in (a, b, a + b)) / 3
    pixels = rng.poisson(6.0 + 4.0 * waves.clip(-0.5, None)).astype(np.float32)
    scale = estimate_scale(pixels)
    assert scale.kind == "lattice"
    assert scale.plane_px == pytest.approx(6.6 * np.sqrt(0.75), rel=0.05)


def test_a_line_of_spots_spans_nothing():
    line = np.array([[0.1, 0.05], [0.2, 0.1], [0.3, 0.15]])
    assert not spans_plane(line, np.full(3, 50.0))
    assert spans_plane(np.concatenate([line, [[-0.1, 0.05]]]), np.full(4, 50.0))
    assert not spans_plane(line[:1], np.full(1, 50.0))
