"""Every column gets its cell and its site class, without knowing the crystal."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray

from atomid_live.flags import Flag
from atomid_live.lattice.basis import Basis, find_basis
from atomid_live.lattice.grains import GRAIN_COLUMNS, Indexed, find_grains, lies_over
from atomid_live.lattice.graph import link_columns, place_near, walk
from atomid_live.lattice.grid import Bins, nearest_distance, sort_into_bins
from atomid_live.lattice.sites import MAX_TABLE, fit_lattice
from atomid_live.types import Detections, FloatArray, IntArray, Lattice

LEAST_COLUMNS = 12
FEW_COLUMNS, FEW_INDEXED, FEW_RESIDUAL = 60, 0.7, 0.15
SPACING_COLUMNS = 800
LEAST_INDEXED, LEAST_AMONG_GRAINS = 0.5, 0.35
SAME_SITE_SPACINGS = 0.3
NEAR_MEMBERS = 3
CLASS_OF_MAIN = 0.2
GRAIN_SHARE = 0.15
LEAST_LOOSE = 0.03
LEAST_IN_GRAINS = 0.6
LOST_AT_BOUNDARIES = 0.15
BROKEN_SHARE = 0.002
MOST_CLASSES = 24
MOST_PARTS = 64
SMALL_PART = 3
BENT_SPACINGS = 0.25
SPARSE_OF_MAIN = 0.06
SPARSE_CONTRAST = 3.0
MOST_SPARSE = 6
COINCIDENCE_CLASSES = 4
NO_LATTICE = "no repeating lattice: sparse, amorphous, or several small grains"

BoolArray = NDArray[np.bool_]


@dataclass(slots=True)
class _Classes:
    """Offsets of the classes so far, in fractions of a cell."""

    offsets: list[FloatArray]
    matrix: FloatArray

    def match(self, place: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
        """Nearest class, cell and distance in pixels of fractional places (M, 2)."""
        away = place[:, None, :] - np.array(self.offsets)[None, :, :]
        cell = np.rint(away)
        left = away - cell
        (ay, ax), (by, bx) = self.matrix.T
        square = (left[..., 0] * ay + left[..., 1] * by) ** 2 + (left[..., 0] * ax + left[..., 1] * bx) ** 2
        best = square.argmin(axis=1)
        rows = np.arange(len(place))
        return best, cell[rows, best].astype(np.int64), np.sqrt(square[rows, best])


def _typical_spacing(yx_px: FloatArray, detections: Detections, shape: tuple[int, int]) -> tuple[float, Bins]:
    guess = float(np.sqrt(shape[0] * shape[1] / len(yx_px)))
    if 0.2 * guess < detections.spacing_px < 2 * guess:
        guess = detections.spacing_px
    bins = sort_into_bins(yx_px, guess)
    return float(np.median(nearest_distance(yx_px, bins, -(-len(yx_px) // SPACING_COLUMNS)))), bins


def _sparse_class(place: FloatArray, classes: _Classes, tolerance: float, least: float) -> bool:
    """Add the class of a species of which only some columns were found: loose columns that gather at one place in the cell."""
    if len(place):
        place = place[classes.match(place)[2] > tolerance]
    bins = np.maximum(3, np.ceil(np.linalg.norm(classes.matrix, axis=0) / (0.5 * tolerance))).astype(int)
    if len(place) < least:
        return False
    part = place - np.floor(place)
    at = np.minimum((part * bins).astype(int), bins - 1)
    count = np.bincount(at[:, 0] * bins[1] + at[:, 1], minlength=int(bins.prod())).reshape(bins)
    near = sum(np.roll(count, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1))
    guess = (np.array(np.unravel_index(int(np.argmax(near)), count.shape)) + 0.5) / bins
    trial = _Classes([guess], classes.matrix)
    for _ in range(2):
        _, cell, distance = trial.match(part)
        close = distance <= tolerance
        if not close.any():
            return False
        trial.offsets[0] = np.median((part - cell)[close], axis=0)
    by_chance = len(place) * np.pi * tolerance**2 / abs(float(np.linalg.det(classes.matrix)))
    if close.sum() < least or close.sum() < SPARSE_CONTRAST * by_chance:
        return False
    classes.offsets.append(trial.offsets[0] - np.floor(trial.offsets[0] + 1e-6))
    return True


def _merge_parts(
    part: IntArray, cell: IntArray, place: FloatArray, basis: Basis, spacing_px: float
) -> tuple[IntArray, IntArray]:
    """Give the large parts their classes, then fit single columns between them into free nodes; returns site and cell."""
    size = np.bincount(part)
    order = np.argsort(-size, kind="stable")[:MOST_PARTS]
    main = int(order[0])
    site = np.where(part == main, 0, -1)
    rank = np.where(part == main, 0.0, np.inf)
    cell = cell.copy()
    tolerance = SAME_SITE_SPACINGS * spacing_px
    classes = _Classes([np.zeros(2)], basis.matrix)
    known = np.isfinite(place[:, 0])
    for turn, p in enumerate(order[1:], 1):
        if size[p] <= SMALL_PART:
            break
        every = np.flatnonzero(part == p)
        members = every[known[every]]
        if len(members) < max(SMALL_PART, 0.2 * size[p]):
            continue
        shift = np.median(place[members] - cell[members], axis=0)
        kind, jump, distance = classes.match(shift[None, :])
        if distance[0] > tolerance:
            if size[p] < CLASS_OF_MAIN * size[main] or len(classes.offsets) >= MOST_CLASSES:
                continue
            step = np.floor(shift + 1e-6)
            classes.offsets.append(shift - step)
            kind, jump = np.array([len(classes.offsets) - 1]), step[None, :].astype(np.int64)
        site[every], cell[every], rank[every] = kind[0], cell[every] + jump[0], turn
    single = np.flatnonzero((site < 0) & known)
    least = max(LEAST_COLUMNS, SPARSE_OF_MAIN * size[main])
    while len(classes.offsets) < MOST_SPARSE and _sparse_class(place[single], classes, tolerance, least):
        pass
    if len(single):
        kinds, cells, distance = classes.match(place[single])
        fits = distance <= tolerance
        chosen = single[fits]
        site[chosen], cell[chosen] = kinds[fits], cells[fits]
        rank[chosen] = MOST_PARTS + distance[fits]
    return _one_column_per_node(site, cell, rank), cell


@numba.njit(nogil=True, cache=True)
def _keep_best(site, cell, rank, low, shape):  # type: ignore[no-untyped-def]
    holder = np.full((shape[0], shape[1], shape[2]), -1, np.int64)
    out = np.full(len(site), -1, np.int64)
    for i in range(len(site)):
        if site[i] >= 0:
            p, q = cell[i, 0] - low[0], cell[i, 1] - low[1]
            other = holder[site[i], p, q]
            if other < 0 or rank[i] < rank[other]:
                holder[site[i], p, q] = i
    for s in range(shape[0]):
        for p in range(shape[1]):
            for q in range(shape[2]):
                if holder[s, p, q] >= 0:
                    out[holder[s, p, q]] = s
    return out


def _one_column_per_node(site: IntArray, cell: IntArray, rank: FloatArray) -> IntArray:
    """Take the class from all but the best-ranked column of each node."""
    used = cell[site >= 0]
    low, high = used.min(axis=0), used.max(axis=0)
    shape = np.array([site.max() + 1, *(high - low + 1)])
    if np.prod(shape.astype(float)) > MAX_TABLE:
        return np.full(len(site), -1, np.int64)
    out: IntArray = _keep_best(site, cell, rank, low, shape)
    return out


def _order_classes(site: IntArray) -> IntArray:
    """Number the classes by size, largest first."""
    count = np.bincount(site[site >= 0])
    rank = np.empty(len(count), np.int64)
    rank[np.argsort(-count, kind="stable")] = np.arange(len(count))
    out = site.copy()
    out[site >= 0] = rank[site[site >= 0]]
    return out


def _verdict(indexed: float, broken: float, bend: float) -> tuple[str, int]:
    if bend > BENT_SPACINGS:
        return (
            f"the lattice turns or bends across the frame (columns lie {bend:.1f} spacings off a straight lattice): "
            "grains of similar orientation, or a strongly distorted scan",
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
        also filled, with the lattice, where several grains, a dislocation or many loose columns make it doubtful. Grains that
        lie side by side have their own lattices in `others`.
    """
    count = len(detections)
    if count < LEAST_COLUMNS:
        return Lattice.none_for(count, f"{count} columns are too few for a lattice (at least {LEAST_COLUMNS})")
    yx = np.ascontiguousarray(detections.yx_px, dtype=np.float64)
    if not np.isfinite(yx).all():
        raise ValueError("column positions hold NaN or infinity; drop such columns before indexing")
    spacing, bins = _typical_spacing(yx, detections, shape)
    if not spacing > 0:
        return Lattice.none_for(count, "columns lie on top of each other")
    basis = find_basis(yx, bins, spacing)
    if basis is None:
        return Lattice.none_for(count, NO_LATTICE)
    found = _index(yx, bins, basis, spacing)
    if found is None:
        return Lattice.none_for(count, "columns repeat along one line only, or the lattice is too broken to be followed")
    return _finish(yx, found, shape, spacing)


