"""Columns sorted into square bins, so that neighbours are found without a tree (numba, serial)."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from atomid_live.types import FloatArray, IntArray


class Bins(NamedTuple):
    """Columns by bin: those of bin (r, c) are `order[start[r * cols + c] : start[r * cols + c + 1]]`.

    `size_px` is the side of a bin, `low_yx_px` the corner of bin (0, 0), `rows` and `cols` the number of bins.
    """

    order: IntArray
    start: IntArray
    size_px: float
    low_yx_px: tuple[float, float]
    rows: int
    cols: int


@numba.njit(nogil=True, cache=True)
def _sort(yx, size, low_y, low_x, rows, cols):  # type: ignore[no-untyped-def]
    n = len(yx)
    start = np.zeros(rows * cols + 1, np.int64)
    where = np.empty(n, np.int64)
    for i in range(n):
        r = min(rows - 1, int((yx[i, 0] - low_y) / size))
        c = min(cols - 1, int((yx[i, 1] - low_x) / size))
        where[i] = r * cols + c
        start[where[i] + 1] += 1
    for b in range(rows * cols):
        start[b + 1] += start[b]
    fill = start[:-1].copy()
    order = np.empty(n, np.int64)
    for i in range(n):
        order[fill[where[i]]] = i
        fill[where[i]] += 1
    return order, start


@numba.njit(nogil=True, cache=True)
def extent(yx):  # type: ignore[no-untyped-def]
    """Lowest and highest coordinates, shape (2,) each."""
    low, high = yx[0].copy(), yx[0].copy()
    for i in range(len(yx)):
        for c in range(2):
            low[c], high[c] = min(low[c], yx[i, c]), max(high[c], yx[i, c])
    return low, high


MAX_BINS = 4_000_000


def sort_into_bins(yx_px: FloatArray, size_px: float) -> Bins:
    """Sort positions (N, 2), N >= 1, into bins of `size_px` pixels; bins grow where far outliers would ask for millions."""
    low, high = extent(yx_px)
    span = high - low
    size_px = max(size_px, 1e-6, float(np.sqrt(span[0] * span[1] / MAX_BINS)), float(span.max()) / MAX_BINS)
    rows, cols = (int(s / size_px) + 1 for s in span)
    order, start = _sort(yx_px, size_px, low[0], low[1], rows, cols)
    return Bins(order, start, size_px, (float(low[0]), float(low[1])), rows, cols)


def only_bins(yx_px: FloatArray, bins: Bins, some: IntArray) -> Bins:
    """Return the same bins holding only the columns numbered in `some`."""
    order, start = _sort(yx_px[some], bins.size_px, *bins.low_yx_px, bins.rows, bins.cols)
    return bins._replace(order=some[order], start=start)


@numba.njit(nogil=True, cache=True)
def _nearest(yx, order, start, size, low_y, low_x, rows, cols, reach, stride):  # type: ignore[no-untyped-def]
    sources = (len(yx) + stride - 1) // stride
    out = np.full(sources, np.inf)
    for source in range(sources):
        i = source * stride
        r0 = min(rows - 1, int((yx[i, 0] - low_y) / size))
        c0 = min(cols - 1, int((yx[i, 1] - low_x) / size))
        best = np.inf
        ring = 0
        while ring <= reach and (ring < 2 or best > ((ring - 1) * size) ** 2):
            for r in range(max(0, r0 - ring), min(rows, r0 + ring + 1)):
                edge = r == r0 - ring or r == r0 + ring
                step = 1 if edge or ring == 0 else 2 * ring
                c = c0 - ring
                while c <= c0 + ring:
                    if 0 <= c < cols:
                        for k in range(start[r * cols + c], start[r * cols + c + 1]):
                            j = order[k]
                            if j != i:
                                d = (yx[j, 0] - yx[i, 0]) ** 2 + (yx[j, 1] - yx[i, 1]) ** 2
                                if d < best:
                                    best = d
                    c += step
            ring += 1
        out[source] = np.sqrt(best)
    return out


def nearest_distance(yx_px: FloatArray, bins: Bins, stride: int = 1) -> FloatArray:
    """Distance in pixels of every `stride`-th column to its nearest other, shape (ceil(N / stride),); inf when alone."""
    reach = max(bins.rows, bins.cols)
    out: FloatArray = _nearest(
        yx_px, bins.order, bins.start, bins.size_px, *bins.low_yx_px, bins.rows, bins.cols, reach, stride
    )
    return out
