"""Every column gets its cell and its site class, without knowing the crystal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atomid_live.flags import Flag
from atomid_live.lattice.basis import Basis, find_basis
from atomid_live.lattice.graph import link_columns, place_near, walk
from atomid_live.lattice.grid import Bins, nearest_distance, sort_into_bins
from atomid_live.lattice.sites import fit_lattice, node_table
from atomid_live.types import Detections, FloatArray, IntArray, Lattice

LEAST_COLUMNS = 12
LEAST_INDEXED = 0.5
SAME_SITE_SPACINGS = 0.3
NEAR_MEMBERS = 3
CLASS_OF_MAIN = 0.2
GRAIN_SHARE = 0.15
GRAIN_COLUMNS = 30
BROKEN_SHARE = 0.002
MOST_CLASSES = 24

BoolArray = NDArray[np.bool_]


@dataclass(slots=True)
class _Classes:
    """Offsets of the classes so far (fractions of a cell), and which nodes are taken."""

    offsets: list[FloatArray]
    matrix: FloatArray
    tolerance_px: float

    def match(self, place: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
        """Nearest class, cell and distance in pixels of fractional places (M, 2)."""
        away = place[:, None, :] - np.array(self.offsets)[None, :, :]
        cell = np.rint(away)
        distance = np.linalg.norm((away - cell) @ self.matrix.T, axis=2)
        best = distance.argmin(axis=1)
        rows = np.arange(len(place))
        return best, cell[rows, best].astype(np.int64), distance[rows, best]


def _typical_spacing(detections: Detections, shape: tuple[int, int]) -> tuple[float, Bins]:
    guess = float(np.sqrt(shape[0] * shape[1] / len(detections)))
    if 0.2 * guess < detections.spacing_px < 2 * guess:
        guess = detections.spacing_px
    bins = sort_into_bins(detections.yx_px, guess)
    return float(np.median(nearest_distance(detections.yx_px, bins))), bins


def _merge_parts(part: IntArray, cell: IntArray, place: FloatArray, basis: Basis, spacing_px: float) -> tuple[IntArray, IntArray]:
    """Give the large parts their classes, then fit single columns between them into free nodes of known classes."""
    size = np.bincount(part)
    main = int(size.argmax())
    site = np.where(part == main, 0, -1)
    cell = cell.copy()
    classes = _Classes([np.zeros(2)], basis.matrix, SAME_SITE_SPACINGS * spacing_px)
    taken = {(0, int(i), int(j)) for i, j in cell[part == main]}
    known = np.isfinite(place[:, 0])
    for p in np.argsort(-size, kind="stable"):
        members = np.flatnonzero((part == p) & known) if size[p] > 3 else np.empty(0, np.int64)
        if p == main or len(members) < max(4, 0.2 * size[p]):
            if size[p] <= 3:
                break
            continue
        shift = np.median(place[members] - cell[members], axis=0)
        kind, jump, distance = classes.match(shift[None, :])
        if distance[0] > classes.tolerance_px:
            if size[p] < CLASS_OF_MAIN * size[main] or len(classes.offsets) >= MOST_CLASSES:
                continue
            step = np.floor(shift + 1e-6)
            classes.offsets.append(shift - step)
            kind, jump = np.array([len(classes.offsets) - 1]), step[None, :].astype(np.int64)
        every = np.flatnonzero(part == p)
        moved = cell[every] + jump[0]
        nodes = [(int(kind[0]), int(i), int(j)) for i, j in moved]
        free = np.array([node not in taken for node in nodes])
        site[every[free]], cell[every[free]] = kind[0], moved[free]
        taken.update(node for node, ok in zip(nodes, free, strict=True) if ok)
    single = np.flatnonzero((site < 0) & known)
    if len(single):
        kinds, cells, distance = classes.match(place[single])
        for k in np.argsort(distance, kind="stable"):
            node = (int(kinds[k]), int(cells[k, 0]), int(cells[k, 1]))
            if distance[k] > classes.tolerance_px:
                break
            if node not in taken:
                taken.add(node)
                site[single[k]], cell[single[k]] = kinds[k], cells[k]
    return site, cell


def _order_classes(site: IntArray) -> IntArray:
    """Number the classes by size, largest first."""
    count = np.bincount(site[site >= 0])
    rank = np.empty(len(count), np.int64)
    rank[np.argsort(-count, kind="stable")] = np.arange(len(count))
    out = site.copy()
    out[site >= 0] = rank[site[site >= 0]]
    return out


def _second_grain(yx_px: FloatArray, loose: BoolArray, spacing_px: float) -> bool:
    """Whether the columns left over form a lattice of their own."""
    rest = yx_px[loose]
    if len(rest) < GRAIN_COLUMNS:
        return False
    basis = find_basis(rest, spacing_px)
    if basis is None:
        return False
    _, ahead, _ = link_columns(rest, sort_into_bins(rest, spacing_px), basis, spacing_px)
    return bool((ahead[:2] >= 0).mean() > LEAST_INDEXED)


def _verdict(indexed: float, several: bool, broken: float) -> tuple[str, int]:
    if several:
        return (
            f"more than one lattice in the frame (grain boundary, twin or twisted layers); "
            f"{indexed:.0%} of the columns belong to the one used",
            int(Flag.SEVERAL_LATTICES),
        )
    if broken > BROKEN_SHARE:
        return f"cells do not close ({broken:.1%} of the joins): a dislocation, or a boundary inside the frame", 0
    if indexed < 0.8:
        return f"only {indexed:.0%} of the columns fit the lattice", 0
    return "", 0


def find_lattice(detections: Detections, shape: tuple[int, int]) -> Lattice:
    """Find the lattice of a frame and place each column in it.

    Parameters
    ----------
    detections : Detections
        Columns of the frame.
    shape : (int, int)
        Rows and columns of the frame in pixels.

    Returns
    -------
    Lattice
        Classes are numbered by size. A column that fits no node has site -1. Without two closing translations, or
        with under half of the columns on one lattice of a single grain, `found` is false and `reason` says why. `reason` is
        also filled, with the lattice, where several grains, a dislocation or many loose columns make it doubtful.
    """
    count = len(detections)
    if count < LEAST_COLUMNS:
        return Lattice.none_for(count, f"{count} columns are too few for a lattice (at least {LEAST_COLUMNS})")
    yx = np.ascontiguousarray(detections.yx_px, dtype=np.float64)
    if not np.isfinite(yx).all():
        raise ValueError("column positions hold NaN or infinity; drop such columns before indexing")
    spacing, _ = _typical_spacing(detections, shape)
    if not spacing > 0:
        return Lattice.none_for(count, "columns lie on top of each other")
    basis = find_basis(yx, spacing)
    if basis is None:
        return Lattice.none_for(count, "no repeating lattice: sparse, amorphous, or several small grains")
    bins = sort_into_bins(yx, spacing)
    basis, ahead, back = link_columns(yx, bins, basis, spacing)
    part, cell, _, broken = walk(ahead, back)
    main = part == np.bincount(part).argmax()
    if main.sum() < LEAST_COLUMNS // 2 or np.ptp(cell[main], axis=0).min() < 1:
        return Lattice.none_for(count, "columns repeat along one line only, or the lattice is too broken to be followed")
    place, seen = place_near(yx, bins, basis, main, cell, ~main)
    place[seen < NEAR_MEMBERS] = np.nan
    site, cell = _merge_parts(part, cell, place, basis, spacing)
    return _finish(yx, _order_classes(site), cell, shape, spacing, broken)


def _finish(yx: FloatArray, site: IntArray, cell: IntArray, shape: tuple[int, int], spacing: float, broken: float) -> Lattice:
    count = len(yx)
    loose = site < 0
    indexed = 1 - float(loose.mean())
    several = loose.mean() > GRAIN_SHARE and _second_grain(yx, loose, spacing)
    if indexed < LEAST_INDEXED and not several:
        return Lattice.none_for(count, f"only {indexed:.0%} of the columns fit a common lattice")
    try:
        node_table(cell, site)
    except ValueError as error:
        return Lattice.none_for(count, str(error))
    fit = fit_lattice(yx, cell, site)
    centre = (np.array(shape) - 1) / 2
    nearest = np.rint(np.linalg.solve(fit.matrix, centre - fit.origin_yx_px[0])).astype(np.int64)
    cell = np.where(loose[:, None], 0, cell - nearest)
    origin = fit.origin_yx_px[0] + fit.matrix @ nearest
    reason, flags = _verdict(indexed, several, broken)
    a, b = fit.matrix.T
    return Lattice(
        (float(a[0]), float(a[1])),
        (float(b[0]), float(b[1])),
        (float(origin[0]), float(origin[1])),
        cell,
        site,
        fit.residual_px,
        indexed,
        flags,
        reason,
    )
