"""Known sites to the columns of a frame: where each site should be, and which column lies nearest to it.

A pure function of the sites' homes, the drift and the columns. The search range stays under half a spacing, so that on a dense
lattice no site can reach its neighbour's column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from atomid_live.lattice.grid import Bins, sort_into_bins
from atomid_live.tracks.local import medians_of
from atomid_live.types import FloatArray, IntArray

RANGE_SPACINGS = 0.42
JUMP_SPACINGS = 0.75
FIRST_SHARE, ROUNDS = 0.35, (0.35, 0.7, 1.0)
LEAST_FOR_BEND = 30
CLIP = 3.0
ENOUGH = 800


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a home lies in a frame: place = home + shift + bend (home - centre), all (row, column) in px."""

    shift_yx_px: FloatArray
    bend: FloatArray
    centre_yx_px: FloatArray

    def places(self, home_yx_px: FloatArray) -> FloatArray:
        """Places in the frame, shape (N, 2)."""
        (yy, yx), (xy, xx) = self.bend
        y, x = (home_yx_px - self.centre_yx_px).T
        place = home_yx_px + self.shift_yx_px
        place[..., 0] += yy * y + yx * x
        place[..., 1] += xy * y + xx * x
        return np.asarray(place)

    def homes(self, yx_px: FloatArray) -> FloatArray:
        """Homes of places in the frame, shape (N, 2)."""
        away = (yx_px - self.shift_yx_px - self.centre_yx_px) @ np.linalg.inv(np.eye(2) + self.bend).T
        return np.asarray(away + self.centre_yx_px)


@numba.njit(nogil=True, cache=True)
def _claim(places, yx, order, start, size, low_y, low_x, rows, cols, reach):  # type: ignore[no-untyped-def]
    found = np.full(len(places), -1, np.int64)
    holder = np.full(len(yx), -1, np.int64)
    least = np.full(len(yx), np.inf)
    for i in range(len(places)):
        r0, c0 = int(np.floor((places[i, 0] - low_y) / size)), int(np.floor((places[i, 1] - low_x) / size))
        best, which = reach * reach, -1
        for r in range(max(0, r0 - 1), min(rows, r0 + 2)):
            for c in range(max(0, c0 - 1), min(cols, c0 + 2)):
                for k in range(start[r * cols + c], start[r * cols + c + 1]):
                    j = order[k]
                    d = (yx[j, 0] - places[i, 0]) ** 2 + (yx[j, 1] - places[i, 1]) ** 2
                    if d < best:
                        best, which = d, j
        if which >= 0 and best < least[which]:
            if holder[which] >= 0:
                found[holder[which]] = -1
            holder[which], least[which], found[i] = i, best, which
    return found


def _linked(places_yx_px: FloatArray, yx_px: FloatArray, bins: Bins, range_px: float) -> IntArray:
    out: IntArray = _claim(
        places_yx_px, yx_px, bins.order, bins.start, bins.size_px, *bins.low_yx_px, bins.rows, bins.cols, range_px
    )
    return out


def link(places_yx_px: FloatArray, yx_px: FloatArray, range_px: float, bins: Bins | None = None) -> IntArray:
    """Column of each place, shape (M,), -1 where none lies within `range_px`; a column goes to the nearest of its claimants.

    `bins` are those of `yx_px`, of `range_px` or more, where they are at hand.
    """
    if not len(places_yx_px) or not len(yx_px):
        return np.full(len(places_yx_px), -1, np.int64)
    return _linked(places_yx_px, yx_px, bins or sort_into_bins(yx_px, range_px), range_px)


