"""Strain per column against known truth: zero, uniform, uneven, and the noise the formulas promise."""

from __future__ import annotations

import numpy as np
import pytest
from crystal_points import CRYSTALS, crystal, deform, seen

from atomid_live.lattice import find_lattice
from atomid_live.lattice.sites import LatticeFit, fit_lattice, node_table
from atomid_live.strain.field import Columns, Reference, class_weights, gradient_of, measure_deformation, strain_of
from atomid_live.strain.whole import column_mean_sem, whole_strain

SHAPE = (420, 520)
PX = 0.0125


def columns_of(detections, shape=SHAPE) -> Columns:
    lattice = find_lattice(detections, shape)
    fit = fit_lattice(detections.yx_px, lattice.cell, lattice.site)
    table = node_table(lattice.cell, lattice.site)
    variance = (detections.sigma_yx_px**2).mean(axis=1)
    return Columns(detections.yx_px, variance, lattice.cell, lattice.site, table, fit, detections.spacing_px)


def against_truth(columns: Columns, points, who) -> Reference:
    """The undeformed points themselves as the reference."""
    return Reference(fit_lattice(points[who], columns.cell, columns.site), points[who])


CASES = [
    {},
    *({"xx": s} for s in (-0.02, -0.01, 0.005, 0.02)),
    {"yy": 0.01},
    {"xy": 0.01},
    {"xx": 0.004, "yy": -0.007, "xy": 0.003},
    {"turn_mrad": 20.0},
    {"xx": 0.01, "turn_mrad": -35.0},
]


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_uniform_strain_is_exact(name, case):
    points, _ = crystal(name, SHAPE, PX, 11)
    detections, who = seen(deform(points, SHAPE, **case), SHAPE)
    columns = columns_of(detections)
    result = measure_deformation(columns, 40.0, against_truth(columns, points, who))
    exx, eyy, exy, rotation = strain_of(result.gradient[result.valid])
    assert result.valid.mean() > 0.98
    for measured, key in ((exx, "xx"), (eyy, "yy"), (exy, "xy")):
        assert measured == pytest.approx(case.get(key, 0.0), abs=3e-4 * abs(case.get("turn_mrad", 0)) / 20 + 1e-7)
    assert 1000 * rotation == pytest.approx(case.get("turn_mrad", 0.0), abs=1e-4 + 0.05)


def test_own_lattice_as_reference_gives_zero():
    points, _ = crystal("res2", SHAPE, PX, 11)
    result = measure_deformation(columns_of(seen(deform(points, SHAPE, xx=0.02, turn_mrad=10), SHAPE)[0]), 40.0)
    assert np.abs(result.gradient[result.valid] - np.eye(2)).max() < 1e-9


def test_rotation_is_positive_clockwise_on_the_screen():
    """A point to the right of the centre moves down when the crystal turns clockwise (y downwards)."""
    before = np.array([[100.0, 200.0]])
    after = deform(before, (201, 201), turn_mrad=10)
    assert after[0, 0] > before[0, 0]
    f = gradient_of(np.array(0.0), np.array(0.0), np.array(0.0), np.array(0.01))
    assert (f @ [1, 0])[1] > 0


def test_strain_does_not_change_when_the_specimen_turns():
    exx, eyy, exy, rotation = strain_of(gradient_of(*(np.array(v) for v in (0.02, -0.01, 0.004, 0.3))))
    assert (exx, eyy, exy, rotation) == pytest.approx((0.02, -0.01, 0.004, 0.3))


def test_gradient_of_strain_is_followed():
    """Exx grows by 1 % over the frame: the map follows it, and its mean is the true mean."""
    points, _ = crystal("hexagonal", SHAPE, PX, 11)
    x = points[:, 1]
    moved = points.copy()
    moved[:, 1] += 0.01 / 520 * x**2 / 2
    detections, who = seen(moved, SHAPE)
    columns = columns_of(detections)
    result = measure_deformation(columns, 40.0, against_truth(columns, points, who))
    exx = result.gradient[:, 0, 0] - 1
    inner = (np.abs(detections.yx_px - np.array([210, 260])) < 100).all(axis=1)
    assert exx[inner] == pytest.approx(0.01 / 520 * x[who][inner], abs=1e-4)


