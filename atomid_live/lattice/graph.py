"""Translation graph: each column joined to the one found a lattice vector away, so that indexing follows smooth distortion."""

from __future__ import annotations

import numba
import numpy as np

from atomid_live.lattice.basis import Basis
from atomid_live.lattice.grid import Bins, only_bins
from atomid_live.types import FloatArray, IntArray

TOLERANCE_OF_A = 0.2
TOLERANCE_OF_SPACING = 0.35
REFINING = 1500
MEASURED = 2500
PLACE_REACH_OF_B = 1.2
STEPS = np.array([[1, 0], [0, 1], [1, 1]], np.int64)


@numba.njit(nogil=True, cache=True)
def _link(yx, vectors, tolerance, order, start, size, low_y, low_x, rows, cols, stride):  # type: ignore[no-untyped-def]
    n = len(yx)
    ahead = np.full((len(vectors), n), -1, np.int64)
    back = np.full((len(vectors), n), -1, np.int64)
    claim = np.empty(n)
    for v in range(len(vectors)):
        claim[:] = np.inf
        for i in range(0, n, stride):
            y, x = yx[i, 0] + vectors[v, 0], yx[i, 1] + vectors[v, 1]
            r0 = int(np.floor((y - tolerance - low_y) / size))
            r1 = int(np.floor((y + tolerance - low_y) / size))
            c0 = int(np.floor((x - tolerance - low_x) / size))
            c1 = int(np.floor((x + tolerance - low_x) / size))
            best, who = tolerance * tolerance, -1
            for r in range(max(0, r0), min(rows - 1, r1) + 1):
                if c1 < 0 or c0 >= cols:
                    break
                for k in range(start[r * cols + max(0, c0)], start[r * cols + min(cols - 1, c1) + 1]):
                    j = order[k]
                    d = (yx[j, 0] - y) ** 2 + (yx[j, 1] - x) ** 2
                    if d < best and j != i:
                        best, who = d, j
            if who >= 0 and best < claim[who]:
                if back[v, who] >= 0:
                    ahead[v, back[v, who]] = -1
                ahead[v, i], back[v, who], claim[who] = who, i, best
    return ahead, back


@numba.njit(nogil=True, cache=True)
def _walk(ahead, back, steps):  # type: ignore[no-untyped-def]
    n = ahead.shape[1]
    part = np.full(n, -1, np.int64)
    cell = np.zeros((n, 2), np.int64)
    queue = np.empty(n, np.int64)
    parts = 0
    for seed in range(n):
        if part[seed] >= 0:
            continue
        head, tail = 0, 1
        queue[0] = seed
        part[seed] = parts
        while head < tail:
            i = queue[head]
            head += 1
            for v in range(len(steps)):
                for sign in (1, -1):
                    j = ahead[v, i] if sign == 1 else back[v, i]
                    if j >= 0 and part[j] < 0:
                        part[j] = parts
                        cell[j, 0] = cell[i, 0] + sign * steps[v, 0]
                        cell[j, 1] = cell[i, 1] + sign * steps[v, 1]
                        queue[tail] = j
                        tail += 1
        parts += 1
    links, broken = 0, 0
    for v in range(len(steps)):
        for i in range(n):
            j = ahead[v, i]
            if j >= 0:
                links += 1
                if cell[j, 0] - cell[i, 0] != steps[v, 0] or cell[j, 1] - cell[i, 1] != steps[v, 1]:
                    broken += 1
    return part, cell, parts, links, broken


