"""What whole neighbourhoods do together (gain, scan wobble, strain), so that single columns stand out from it."""

from __future__ import annotations

import numba
import numpy as np

from atomid_live.types import FloatArray, IntArray

BLOCK_SPACINGS = 6.0
LEAST_IN_BLOCK = 9
MOST_BLOCKS = 100_000
GROUPS = 4
LEAST_FOR_GROUPS = 200
LEAST_FOR_SPREAD = 8


@numba.njit(nogil=True, cache=True)
def median(values):  # type: ignore[no-untyped-def]
    """Median by selection; NaN where a value is NaN or there is none."""
    for value in values:
        if np.isnan(value):
            return np.nan
    return np.median(values) if len(values) else np.nan


@numba.njit(nogil=True, cache=True)
def medians_of(values):  # type: ignore[no-untyped-def]
    """Median of each column of (N, K)."""
    out = np.empty(values.shape[1])
    for c in range(len(out)):
        out[c] = median(values[:, c].copy())
    return out


@numba.njit(nogil=True, cache=True)
def _medians(values, block, blocks, least):  # type: ignore[no-untyped-def]
    n, k = values.shape
    start = np.zeros(blocks + 1, np.int64)
    for i in range(n):
        start[block[i] + 1] += 1
    for b in range(blocks):
        start[b + 1] += start[b]
    fill, ordered = start[:-1].copy(), np.empty((k, n))
    for i in range(n):
        for c in range(k):
            ordered[c, fill[block[i]]] = values[i, c]
        fill[block[i]] += 1
    out, whole, lacking = np.empty((blocks, k)), np.full(k, np.nan), True
    for b in range(blocks):
        for c in range(k):
            own = np.nan
            if start[b + 1] - start[b] >= least:
                own = median(ordered[c, start[b] : start[b + 1]])
            if np.isnan(own) and lacking:
                whole, lacking = medians_of(values), False
            out[b, c] = whole[c] if np.isnan(own) else own
    return out


@numba.njit(nogil=True, cache=True)
def _blocks(yx, side, rows, cols):  # type: ignore[no-untyped-def]
    out = np.empty(len(yx), np.int64)
    for i in range(len(yx)):
        row, col = int(yx[i, 0] / side), int(yx[i, 1] / side)
        out[i] = min(max(row, 0), rows - 1) * cols + min(max(col, 0), cols - 1)
    return out


class Neighbourhood:
    """Median of each quantity over square blocks of the frame; where a block holds too few, over the whole frame.

    Parameters
    ----------
    yx_px, values : ndarray, shapes (N, 2) and (N, K)
        Places and quantities; at least one row.
    spacing_px, shape : float, (int, int)
        Nearest distance of columns; rows and columns of the frame.
    """

    def __init__(self, yx_px: FloatArray, values: FloatArray, spacing_px: float, shape: tuple[int, int]) -> None:
        side = max(BLOCK_SPACINGS * spacing_px, float(np.sqrt(shape[0] * shape[1] / MOST_BLOCKS)))
        self._side = side
        self._rows, self._cols = (int(n / side) + 1 for n in shape)
        self._table: FloatArray = _medians(values, self._block(yx_px), self._rows * self._cols, LEAST_IN_BLOCK)

    def _block(self, yx_px: FloatArray) -> IntArray:
        out: IntArray = _blocks(yx_px, self._side, self._rows, self._cols)
        return out

    def at(self, yx_px: FloatArray) -> FloatArray:
        """Medians at places (M, 2), shape (M, K)."""
        return np.asarray(self._table[self._block(yx_px)])


@numba.njit(nogil=True, cache=True)
def spread_all(values):  # type: ignore[no-untyped-def]
    """Do the work of `spread`."""
    return 1.4826 * median(np.abs(values)) if len(values) >= LEAST_FOR_SPREAD else np.nan


def spread(values: FloatArray) -> float:
    """Standard deviation of most values, from the median distance to zero; NaN under eight values."""
    return float(spread_all(values))


@numba.njit(nogil=True, cache=True)
def _group(edges, value):  # type: ignore[no-untyped-def]
    g = 0
    while g < len(edges) and not edges[g] >= value:
        g += 1
    return g


@numba.njit(nogil=True, cache=True)
def _quartiles(values):  # type: ignore[no-untyped-def]
    ordered, out = np.sort(values), np.empty(GROUPS - 1)
    for g in range(len(out)):
        at = (len(ordered) - 1) * ((g + 1) / GROUPS)
        k = int(at)
        low, high, part = ordered[k], ordered[k + 1], at - k
        out[g] = high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part
    return out


@numba.njit(nogil=True, cache=True)
def spread_by_brightness_all(amplitude, rest, asked):  # type: ignore[no-untyped-def]
    """Do the work of `spread_by_brightness`."""
    if len(amplitude) < LEAST_FOR_GROUPS:
        return np.full(len(asked), spread_all(rest))
    edges, group = _quartiles(amplitude), np.empty(len(amplitude), np.int64)
    for i in range(len(amplitude)):
        group[i] = _group(edges, amplitude[i])
    each, filled = np.empty(GROUPS), np.full(GROUPS, np.nan)
    for g in range(GROUPS):
        each[g] = spread_all(rest[group == g])
    for g in range(GROUPS):
        nearest = GROUPS
        for other in range(GROUPS):
            if not np.isnan(each[other]) and abs(other - g) < nearest:
                nearest, filled[g] = abs(other - g), each[other]
    if np.isnan(each).all():
        filled[:] = spread_all(rest)
    out = np.empty(len(asked))
    for i in range(len(asked)):
        out[i] = filled[_group(edges, asked[i])]
    return out


def spread_by_brightness(amplitude: FloatArray, rest: FloatArray, asked: FloatArray) -> FloatArray:
    """Standard deviation of `rest` (N,) for columns about as bright as each of `asked` (M,): bright columns scatter more."""
    out: FloatArray = spread_by_brightness_all(amplitude, rest, asked)
    return out