NOISE = [("hexagonal", 0.3), ("hexagonal", 0.5), ("res2", 0.5), ("honeycomb", 0.4), ("square", 0.5)]


@pytest.mark.parametrize(("name", "window_nm"), NOISE)
def test_noise_is_the_formula(name, window_nm):
    """Inside the crystal std(exx) = sigma / (sqrt(8 pi rho) w^2), and hydrostatic is that over sqrt 2, within 10 %."""
    shape, sigma, w = (700, 820), 0.5, window_nm / PX
    points, _ = crystal(name, shape, PX, 11)
    exx, hydrostatic, claimed = [], [], []
    for seed in range(12):
        detections, _ = seen(points, shape, sigma, np.random.default_rng(seed))
        columns = columns_of(detections, shape)
        result = measure_deformation(columns, w)
        inner = ((detections.yx_px > 3.2 * w) & (detections.yx_px < np.array(shape) - 3.2 * w)).all(axis=1) & result.valid
        one, two, *_ = strain_of(result.gradient[inner])
        exx.append(one), hydrostatic.append((one + two) / 2), claimed.append(result.sigma[inner])
    rho = (columns.site.max() + 1) / columns.fit.area_px2
    formula = sigma / (np.sqrt(8 * np.pi * rho) * w * w)
    assert np.concatenate(exx).std() == pytest.approx(formula, rel=0.1)
    assert np.concatenate(hydrostatic).std() == pytest.approx(formula / np.sqrt(2), rel=0.1)
    assert np.concatenate(claimed).mean() == pytest.approx(formula, rel=0.1)


@pytest.mark.parametrize(("name", "sigma_given"), [("hexagonal", 0.5), ("res2", 0.5), ("square", 0.05), ("square", np.nan)])
def test_error_bars_cover(name, sigma_given):
    """Z = error / claimed error has unit spread everywhere, edges included, even when the detector's errors are wrong."""
    points, _ = crystal(name, SHAPE, PX, 11)
    z, ours, sems, plain = [], [], [], []
    for seed in range(30):
        detections, who = seen(points, SHAPE, 0.5, np.random.default_rng(seed), missing=0.02)
        columns = columns_of(detections)
        columns = Columns(
            columns.yx,
            np.full(len(who), sigma_given**2),
            columns.cell,
            columns.site,
            columns.table,
            columns.fit,
            columns.spacing,
        )
        reference = against_truth(columns, points, who)
        result = measure_deformation(columns, 40.0, reference)
        exx, eyy, *_ = (v[result.valid] for v in strain_of(result.gradient))
        z.append((exx + eyy) / np.sqrt(2) / result.sigma[result.valid])
        whole = whole_strain(columns, class_weights(columns), result.position_sigma_px, reference)
        ours.append([float(v) for v in strain_of(whole.gradient)][:3])
        sems.append(whole.sem)
        plain.append(exx.mean())
    assert np.concatenate(z).std() == pytest.approx(1.0, abs=0.12)
    assert np.std(ours, axis=0) / np.mean(sems, axis=0) == pytest.approx(1.0, abs=0.35)
    assert np.abs(np.mean(ours, axis=0)).max() < 4 * np.max(sems) / np.sqrt(30)
    assert np.std(ours, axis=0)[0] < 0.8 * np.std(plain), "the fit of all columns beats the mean of single ones"


def test_error_of_a_plain_mean_is_the_borders():
    """The formula for means over columns, inside a crystal larger than the area."""
    points, _ = crystal("hexagonal", (700, 820), PX, 11)
    means, claimed = [], []
    for seed in range(40):
        detections, who = seen(points, (700, 820), 0.5, np.random.default_rng(seed))
        columns = columns_of(detections, (700, 820))
        result = measure_deformation(columns, 40.0, against_truth(columns, points, who))
        inside = ((detections.yx_px > 140) & (detections.yx_px < np.array([560, 680]))).all(axis=1)
        means.append(result.gradient[inside].mean(axis=0)[[0, 1], [0, 1]] - 1)
        claimed.append(column_mean_sem(0.5, 1 / columns.fit.area_px2, 40.0, (420, 540))[:2])
    assert np.std(means, axis=0) / np.mean(claimed, axis=0) == pytest.approx(1.0, abs=0.3)