@numba.njit(nogil=True, cache=True)
def _place(yx, cell, inverse, radius, ask, order, start, size, low_y, low_x, rows, cols):  # type: ignore[no-untyped-def]
    """Fractional cell of each asked column, averaged over the columns in the bins within `radius`, and how many they were."""
    n = len(yx)
    place = np.full((n, 2), np.nan)
    seen = np.zeros(n, np.int64)
    span = int(radius / size) + 1
    for i in range(n):
        if not ask[i]:
            continue
        r0 = int((yx[i, 0] - low_y) / size)
        c0 = int((yx[i, 1] - low_x) / size)
        sum_i, sum_j, count = 0.0, 0.0, 0
        for r in range(max(0, r0 - span), min(rows, r0 + span + 1)):
            for k in range(start[r * cols + max(0, c0 - span)], start[r * cols + min(cols, c0 + span + 1)]):
                j = order[k]
                if j != i:
                    dy, dx = yx[i, 0] - yx[j, 0], yx[i, 1] - yx[j, 1]
                    if dy * dy + dx * dx <= radius * radius:
                        sum_i += inverse[0, 0] * dy + inverse[0, 1] * dx + cell[j, 0]
                        sum_j += inverse[1, 0] * dy + inverse[1, 1] * dx + cell[j, 1]
                        count += 1
        seen[i] = count
        if count:
            place[i, 0], place[i, 1] = sum_i / count, sum_j / count
    return place, seen


def link_columns(
    yx_px: FloatArray, bins: Bins, basis: Basis, spacing_px: float, tight: bool = False
) -> tuple[Basis, IntArray, IntArray]:
    """Join columns along a, b and a + b; the basis is refined from pairs joined with a first guess of it.

    Tight, half the usual departure from the basis ends a join, so that a grain turned by some degrees is not walked into.

    Returns
    -------
    Basis, ndarray, ndarray
        Refined basis, and for each of the three steps, shape (3, N), the column ahead and the column behind, -1 for none.
        Joins are mutual.
    """
    where = (bins.order, bins.start, bins.size_px, *bins.low_yx_px, bins.rows, bins.cols)
    for stride in (-(-len(yx_px) // REFINING), 1):
        a, b = basis.a_yx_px, basis.b_yx_px
        tolerance = min(TOLERANCE_OF_A * float(np.hypot(*a)), TOLERANCE_OF_SPACING * spacing_px) / (2 if tight else 1)
        ahead, back = _link(yx_px, np.array([a, b, a + b]), tolerance, *where, stride)
        mean = []
        for v, guess in enumerate((a, b)):
            i = np.flatnonzero(ahead[v] >= 0)
            i = i[:: -(-len(i) // MEASURED) or 1]
            step = yx_px[ahead[v][i]] - yx_px[i]
            mean.append(np.array([np.median(step[:, 0]), np.median(step[:, 1])]) if len(i) else guess)
        basis = Basis(mean[0], mean[1], basis.height)
    return basis, ahead, back


def walk(ahead: IntArray, back: IntArray) -> tuple[IntArray, IntArray, int, float]:
    """Number the cells of each connected part breadth-first.

    Returns
    -------
    part, cell : ndarray (N,), (N, 2)
        Part number, and the cell counted from the part's first column.
    parts : int
        Number of parts.
    broken : float
        Share of joins whose cells do not agree: not zero across a dislocation or where grains were joined by accident.
    """
    part, cell, parts, links, broken = _walk(ahead, back, STEPS)
    return part, cell, parts, broken / max(links, 1)


def place_near(
    yx_px: FloatArray, bins: Bins, basis: Basis, member: np.ndarray, cell: IntArray, ask: np.ndarray
) -> tuple[FloatArray, IntArray]:
    """Fractional cell (N, 2) of the asked columns as seen from member columns within 1.2 |b|, and how many those are (N,)."""
    radius = PLACE_REACH_OF_B * float(np.hypot(*basis.b_yx_px))
    inverse = np.linalg.inv(basis.matrix)
    bins = only_bins(yx_px, bins, np.flatnonzero(member))
    place, seen = _place(
        yx_px, cell, inverse, radius, ask, bins.order, bins.start, bins.size_px, *bins.low_yx_px, bins.rows, bins.cols
    )
    return place, seen
