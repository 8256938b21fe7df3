"""GPA against known truth: zero on a perfect lattice, uniform strain, gradients, noise, and honest gaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from crystal_points import crystal, deform, seen
from strain_images import frame_of, render

from atomid_live.lattice import find_lattice
from atomid_live.settings import StrainSettings
from atomid_live.strain.gpa import gpa
from atomid_live.types import GpaField, Lattice

SHAPE = (400, 500)
PX = 0.0125
WINDOW = StrainSettings(window_nm=0.5)
NAMES = {"hexagonal": PX, "res2": 0.02, "square": PX, "dumbbell": PX, "honeycomb": PX}


def measured(name, px=PX, sigma_nm=0.062, noise=0.0, **strain) -> GpaField:
    points, _ = crystal(name, SHAPE, px, 13)
    lattice = find_lattice(seen(points, SHAPE)[0], SHAPE)
    image = render(deform(points, SHAPE, **strain), SHAPE, sigma_nm / px)
    if noise:
        image = image + np.random.default_rng(0).normal(0, noise, SHAPE)
    return gpa(frame_of(image, (px, px)), lattice, WINDOW)


@pytest.mark.parametrize("name", NAMES)
def test_perfect_lattice_is_zero(name):
    field = measured(name, NAMES[name])
    assert field.reason == ""
    for values in (field.exx, field.eyy, field.exy, field.rotation_mrad / 1000):
        assert np.isfinite(values).sum() > 50
        assert abs(np.nanmean(values)) < 2e-4
        assert np.nanstd(values) < 4e-4


@pytest.mark.parametrize("name", ["hexagonal", "res2"])
@pytest.mark.parametrize(
    "case", [{"xx": 0.02}, {"yy": -0.01}, {"xy": 0.01}, {"turn_mrad": 20.0}, {"xx": 0.005, "yy": 0.005}], ids=str
)
def test_uniform_strain(name, case):
    field = measured(name, NAMES[name], **case)
    expected = (case.get("xx", 0), case.get("yy", 0), case.get("xy", 0), case.get("turn_mrad", 0))
    for values, truth in zip((field.exx, field.eyy, field.exy, field.rotation_mrad), expected, strict=True):
        assert np.nanmean(values) == pytest.approx(truth, rel=0.01, abs=2e-4 * (1000 if values is field.rotation_mrad else 1))


def test_grid_is_where_it_says():
    """Strain that grows along x only is read at the right place."""
    points, _ = crystal("hexagonal", SHAPE, PX, 13)
    lattice = find_lattice(seen(points, SHAPE)[0], SHAPE)
    x = points[:, 1]
    moved = np.stack([points[:, 0], x + 1e-4 * (x - 250) ** 2 / 2], axis=1)
    field = gpa(frame_of(render(moved, SHAPE, 5.0)), lattice, WINDOW)
    grid_x = np.arange(field.exx.shape[1]) * field.step_px
    expected = np.broadcast_to(1e-4 * (grid_x - 250), field.exx.shape)
    known = np.isfinite(field.exx)
    assert known.any(axis=0).sum() > 5
    left = np.abs(field.exx - expected)
    assert left[known].max() < 2.5e-3
    assert left[:, np.abs(grid_x - 250) < 110][known[:, np.abs(grid_x - 250) < 110]].max() < 3e-4
    assert field.step_px * (field.exx.shape[0] - 1) <= SHAPE[0] - 1


def test_pixels_that_are_not_square():
    """A sheared crystal seen with pixels twice as high as wide reads the same strain."""
    points, _ = crystal("hexagonal", SHAPE, PX, 13)
    lattice = find_lattice(seen(points, SHAPE)[0], SHAPE)
    strained = render(deform(points, SHAPE, xy=0.01, turn_mrad=5), SHAPE, 5.0)
    squeezed = strained[: SHAPE[0] // 2 * 2].reshape(SHAPE[0] // 2, 2, SHAPE[1]).mean(axis=1)
    flat = replace(
        lattice,
        a_yx_px=(lattice.a_yx_px[0] / 2, lattice.a_yx_px[1]),
        b_yx_px=(lattice.b_yx_px[0] / 2, lattice.b_yx_px[1]),
    )
    field = gpa(frame_of(squeezed, (2 * PX, PX)), flat, WINDOW)
    assert np.nanmean(field.exy) == pytest.approx(0.01, abs=3e-4)
    assert np.nanmean(field.rotation_mrad) == pytest.approx(5, abs=0.3)
    assert np.nanmean(field.exx) == pytest.approx(0, abs=3e-4)


def test_brightness_does_not_matter():
    points, _ = crystal("square", SHAPE, PX, 13)
    lattice = find_lattice(seen(points, SHAPE)[0], SHAPE)
    image = render(points, SHAPE, 5.0)
    plain, bright = (gpa(frame_of(i), lattice, WINDOW) for i in (image, (3000 + 9000 * image).astype(np.uint16)))
    assert plain.exx == pytest.approx(bright.exx, abs=2e-4, nan_ok=True)


def test_hole_is_masked():
    points, _ = crystal("hexagonal", SHAPE, PX, 13)
    lattice = find_lattice(seen(points, SHAPE)[0], SHAPE)
    solid = np.hypot(*(points - [200, 250]).T) > 120
    field = gpa(frame_of(render(points[solid], SHAPE, 5.0)), lattice, WINDOW)
    y, x = np.indices(field.exx.shape) * field.step_px
    hole = np.hypot(y - 200, x - 250) < 25
    assert np.isnan(field.exx[hole]).all()
    assert np.nanmax(np.abs(field.exx)) < 0.06


def test_refusals_say_why():
    image = np.zeros(SHAPE)
    assert "too few" in gpa(frame_of(image), Lattice.none_for(3, "too few columns"), WINDOW).reason
    points, _ = crystal("square", SHAPE, PX, 13)
    lattice = find_lattice(seen(points, SHAPE)[0], SHAPE)
    assert "reflections" in gpa(frame_of(np.random.default_rng(0).normal(0, 1, SHAPE)), lattice, WINDOW).reason
    assert "too wide" in gpa(frame_of(image), lattice, StrainSettings(window_nm=5.0)).reason
    assert "narrower" in gpa(frame_of(render(points, SHAPE, 5.0)), lattice, StrainSettings(window_nm=0.05)).reason


def test_noise_is_the_formula():
    """White noise of std n on columns of height 1: sigma = sqrt(2/pi) n px at best; GPA's spread is near that formula's."""
    noise, px = 0.5, PX
    field = measured("hexagonal", px, noise=noise)
    rho = 1 / (0.316**2 * np.sqrt(3) / 2)
    formula = np.sqrt(2 / np.pi) * noise * px / (np.sqrt(8 * np.pi * rho) * 0.5**2)
    assert 0.8 * formula < np.nanstd(field.exx) < 1.8 * formula