def test_whole_fit_of_a_part_and_of_too_few():
    points, _ = crystal("res2", SHAPE, PX, 11)
    detections, who = seen(deform(points, SHAPE, xx=0.01, xy=0.002, turn_mrad=3), SHAPE)
    columns = columns_of(detections)
    weights, reference = class_weights(columns), against_truth(columns, points, who)
    for inside in (None, detections.yx_px[:, 1] < 200):
        exx, eyy, exy, turn = strain_of(whole_strain(columns, weights, 0.1, reference, inside).gradient)
        assert (exx, eyy, exy, turn) == pytest.approx((0.01, 0.0, 0.002, 0.003), abs=4e-5)
    none = whole_strain(columns, weights, 0.1, reference, np.arange(len(who)) < 3)
    assert np.isnan(none.gradient).all() and np.isnan(none.sem).all() and none.columns == 3


def test_d2min_is_the_square_of_the_noise_and_shows_a_defect():
    """Falk and Langer's D2min per degree of freedom: sigma squared in the crystal, far more at a column out of place."""
    points, _ = crystal("square", SHAPE, PX, 11)
    wrong = np.abs(points - np.array([210, 260])).sum(axis=1).argmin()
    points = points.copy()
    detections, _ = seen(points + np.where(np.arange(len(points))[:, None] == wrong, [0.0, 8.0], 0.0), SHAPE, 0.4)
    result = measure_deformation(columns_of(detections), 30.0)
    assert np.nanmedian(result.d2min) == pytest.approx(0.16, rel=0.1)
    near = np.hypot(*(detections.yx_px - points[wrong]).T) < 60
    assert np.nanmedian(result.d2min[near]) > 2 * np.nanmedian(result.d2min)


def test_position_sigma_is_found_from_the_residuals():
    points, _ = crystal("res2", SHAPE, PX, 11)
    result = measure_deformation(columns_of(seen(points, SHAPE, 0.7, np.random.default_rng(0))[0]), 40.0)
    assert result.position_sigma_px == pytest.approx(0.7, rel=0.1)


def test_a_poor_class_weighs_less():
    """S columns five times noisier must not spoil the metal's strain: far better than equal weights."""
    points, site = crystal("honeycomb", SHAPE, PX, 11)
    rng = np.random.default_rng(1)
    noisy = points + rng.normal(0, 1, points.shape) * np.where(site == 0, 0.2, 1.0)[:, None]
    detections, who = seen(noisy, SHAPE)
    columns = columns_of(detections)
    told = Columns(
        columns.yx,
        np.where(site[who] == 0, 0.04, 1.0),
        columns.cell,
        columns.site,
        columns.table,
        columns.fit,
        columns.spacing,
    )
    equal, weighted = (measure_deformation(c, 40.0).gradient[:, 0, 0] for c in (columns, told))
    assert np.nanstd(weighted) < 0.5 * np.nanstd(equal)


def test_no_site_bias_in_res2():
    """Four sites, one answer each: mean strain per class agrees within 3e-4."""
    points, _ = crystal("res2", (700, 820), PX, 11)
    detections, who = seen(deform(points, (700, 820), xx=0.01, yy=0.004), (700, 820), 0.1, np.random.default_rng(2))
    columns = columns_of(detections, (700, 820))
    exx = measure_deformation(columns, 40.0, against_truth(columns, points, who)).gradient[:, 0, 0] - 1
    for kind in range(4):
        assert np.nanmean(exx[columns.site == kind]) == pytest.approx(0.01, abs=3e-4)