def _straight(away: FloatArray, rest: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Shift (2,) and bend (2, 2) that carry `away` (N, 2) to `away + rest`, far outliers left out."""
    middle, count, left, right = _normal(away, rest)
    if count < LEAST_FOR_BEND:
        return middle, np.zeros((2, 2))
    solution = np.linalg.solve(left, right)
    return np.asarray(solution[0]), np.asarray(solution[1:].T)


@numba.njit(nogil=True, cache=True)
def _normal(away, rest):  # type: ignore[no-untyped-def]
    """Median of `rest`, and of the pairs near it: number, and both sides of the normal equations."""
    middle = medians_of(rest)
    off = np.abs(rest - middle)
    limit = CLIP * 1.4826 * medians_of(off) + 0.05
    count, left, right, x = 0, np.zeros((3, 3)), np.zeros((3, 2)), np.ones(3)
    for k in range(len(rest)):
        if off[k, 0] <= limit[0] and off[k, 1] <= limit[1]:
            count += 1
            x[1], x[2] = away[k, 0], away[k, 1]
            for i in range(3):
                for j in range(3):
                    left[i, j] += x[i] * x[j]
                for j in range(2):
                    right[i, j] += x[i] * rest[k, j]
    return middle, count, left, right


@numba.njit(nogil=True, cache=True)
def _pairs(home, shift, bend, centre, middle, half, yx, order, start, size, low_y, low_x, rows, cols, reach):  # type: ignore[no-untyped-def]
    """Homes whose place lies within `half` of `middle` and that reach a column, and how far the column is off."""
    place, which, count = np.empty((len(home), 2)), np.empty(len(home), np.int64), 0
    for i in range(len(home)):
        dy, dx = home[i, 0] - centre[0], home[i, 1] - centre[1]
        y = home[i, 0] + shift[0] + (bend[0, 0] * dy + bend[0, 1] * dx)
        x = home[i, 1] + shift[1] + (bend[1, 0] * dy + bend[1, 1] * dx)
        if abs(y - middle[0]) <= half[0] and abs(x - middle[1]) <= half[1]:
            place[count, 0], place[count, 1], which[count] = y, x, i
            count += 1
    found = _claim(place[:count], yx, order, start, size, low_y, low_x, rows, cols, reach)
    hit = np.flatnonzero(found >= 0)
    return home[which[hit]], yx[found[hit]] - place[hit]


def align(
    home_yx_px: FloatArray, first: Placement, yx_px: FloatArray, spacing_px: float, shape: tuple[int, int],
    bins: Bins | None = None,
) -> Placement:  # fmt: skip
    """Improve a placement by the columns found: middle of the frame first, then wider, so that no neighbour is taken.

    Parameters
    ----------
    home_yx_px : ndarray, shape (M, 2)
        Homes of sites that should hold a column, in view.
    first : Placement
        By drift, good to a third of a spacing in the middle of the frame.
    yx_px : ndarray, shape (N, 2)
        Columns of the frame.
    spacing_px, shape : float, (int, int)
        Nearest distance of columns; rows and columns of the frame.
    bins : Bins or None
        Those of `yx_px`, of the search range, where they are at hand.
    """
    now, middle = first, (np.array(shape) - 1) / 2
    home_yx_px = home_yx_px[:: 1 + len(home_yx_px) // ENOUGH]
    reach = RANGE_SPACINGS * spacing_px
    bins = bins or sort_into_bins(yx_px, reach)
    half = np.array(shape) / 2
    for share in ROUNDS:
        home, rest = _pairs(
            home_yx_px, now.shift_yx_px, now.bend, now.centre_yx_px, middle, share * half, yx_px, bins.order, bins.start,
            bins.size_px, *bins.low_yx_px, bins.rows, bins.cols, reach,
        )  # fmt: skip
        if len(home) < 3:
            continue
        if share == FIRST_SHARE:
            now = Placement(now.shift_yx_px + medians_of(rest), now.bend, now.centre_yx_px)
            continue
        shift, bend = _straight(home - now.centre_yx_px, rest)
        now = Placement(now.shift_yx_px + shift, now.bend + bend, now.centre_yx_px)
    return now


def link_far(places_yx_px: FloatArray, yx_px: FloatArray, spacing_px: float) -> IntArray:
    """Second look, for sites and columns that stayed alone: a column that jumped; nearest in both directions only."""
    alone = np.full(len(places_yx_px), -1, np.int64)
    if not len(places_yx_px) or not len(yx_px):
        return alone
    reach = JUMP_SPACINGS * spacing_px
    ahead, back = link(places_yx_px, yx_px, reach), link(yx_px, places_yx_px, reach)
    both = (ahead >= 0) & (back[np.maximum(ahead, 0)] == np.arange(len(places_yx_px)))
    return np.where(both, ahead, alone)
