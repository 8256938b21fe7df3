"""Grains and phases: a lattice each, found from parts of the frame small enough to hold one of them alone.

Where grains meet, the autocorrelation of the whole frame shows their coincidence lattice, or a mean of two that differ by some
degrees. Its quarters and its middle show the lattices themselves; the one that indexes most columns is taken, and the columns
left over are searched again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atomid_live.lattice.basis import Basis, find_basis
from atomid_live.lattice.grid import Bins, sort_into_bins
from atomid_live.lattice.sites import LatticeFit, fit_lattice
from atomid_live.types import FloatArray, IntArray

MOST_GRAINS = 6
GRAIN_COLUMNS = 30
MIXED_SHARE = 0.4
NEAR_SPACINGS = 1.6
STRAIGHT_SPACINGS = 0.25
ALIKE = 0.08
COINCIDENCE_SHARE = 0.6
TILES = ((0.0, 0.0, 0.5), (0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.5), (0.25, 0.25, 0.5), (0.0, 0.0, 1.0))


@dataclass(frozen=True, slots=True, eq=False)
class Indexed:
    """Site (N,) and cell (N, 2) per column, and the share of joins that do not close."""

    site: IntArray
    cell: IntArray
    broken: float

    @property
    def count(self) -> int:
        """Columns with a site."""
        return int((self.site >= 0).sum())


Index = Callable[[FloatArray, Bins, Basis, float], Indexed | None]


def alike(one: FloatArray, other: FloatArray, most: float = ALIKE) -> bool:
    """Whether two bases (2, 2), columns a and b, are choices of vectors of one lattice, to within `most` of a cell."""
    step = np.linalg.solve(one, other)
    change = np.rint(step)
    return abs(round(float(np.linalg.det(change)))) == 1 and float(np.abs(step - change).max()) <= most


def lies_over(yx_px: FloatArray, one: NDArray[np.bool_], other: NDArray[np.bool_], spacing_px: float) -> bool:
    """Whether two sets of columns share their ground (twisted layers) instead of meeting at a boundary.

    In a grain, however small, most columns have none of another grain within 1.6 spacings; in a stack most have.
    """
    from scipy.spatial import cKDTree

    if not one.any() or not other.any():
        return False
    distance, _ = cKDTree(yx_px[other]).query(yx_px[one], distance_upper_bound=NEAR_SPACINGS * spacing_px)
    return float(np.isfinite(distance).mean()) > MIXED_SHARE


def _tile_bases(yx_px: FloatArray, spacing_px: float) -> list[Basis]:
    """Bases of the quarters, the middle and the whole of the area of some columns, each lattice once."""
    low, span = yx_px.min(axis=0), np.maximum(np.ptp(yx_px, axis=0), spacing_px)
    place, found = (yx_px - low) / span, list[Basis]()
    for top, left, side in TILES:
        corner = np.array([top, left])
        inside = ((place >= corner) & (place <= corner + side)).all(axis=1)
        if inside.sum() >= GRAIN_COLUMNS:
            some = np.ascontiguousarray(yx_px[inside])
            basis = find_basis(some, sort_into_bins(some, spacing_px), spacing_px)
            if basis is not None and not any(alike(b.matrix, basis.matrix) for b in found):
                found.append(basis)
    return found


def _best(yx_px: FloatArray, spacing_px: float, index: Index) -> tuple[Indexed, LatticeFit] | None:
    """The straight lattice that indexes most of some columns, and is no coincidence lattice of smaller ones."""
    bins = sort_into_bins(yx_px, spacing_px)
    tried = list[tuple[Indexed, LatticeFit]]()
    for basis in _tile_bases(yx_px, spacing_px):
        found = index(yx_px, bins, basis, spacing_px)
        if found is not None and found.count >= GRAIN_COLUMNS:
            fit = fit_lattice(yx_px, found.cell, found.site)
            if fit.residual_px <= STRAIGHT_SPACINGS * spacing_px:
                tried.append((found, fit))
    kept = [(f, fit) for f, fit in tried if _finer(fit, tried) < COINCIDENCE_SHARE * f.count]
    return max(kept, key=lambda each: each[0].count, default=None)


def _finer(fit: LatticeFit, tried: list[tuple[Indexed, LatticeFit]]) -> int:
    """Columns that lattices of much smaller cells index."""
    return sum(found.count for found, other in tried if other.area_px2 < 0.6 * fit.area_px2)


def find_grains(yx_px: FloatArray, spacing_px: float, index: Index) -> list[Indexed]:
    """Split columns into grains, largest first.

    Parameters
    ----------
    yx_px : ndarray, shape (N, 2)
    spacing_px : float
    index : callable
        Follows a basis through columns: (yx_px, bins, basis, spacing_px) -> Indexed or None.

    Returns
    -------
    list of Indexed
        Over all columns. Lattices alike are one grain only if a walk joins them, so a second one like an earlier is left out.
    """
    loose, grains, bases = np.ones(len(yx_px), np.bool_), list[Indexed](), list[FloatArray]()
    while len(grains) < MOST_GRAINS and loose.sum() >= GRAIN_COLUMNS:
        some = np.flatnonzero(loose)
        best = _best(np.ascontiguousarray(yx_px[some]), spacing_px, index)
        if best is None:
            break
        found, fit = best
        site, cell = np.full(len(yx_px), -1, np.int64), np.zeros((len(yx_px), 2), np.int64)
        site[some], cell[some] = found.site, found.cell
        loose &= site < 0
        if not any(alike(one, fit.matrix) for one in bases):
            grains.append(Indexed(site, cell, found.broken))
            bases.append(fit.matrix)
    return sorted(grains, key=lambda grain: -grain.count)
