"""Lattice and site classes of crystals with exact truth, and honest refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crystal_points import CRYSTALS, as_detections, cell_matrix, crystal, seen

from atomid_live.flags import Flag
from atomid_live.lattice import find_lattice
from atomid_live.lattice.basis import reduce_basis

SHAPE = (420, 520)
PRIMITIVE = {"dumbbell": 2}
CLASSES = {"honeycomb": 2, "dumbbell": 2, "res2": 4}


def _area(lattice) -> float:
    return abs(lattice.a_yx_px[0] * lattice.b_yx_px[1] - lattice.a_yx_px[1] * lattice.b_yx_px[0])


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("turn", [0, 17, 41])
def test_cell_and_classes(name, turn):
    points, _ = crystal(name, SHAPE, 0.0125, turn)
    detections, _ = seen(points, SHAPE, 0.5, np.random.default_rng(turn), missing=0.02, false=4)
    lattice = find_lattice(detections, SHAPE)
    assert lattice.found
    assert lattice.reason == ""
    expected = abs(np.linalg.det(cell_matrix(name, 0.0125))) / PRIMITIVE.get(name, 1)
    assert _area(lattice) == pytest.approx(expected, rel=0.004)
    assert lattice.site.max() + 1 == CLASSES.get(name, 1)
    assert lattice.indexed > 0.97
    assert lattice.residual_px == pytest.approx(0.5, abs=0.15)
    a, b = np.array(lattice.a_yx_px), np.array(lattice.b_yx_px)
    assert a @ a <= b @ b * 1.01 and abs(a @ b) <= 0.51 * (a @ a)


@pytest.mark.parametrize("name", ["hexagonal", "res2"])
def test_cells_are_those_of_the_truth(name):
    points, site = crystal(name, SHAPE, 0.0125, 9)
    detections, who = seen(points, SHAPE, 0.4, np.random.default_rng(1), missing=0.03)
    lattice = find_lattice(detections, SHAPE)
    for kind in range(lattice.site.max() + 1):
        mine = lattice.site == kind
        assert len(set(site[who[mine]])) == 1, "a class mixes true sites"
        matrix = np.column_stack([lattice.a_yx_px, lattice.b_yx_px])
        left = points[who[mine]] - lattice.cell[mine] @ matrix.T
        assert np.ptp(left, axis=0).max() < 1.0, "cells are not those of one rigid lattice"
    assert (np.bincount(lattice.site[lattice.site >= 0])[:-1] >= np.bincount(lattice.site[lattice.site >= 0])[1:]).all()


def test_origin_is_a_node_near_the_centre():
    points, _ = crystal("oblique", SHAPE, 0.0125, 5)
    detections, _ = seen(points, SHAPE)
    lattice = find_lattice(detections, SHAPE)
    matrix = np.column_stack([lattice.a_yx_px, lattice.b_yx_px])
    assert np.linalg.norm(np.array(lattice.origin_yx_px) - (np.array(SHAPE) - 1) / 2) < np.linalg.norm(lattice.b_yx_px)
    nodes = np.array(lattice.origin_yx_px) + lattice.cell @ matrix.T
    assert np.abs(nodes - detections.yx_px)[lattice.site == 0].max() < 0.1


def test_follows_five_percent_of_uneven_distortion():
    """Global folding modulo the lattice fails here: rows lean by up to a third of a cell over the frame."""
    points, _ = crystal("res2", SHAPE, 0.0125, 3)
    y, x = points.T
    bent = np.stack([y + 1e-4 * (x - 260) ** 2, x + 0.03 * y + 6 * np.sin(y / 150)], axis=1)
    detections, _ = seen(bent, SHAPE, 0.4, np.random.default_rng(2))
    lattice = find_lattice(detections, SHAPE)
    assert lattice.site.max() == 3
    assert lattice.indexed > 0.97


def test_half_the_second_species_does_not_change_the_lattice():
    """With half of the S columns found, the metal lattice stands and no half cell is taken (the harmonic trap)."""
    points, site = crystal("honeycomb", SHAPE, 0.0125, 12)
    rng = np.random.default_rng(3)
    keep = (site == 0) | (rng.random(len(site)) < 0.5)
    detections, _ = seen(points[keep], SHAPE, 0.4, rng)
    lattice = find_lattice(detections, SHAPE)
    assert _area(lattice) == pytest.approx(abs(np.linalg.det(cell_matrix("honeycomb", 0.0125))), rel=0.004)
    assert lattice.site.max() == 1


@pytest.mark.parametrize("turn", [10, 21.79, 30])
def test_two_grains_are_said(turn):
    """21.79 degrees gives a coincidence lattice of seven cells, which must not pass for a crystal of many sites."""
    left, _ = crystal("hexagonal", SHAPE, 0.0125, 3)
    right, _ = crystal("hexagonal", SHAPE, 0.0125, 3 + turn)
    both = np.concatenate([left[left[:, 1] < 250], right[right[:, 1] >= 262]])
    lattice = find_lattice(seen(both, SHAPE, 0.4)[0], SHAPE)
    assert lattice.flags & Flag.SEVERAL_LATTICES
    assert "lattice" in lattice.reason


def test_twisted_bilayer_is_said():
    one, _ = crystal("hexagonal", SHAPE, 0.0125, 3)
    two, _ = crystal("hexagonal", SHAPE, 0.0125, 15)
    lattice = find_lattice(seen(np.concatenate([one, two]), SHAPE, 0.4)[0], SHAPE)
    assert not lattice.found or lattice.flags & Flag.SEVERAL_LATTICES


def _hard_discs(count: int, rng: np.random.Generator) -> np.ndarray:
    points, least = np.empty((0, 2)), 17.0
    while len(points) < count:
        for q in rng.uniform(0, SHAPE, (3000, 2)):
            if len(points) < count and (len(points) == 0 or np.hypot(*(points - q).T).min() > least):
                points = np.vstack([points, q])
        least *= 0.97
    return points


@pytest.mark.parametrize("seed", range(3))
def test_no_lattice_in_disorder(seed):
    rng = np.random.default_rng(seed)
    for points in (rng.uniform(0, SHAPE, (700, 2)), _hard_discs(400, rng), rng.uniform(0, SHAPE, (40, 2))):
        lattice = find_lattice(as_detections(points), SHAPE)
        assert not lattice.found
        assert lattice.reason
        assert len(lattice.site) == len(points) and (lattice.site == -1).all()


def test_too_few_columns_and_one_row():
    assert "too few" in find_lattice(as_detections(np.random.default_rng(0).uniform(0, 400, (5, 2))), SHAPE).reason
    row = np.stack([np.full(30, 200.0), 10 + 16.0 * np.arange(30)], axis=1)
    assert not find_lattice(as_detections(row), SHAPE).found


def test_false_columns_are_not_indexed():
    points, _ = crystal("hexagonal", SHAPE, 0.0125, 12)
    detections, who = seen(points, SHAPE, 0.4, np.random.default_rng(5), missing=0.01, false=12)
    lattice = find_lattice(detections, SHAPE)
    wrong = (lattice.site >= 0) & (who < 0)
    assert wrong.sum() <= 3, "a false column may sit on a vacant node, but not more"
    assert (lattice.site[who >= 0] >= 0).mean() > 0.99


def test_the_answer_does_not_hang_on_where_the_frame_lies():
    points, _ = crystal("res2", SHAPE, 0.0125, 9)
    first = find_lattice(seen(points, SHAPE)[0], SHAPE)
    moved = find_lattice(seen(points + np.array([3.3, -5.1]), SHAPE)[0], SHAPE)
    assert _area(moved) == pytest.approx(_area(first), rel=1e-4)


def test_reduced_basis():
    a, b = reduce_basis(np.array([0.0, 10.0]), np.array([9.0, 35.0]))
    assert a @ a <= b @ b
    assert -0.5 * (a @ a) <= a @ b <= 0
    assert abs(a[0] * b[1] - a[1] * b[0]) == pytest.approx(90.0)


def test_refuses_nan():
    points, _ = crystal("square", SHAPE, 0.0125)
    detections, _ = seen(points, SHAPE)
    yx = detections.yx_px.copy()
    yx[3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        find_lattice(replace(detections, yx_px=yx), SHAPE)


@pytest.mark.parametrize("name", ["000.csv", "000_joint.csv"])
def test_four_sites_of_a_real_res2_frame(real_data: Path, name):
    rows = [line.split(",") for line in (real_data / "labelled/res2" / name).read_text().split()[1:]]
    first = 0 if "joint" in name else 1
    yx = np.array([[float(r[first + 1]), float(r[first])] for r in rows])
    lattice = find_lattice(as_detections(yx[np.lexsort(yx.T[::-1])]), (1024, 1024))
    assert lattice.site.max() == 3
    assert lattice.indexed > 0.97
    lengths = np.hypot(*np.array([lattice.a_yx_px, lattice.b_yx_px]).T)
    assert lengths == pytest.approx([48.1, 48.5], abs=0.5)