def test_few_neighbours_give_nan():
    points, _ = crystal("hexagonal", SHAPE, PX, 11)
    columns = columns_of(seen(points, SHAPE, 0.2)[0])
    narrow = measure_deformation(columns, 4.0)
    assert not narrow.valid.any()
    assert np.isnan(narrow.gradient).all()
    assert (narrow.neighbours < 4).all()


def test_a_dislocation_does_not_tear_the_map():
    """Away from the core of an edge dislocation the strain is that of the displacement put in, across the cut too."""
    shape = (700, 820)
    points, _ = crystal("square", shape, PX, 0)
    y, x = (points - np.array([350.3, 410.2])).T
    b = 0.39 / PX
    moved = points + np.stack([np.zeros_like(x), b * np.arctan2(y, x) / (2 * np.pi)], axis=1)
    detections, who = seen(moved, shape)
    lattice = find_lattice(detections, shape)
    assert "cells do not close" in lattice.reason
    columns = columns_of(detections, shape)
    result = measure_deformation(columns, 25.0)
    exx = result.gradient[:, 0, 0] - 1
    yy, xx = y[who], x[who]
    radius = np.hypot(yy, xx)
    true = -b / (2 * np.pi) * yy / radius**2
    away = (radius > 130) & (radius < 300) & result.valid
    left = exx[away] - true[away]
    left -= np.median(left)
    assert np.abs(left).max() < 0.006
    assert left.std() < 0.0015, "strain of the field itself there is up to 0.038"


def test_lattice_fit_reference_carries_strain():
    """Against a smaller reference lattice the same columns read the difference (reference given as its straight lattice)."""
    points, _ = crystal("square", SHAPE, PX, 0)
    detections, _ = seen(points, SHAPE)
    columns = columns_of(detections)
    smaller = LatticeFit(columns.fit.matrix / 1.01, columns.fit.origin_yx_px, 0.0)
    reference = Reference(smaller, columns.cell @ smaller.matrix.T)
    exx, eyy, _, _ = strain_of(measure_deformation(columns, 40.0, reference).gradient)
    assert np.nanmean(exx) == pytest.approx(0.01, abs=1e-6)
    assert np.nanmean(eyy) == pytest.approx(0.01, abs=1e-6)


def test_a_window_wider_than_the_frame_is_one_fit_of_all():
    """It must neither run out of memory nor time, and reads the whole frame's deformation at every column."""
    points, _ = crystal("hexagonal", SHAPE, PX, 11)
    detections, who = seen(deform(points, SHAPE, xx=0.01, xy=0.004), SHAPE)
    columns = columns_of(detections)
    result = measure_deformation(columns, 4000.0, against_truth(columns, points, who))
    exx, _, exy, _ = strain_of(result.gradient)
    assert exx == pytest.approx(0.01, abs=1e-6)
    assert exy == pytest.approx(0.004, abs=1e-6)


def test_wide_windows_are_thinned_without_harm(monkeypatch):
    """Fitting every few cells under a wide window gives the map, the errors and the mean's error of fitting all."""
    from atomid_live.strain import field

    points, _ = crystal("honeycomb", SHAPE, 0.006, 11)
    moved = points + np.stack([np.zeros(len(points)), 5e-5 * (points[:, 1] - 260) ** 2 / 2], axis=1)
    detections, who = seen(moved, SHAPE, 0.5)
    columns = columns_of(detections)
    reference = against_truth(columns, points, who)
    columns = Columns(columns.yx, columns.variance, columns.cell, columns.site, columns.table, columns.fit, columns.spacing)
    monkeypatch.setattr(field, "MANY_NEIGHBOURS", 1e9)
    every = measure_deformation(columns, 120.0, reference)
    monkeypatch.setattr(field, "MANY_NEIGHBOURS", 10.0)
    thinned = measure_deformation(columns, 120.0, reference)
    assert thinned.valid.all()
    assert np.abs(thinned.gradient - every.gradient).max() < 0.12 * np.ptp(every.gradient[:, 0, 0])
    assert np.abs(thinned.gradient - every.gradient).std() < 0.02 * np.ptp(every.gradient[:, 0, 0])
    assert np.median(thinned.sigma) == pytest.approx(np.median(every.sigma), rel=0.1)