def _index(yx: FloatArray, bins: Bins, basis: Basis, spacing: float, tight: bool = False) -> Indexed | None:
    basis, ahead, back = link_columns(yx, bins, basis, spacing, tight)
    part, cell, _, broken = walk(ahead, back)
    main = part == np.bincount(part).argmax()
    if main.sum() < LEAST_COLUMNS // 2 or np.ptp(cell[main], axis=0).min() < 1:
        return None
    place, seen = place_near(yx, bins, basis, main, cell, ~main)
    place[seen < NEAR_MEMBERS] = np.nan
    site, cell = _merge_parts(part, cell, place, basis, spacing)
    return Indexed(_order_classes(site), cell, broken) if site.max() >= 0 else None


def _tight(yx: FloatArray, bins: Bins, basis: Basis, spacing: float) -> Indexed | None:
    return _index(yx, bins, basis, spacing, tight=True)


def _finish(yx: FloatArray, found: Indexed, shape: tuple[int, int], spacing: float) -> Lattice:
    count, loose = len(yx), found.site < 0
    fit = fit_lattice(yx, found.cell, found.site)
    bend = fit.residual_px / spacing
    doubtful = bend > BENT_SPACINGS or found.site.max() >= COINCIDENCE_CLASSES or found.broken > BROKEN_SHARE
    grains: list[Indexed] = []
    if doubtful or (loose.mean() > LEAST_LOOSE and loose.sum() >= 2 * GRAIN_COLUMNS):
        grains = find_grains(yx, spacing, _tight)
        if _worth(yx, grains, found, spacing, doubtful):
            return _several(yx, grains, shape, spacing)
    indexed = 1 - float(loose.mean())
    if indexed < LEAST_INDEXED and (len(grains) < 2 or indexed < LEAST_AMONG_GRAINS):
        return Lattice.none_for(count, f"only {indexed:.0%} of the columns fit a common lattice")
    if indexed < LEAST_INDEXED:
        words = f"grains or inclusions that no common lattice holds; {indexed:.0%} of the columns belong to the one used"
        return replace(_as_lattice(yx, found, shape), flags=int(Flag.SEVERAL_LATTICES), reason=words)
    if count < FEW_COLUMNS and (indexed < FEW_INDEXED or bend > FEW_RESIDUAL):
        return Lattice.none_for(count, f"{count} columns are too few for so loose a lattice")
    reason, flags = _verdict(indexed, found.broken, bend)
    return replace(_as_lattice(yx, found, shape), flags=flags, reason=reason)


