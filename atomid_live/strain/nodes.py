"""Mean position of every lattice node over the first frames of a segment, found again in every later frame.

Frames are brought together by drift, but only up to the nearest lattice vector: a whole cell more or less compares each column
with its neighbour's reference, which changes a strain only where the reference itself was strained unevenly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from atomid_live.lattice.sites import LatticeFit, fit_lattice
from atomid_live.strain.field import Columns, Reference
from atomid_live.types import FloatArray, IntArray

MATCHING_COLUMNS = 1000
MOST_CHANGE = 0.2
SAME_SITE_SPACINGS = 0.3
DRIFT_TRUST = 0.2


@numba.njit(nogil=True, cache=True)
def _look_up(site, cell, low, total, hits):  # type: ignore[no-untyped-def]
    out = np.full((len(site), 2), np.nan)
    for k in range(len(site)):
        i, j = cell[k, 0] - low[0], cell[k, 1] - low[1]
        if site[k] >= 0 and 0 <= i < hits.shape[1] and 0 <= j < hits.shape[2] and hits[site[k], i, j] > 0:
            out[k, 0] = total[site[k], i, j, 0] / hits[site[k], i, j]
            out[k, 1] = total[site[k], i, j, 1] / hits[site[k], i, j]
    return out


@dataclass(frozen=True, slots=True)
class _Match:
    """How a frame's nodes are named in the reference: cell = change @ cell + jump[site], site = kind[site] (-1 unknown)."""

    change: IntArray
    jump: IntArray
    kind: IntArray


