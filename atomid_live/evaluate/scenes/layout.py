"""Columns laid over an image, with what they are called and which of them matter for themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from atomid_live.simulate.crystals import Crystal
from atomid_live.simulate.lattices import Columns, fill
from atomid_live.types import FloatArray, IntArray

Bools = NDArray[np.bool_]
GRAIN = 100
MARGIN_PX = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Columns before they are imaged.

    Attributes
    ----------
    columns : Columns
        With a margin outside the image.
    element : ndarray, shape (N,), str
    asked : ndarray, shape (N,), bool, or None
        Columns that must be found however faint they are; all others are then don't-cares.
    groups : mapping of str to ndarray, shape (N,), bool
    areas : mapping of str to ndarray, shape of the image, bool
    vacancies_yx_px : ndarray, shape (V, 2)
    """

    columns: Columns
    element: NDArray[np.str_] = field(repr=False)
    asked: Bools | None = None
    groups: Mapping[str, Bools] = field(default_factory=dict)
    areas: Mapping[str, Bools] = field(default_factory=dict)
    vacancies_yx_px: FloatArray = field(default_factory=lambda: np.empty((0, 2)))
    periodic: bool = True

    def take(self, which: Bools | IntArray) -> Layout:
        """Return the layout of some of the columns."""
        return replace(
            self, columns=self.columns.take(which), element=self.element[which],
            asked=None if self.asked is None else self.asked[which],
            groups={name: members[which] for name, members in self.groups.items()},
        )  # fmt: skip


def crystal_layout(
    rng: np.random.Generator, crystal: Crystal, shape: tuple[int, int], pixel_size_nm: float,
    deformation: FloatArray | None = None, angle_rad: float | None = None,
) -> Layout:  # fmt: skip
    """One crystal over the whole image at a random angle and offset (or the angle given)."""
    angle = float(rng.uniform(0, 2 * np.pi)) if angle_rad is None else angle_rad
    shift = rng.uniform(-20.0, 20.0, 2)
    offset = (float(shift[0]), float(shift[1]))
    columns = fill(crystal, shape, pixel_size_nm, angle, offset, deformation, MARGIN_PX)
    return Layout(columns, np.array(crystal.sites)[columns.site])


def joined(first: Layout, second: Layout) -> Layout:
    """Two grains or layers in one layout; the second one's sites count from 100."""
    other = replace(second.columns, site=second.columns.site + GRAIN)
    return Layout(Columns.joined(first.columns, other), np.concatenate([first.element, second.element]))


def stacked(layout: Layout, closer_px: float) -> Layout:
    """Columns of two layers that stand on one another (closer than `closer_px`) as single columns, cross-sections added."""
    yx, section = layout.columns.yx_px, layout.columns.cross_section_A2.copy()
    name, keep = layout.element.astype("U16"), np.ones(len(yx), np.bool_)
    for i, j in cKDTree(yx).query_pairs(closer_px):
        low, high = (i, j) if section[i] >= section[j] else (j, i)
        section[low] += section[high]
        name[low] = f"{name[low]}+{name[high]}"
        keep[high] = False
    return replace(layout, columns=replace(layout.columns, cross_section_A2=section), element=name).take(keep)


def bright_only(layout: Layout, fraction: float = 0.5) -> Layout:
    """Ask for the columns with at least `fraction` of the strongest cross-section, at any dose ("metal only")."""
    sections = layout.columns.cross_section_A2
    return replace(layout, asked=sections >= fraction * sections.max())


def nowhere(rng: np.random.Generator) -> Layout:
    """No columns at all."""
    del rng
    none = Columns(np.empty((0, 2)), np.empty(0), np.empty(0, np.int64), np.empty((0, 2), np.int64))
    return Layout(none, np.empty(0, np.str_), periodic=False)


def pixel_grid(shape: tuple[int, int]) -> FloatArray:
    """(row, column) of every pixel, shape (rows * cols, 2)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.stack([y.ravel(), x.ravel()], 1).astype(np.float64)
