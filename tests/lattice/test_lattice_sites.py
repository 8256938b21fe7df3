"""Fitted lattice, table of nodes, and missing columns."""

from __future__ import annotations

import numpy as np
import pytest
from crystal_points import cell_matrix, crystal, seen

from atomid_live.lattice import find_lattice, missing_sites
from atomid_live.lattice.grid import nearest_distance, sort_into_bins
from atomid_live.lattice.sites import fit_lattice, node_table
from atomid_live.types import Lattice

SHAPE = (420, 520)


@pytest.mark.parametrize("name", ["hexagonal", "honeycomb", "res2"])
def test_missing_columns_are_found_where_they_were(name):
    points, _ = crystal(name, SHAPE, 0.0125, 12)
    inside = ((points > 60) & (points < np.array(SHAPE) - 60)).all(axis=1)
    gone = np.random.default_rng(4).choice(np.flatnonzero(inside), 6, replace=False)
    detections, _ = seen(np.delete(points, gone, axis=0), SHAPE, 0.4, np.random.default_rng(5))
    found = missing_sites(detections.yx_px, find_lattice(detections, SHAPE), SHAPE, detections.spacing_px)
    assert len(found) == 6
    away = np.hypot(*(found[:, None] - points[gone][None]).transpose(2, 0, 1)).min(axis=1)
    assert away.max() < 1.5


def test_a_whole_crystal_misses_nothing():
    points, _ = crystal("square", SHAPE, 0.0125, 27)
    detections, _ = seen(points, SHAPE, 0.4)
    assert len(missing_sites(detections.yx_px, find_lattice(detections, SHAPE), SHAPE, detections.spacing_px)) == 0
    assert len(missing_sites(detections.yx_px, Lattice(), SHAPE, 20.0)) == 0


def test_fit_gives_matrix_and_offsets():
    points, _ = crystal("honeycomb", SHAPE, 0.0125, 7)
    detections, _ = seen(points, SHAPE)
    lattice = find_lattice(detections, SHAPE)
    fit = fit_lattice(detections.yx_px, lattice.cell, lattice.site)
    assert fit.area_px2 == pytest.approx(abs(np.linalg.det(cell_matrix("honeycomb", 0.0125))), rel=1e-9)
    assert fit.residual_px < 1e-6
    thirds = np.sort(fit.offset[1])
    assert thirds == pytest.approx([1 / 3, 2 / 3], abs=1e-6) or thirds == pytest.approx([1 / 3, 1 / 3], abs=1e-6)


def test_node_table_finds_each_column():
    points, _ = crystal("res2", SHAPE, 0.0125, 7)
    detections, _ = seen(points, SHAPE, 0.3)
    lattice = find_lattice(detections, SHAPE)
    table = node_table(lattice.cell, lattice.site)
    use = np.flatnonzero(lattice.site >= 0)
    at = lattice.cell[use] - table.low
    assert (table.column[lattice.site[use], at[:, 0], at[:, 1]] == use).all()
    assert (table.column >= 0).sum() == len(use)


def test_node_table_refuses_a_broken_indexing():
    with pytest.raises(ValueError, match="broken"):
        node_table(np.array([[0, 0], [10**6, 10**6]]), np.array([0, 0]))


def test_nearest_distance_is_exact():
    from scipy.spatial import cKDTree

    points = np.random.default_rng(0).uniform(0, SHAPE, (300, 2))
    for size in (5.0, 24.0, 400.0):
        measured = nearest_distance(points, sort_into_bins(points, size))
        assert measured == pytest.approx(cKDTree(points).query(points, 2)[0][:, 1])