class NodeAverage:
    """Collects `count` frames, then says where each column of a later frame stood.

    Parameters
    ----------
    count : int
        Frames to average.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.frames = 0
        self._low = np.zeros(2, np.int64)
        self._sum = np.zeros((0, 0, 0, 2))
        self._hits = np.zeros((0, 0, 0), np.int64)
        self._shift = np.zeros(2)
        self._total = np.zeros(2)
        self.fit: LatticeFit | None = None

    @property
    def ready(self) -> bool:
        """Whether all frames are in."""
        return self.frames >= self.count

    def add(self, columns: Columns, total: FloatArray) -> str:
        """Take a frame into the average; `total` is its drift in the pixels of `columns`, NaN when unknown.

        Returns "" or the reason why the frame was left out.
        """
        if self.fit is None:
            classes = len(columns.fit.origin_yx_px)
            self.fit = columns.fit
            self._sum, self._hits = np.zeros((classes, 1, 1, 2)), np.zeros((classes, 1, 1), np.int64)
            self._total = np.nan_to_num(total)
            match: _Match | str = _Match(np.eye(2, dtype=np.int64), np.zeros((classes, 2), np.int64), np.arange(classes))
        else:
            match = self._match(columns, total)
        if isinstance(match, str):
            return match
        site, cell = _rename(columns, match)
        self._grow(cell[site >= 0])
        mean = self._lookup(site, cell)
        if np.isfinite(mean[:, 0]).any():
            self._shift = np.nanmedian(columns.yx - mean, axis=0)
        use = site >= 0 if columns.poor is None else (site >= 0) & ~columns.poor
        at = (site[use], *(cell[use] - self._low).T)
        self._sum[at] += columns.yx[use] - self._shift
        self._hits[at] += 1
        self.frames += 1
        if self.ready:
            self._finish()
        return ""

    def find(self, columns: Columns, total: FloatArray) -> Reference | str:
        """Reference positions of a frame's columns, or the reason why the frame cannot be compared."""
        assert self.fit is not None
        match = self._match(columns, total)
        if isinstance(match, str):
            return match
        site, cell = _rename(columns, match)
        yx = self._lookup(site, cell)
        known = np.flatnonzero(np.isfinite(yx[:, 0]))
        if len(known):
            some = known[:: -(-len(known) // MATCHING_COLUMNS)]
            self._shift = np.median(columns.yx[some] - yx[some], axis=0)
        origin = columns.fit.origin_yx_px.copy()
        named = match.kind >= 0
        matrix = self.fit.matrix @ match.change
        origin[named] = self.fit.origin_yx_px[match.kind[named]] + match.jump[named] @ self.fit.matrix.T
        return Reference(LatticeFit(matrix, origin, self.fit.residual_px), yx)

    def _finish(self) -> None:
        site, i, j = np.nonzero(self._hits)
        cell = np.stack([i, j], axis=1) + self._low
        self.fit = fit_lattice(self._lookup(site, cell), cell, site)

    def _lookup(self, site: IntArray, cell: IntArray) -> FloatArray:
        """Mean position (N, 2) of nodes, NaN where no frame had one."""
        out: FloatArray = _look_up(site, cell, self._low, self._sum, self._hits)
        return out

    def _grow(self, cell: IntArray) -> None:
        low = np.minimum(self._low, cell.min(axis=0))
        high = np.maximum(self._low + np.array(self._hits.shape[1:]), cell.max(axis=0) + 1)
        before, after = self._low - low, high - self._low - np.array(self._hits.shape[1:])
        if before.any() or after.any():
            margin = [(0, 0), (int(before[0]), int(after[0])), (int(before[1]), int(after[1]))]
            self._hits = np.pad(self._hits, margin)
            self._sum = np.pad(self._sum, [*margin, (0, 0)])
            self._low = low

    def _match(self, columns: Columns, total: FloatArray) -> _Match | str:
        """Name the frame's cells and classes in the reference by its basis and its drift."""
        assert self.fit is not None
        inverse = np.linalg.inv(self.fit.matrix)
        step = inverse @ columns.fit.matrix
        change = np.rint(step).astype(np.int64)
        if abs(round(float(np.linalg.det(change)))) != 1 or np.abs(step - change).max() > MOST_CHANGE:
            return "lattice differs from the reference's by more than strain can explain: other grain, phase or magnification"
        shift = total - self._total if np.isfinite(total).all() else self._shift
        middle = []
        for s in range(len(columns.fit.origin_yx_px)):
            some = np.flatnonzero(columns.site == s)
            some = some[:: -(-len(some) // MATCHING_COLUMNS)]
            place = (columns.yx[some] - shift - self.fit.origin_yx_px[0]) @ inverse.T - columns.cell[some] @ change.T
            middle.append(np.median(place, axis=0))
        offset = (self.fit.origin_yx_px - self.fit.origin_yx_px[0]) @ inverse.T
        jump, kind = _name_classes(np.array(middle), offset, self.fit.matrix, SAME_SITE_SPACINGS * columns.spacing)
        return _Match(change, jump, kind)


def _rename(columns: Columns, match: _Match) -> tuple[IntArray, IntArray]:
    """Site and cell of each column in the reference's names."""
    own = np.maximum(columns.site, 0)
    site = np.where(columns.site >= 0, match.kind[own], -1)
    (yy, yx), (xy, xx) = match.change
    i, j = columns.cell.T
    return site, np.stack([yy * i + yx * j, xy * i + xx * j], axis=1) + match.jump[own]


def _name_classes(middle: FloatArray, offset: FloatArray, matrix: FloatArray, tolerance: float) -> tuple[IntArray, IntArray]:
    """Match classes at fractional places `middle` (C, 2) with reference classes at `offset` (R, 2), up to one common shift.

    The shift that brings the largest class onto some reference class and the others nearest to theirs wins; a small shift
    is preferred. Returns cell jumps (C, 2) and reference classes (C,), -1 where none is within `tolerance` pixels.
    """
    best = (np.inf, np.zeros((len(middle), 2), np.int64), np.full(len(middle), -1, np.int64))
    for first in range(len(offset)):
        rest = middle[0] - offset[first]
        shift = rest - np.rint(rest)
        away = (middle - shift)[:, None, :] - offset[None, :, :]
        jump = np.rint(away)
        distance = np.linalg.norm((away - jump) @ matrix.T, axis=2)
        kind = distance.argmin(axis=1)
        rows = np.arange(len(middle))
        near = distance[rows, kind]
        cost = float(near @ near) + (DRIFT_TRUST * float(np.linalg.norm(matrix @ shift))) ** 2
        if cost < best[0]:
            named = np.where(near <= tolerance, kind, -1)
            best = (cost, jump[rows, kind].astype(np.int64), named)
    return best[1], best[2]
