"""Grains and phases side by side get lattices of their own; layers on top of each other are told apart from them."""

from __future__ import annotations

import numpy as np
import pytest
from crystal_points import cell_matrix, crystal, deform, seen

from atomid_live.flags import Flag
from atomid_live.lattice import find_lattice

SHAPE = (420, 520)
NM = 0.0125


def side_by_side(one, other, turn=0.0, at=262, gap=10):
    """Two crystals that meet at a column of the picture, the other turned; and which points are of the first."""
    left, _ = crystal(one, SHAPE, NM, 3)
    right, _ = crystal(other, SHAPE, NM, 3 + turn)
    left, right = left[left[:, 1] < at - gap / 2], right[right[:, 1] >= at + gap / 2]
    return np.concatenate([left, right]), np.arange(len(left) + len(right)) < len(left)


def _area(lattice):
    return abs(np.linalg.det(np.column_stack([lattice.a_yx_px, lattice.b_yx_px])))


@pytest.mark.parametrize("turn", [8, 15, 21.79, 30])
def test_two_grains_have_a_lattice_each(turn):
    points, first = side_by_side("hexagonal", "hexagonal", turn)
    detections, who = seen(points, SHAPE, 0.4)
    lattice = find_lattice(detections, SHAPE)
    assert len(lattice.others) == 1 and lattice.flags & Flag.SEVERAL_LATTICES and "2 lattices" in lattice.reason
    largest = first[who] if (lattice.site[first[who]] >= 0).mean() > 0.5 else ~first[who]
    for own, mine in ((lattice, largest), (lattice.others[0], ~largest)):
        assert (own.site[mine] >= 0).mean() > 0.93
        assert (own.site[~mine] >= 0).mean() < 0.05
        assert _area(own) == pytest.approx(abs(np.linalg.det(cell_matrix("hexagonal", NM))), rel=0.005)
    assert not ((lattice.site >= 0) & (lattice.others[0].site >= 0)).any()


def test_two_phases_and_a_small_grain():
    points, first = side_by_side("square", "hexagonal", 0.0)
    small, _ = crystal("square", SHAPE, NM, 28)
    near = np.hypot(*(small - np.array([290, 380])).T) < 120
    apart = np.hypot(*(points - np.array([290, 380])).T) > 128
    every = np.concatenate([points[apart], small[near]])
    kind = np.concatenate([np.where(first[apart], 0, 1), np.full(near.sum(), 2)])
    detections, who = seen(every, SHAPE, 0.3)
    lattice = find_lattice(detections, SHAPE)
    parts = (lattice, *lattice.others)
    assert len(parts) == 3
    for number, name in ((0, "square"), (1, "hexagonal"), (2, "square")):
        share = [(p.site[kind[who] == number] >= 0).mean() for p in parts]
        assert max(share) > 0.85
        assert _area(parts[int(np.argmax(share))]) == pytest.approx(abs(np.linalg.det(cell_matrix(name, NM))), rel=0.01)


def test_a_step_of_two_per_cent_is_one_lattice():
    """A coherent boundary between two phases that fit each other: cells are counted through, strain tells them apart."""
    points, _ = crystal("square", SHAPE, NM, 0)
    x = points[:, 1]
    detections, _ = seen(points + np.stack([0 * x, 0.02 * np.maximum(x - 260, 0)], 1), SHAPE, 0.3)
    lattice = find_lattice(detections, SHAPE)
    assert lattice.others == () and lattice.reason == "" and lattice.indexed > 0.98


@pytest.mark.parametrize("strain", [{"xx": 0.05, "yy": -0.05}, {"xy": 0.06}])
@pytest.mark.parametrize("name", ["square", "honeycomb", "res2"])
def test_a_sheared_cell_is_still_the_primitive_one(name, strain):
    """A distorted scan must not make a cell of half or twice the area."""
    points, _ = crystal(name, SHAPE, NM, 17)
    lattice = find_lattice(seen(deform(points, SHAPE, **strain), SHAPE, 0.4)[0], SHAPE)
    grown = (1 + strain.get("xx", 0)) * (1 + strain.get("yy", 0)) - strain.get("xy", 0) ** 2
    assert _area(lattice) == pytest.approx(grown * abs(np.linalg.det(cell_matrix(name, NM))), rel=0.01)


def test_200_harmonic_is_not_the_lattice():
    """Two nearly equal species, one displaced a little from the half cell: the true cell, not the smaller pseudo-cell."""
    points, _ = crystal("square", SHAPE, NM, 8)
    matrix = cell_matrix("square", NM, 8)
    second = points + matrix @ [0.5, 0.56]
    lattice = find_lattice(seen(np.concatenate([points, second]), SHAPE, 0.3)[0], SHAPE)
    assert _area(lattice) == pytest.approx(abs(np.linalg.det(matrix)), rel=0.01)
    assert lattice.site.max() == 1


def test_sparse_second_species_is_no_second_lattice():
    """A few sulphur columns of a faint species sit between the metal: a class of the crystal or loose, never layers."""
    points, site = crystal("honeycomb", SHAPE, NM, 5)
    rng = np.random.default_rng(1)
    for share in (0.05, 0.12, 0.3):
        keep = (site == 0) | (rng.random(len(site)) < share)
        lattice = find_lattice(seen(points[keep], SHAPE, 0.3, rng)[0], SHAPE)
        assert not lattice.flags & Flag.SEVERAL_LATTICES and lattice.others == ()