def _worth(yx: FloatArray, grains: list[Indexed], found: Indexed, spacing: float, doubtful: bool) -> bool:
    """Whether several lattices tell more than the one: they hold more columns, or as many where that one is doubtful.

    A few columns between those of the first lattice are a sparse species of it, or chance.
    """
    if len(grains) < 2:
        return False
    held = sum(grain.count for grain in grains)
    if (
        held < LEAST_IN_GRAINS * len(yx)
        or held < found.count + (0 if doubtful else 1) - LOST_AT_BOUNDARIES * len(yx) * doubtful
    ):
        return False
    small = grains[1].count < GRAIN_SHARE * len(yx)
    return not (small and lies_over(yx, grains[1].site >= 0, grains[0].site >= 0, spacing))


def _several(yx: FloatArray, grains: list[Indexed], shape: tuple[int, int], spacing: float) -> Lattice:
    main, share = _as_lattice(yx, grains[0], shape), grains[0].count / len(yx)
    if any(lies_over(yx, grain.site >= 0, grains[0].site >= 0, spacing) for grain in grains[1:]):
        words = f"lattices lie over one another (twisted or stacked layers); {share:.0%} of the columns belong to the first"
        return replace(main, flags=int(Flag.SEVERAL_LATTICES), reason=words)
    words = (
        f"{len(grains)} lattices in the frame (grains, twins or phases), each with a strain of its own; "
        f"{share:.0%} of the columns belong to the largest"
    )
    others = tuple(_as_lattice(yx, grain, shape) for grain in grains[1:])
    return replace(main, flags=int(Flag.SEVERAL_LATTICES), reason=words, others=others)


def _as_lattice(yx: FloatArray, found: Indexed, shape: tuple[int, int]) -> Lattice:
    """Cells counted from a node near the frame's centre."""
    fit = fit_lattice(yx, found.cell, found.site)
    centre = (np.array(shape) - 1) / 2
    nearest = np.rint(np.linalg.solve(fit.matrix, centre - fit.origin_yx_px[0])).astype(np.int64)
    loose = found.site < 0
    origin = fit.origin_yx_px[0] + fit.matrix @ nearest
    a, b = fit.matrix.T
    return Lattice(
        (float(a[0]), float(a[1])),
        (float(b[0]), float(b[1])),
        (float(origin[0]), float(origin[1])),
        np.where(loose[:, None], 0, found.cell - nearest),
        found.site,
        fit.residual_px,
        1 - float(loose.mean()),
    )
