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
def _medians(values, block, blocks, least):  # type: ignore[no-untyped-def]
    n, k = values.shape
    start = np.zeros(blocks + 1, np.int64)
    for i in range(n):
        start[block[i] + 1] += 1
    for b in range(blocks):
        start[b + 1] += start[b]
    fill, order = start[:-1].copy(), np.empty(n, np.int64)
    for i in range(n):
        order[fill[block[i]]] = i
        fill[block[i]] += 1
    out = np.full((blocks, k), np.nan)
    for b in range(blocks):
        if start[b + 1] - start[b] >= least:
            for c in range(k):
                out[b, c] = np.median(values[order[start[b] : start[b + 1]], c])
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
        table: FloatArray = _medians(np.ascontiguousarray(values), self._block(yx_px), self._rows * self._cols, LEAST_IN_BLOCK)
        self._table = np.where(np.isnan(table), np.median(values, axis=0), table)

    def _block(self, yx_px: FloatArray) -> IntArray:
        at = (yx_px / self._side).astype(np.int64)
        row, col = np.clip(at[:, 0], 0, self._rows - 1), np.clip(at[:, 1], 0, self._cols - 1)
        return np.asarray(row * self._cols + col)

    def at(self, yx_px: FloatArray) -> FloatArray:
        """Medians at places (M, 2), shape (M, K)."""
        return np.asarray(self._table[self._block(yx_px)])


def spread(values: FloatArray) -> float:
    """Standard deviation of most values, from the median distance to zero; NaN under eight values."""
    return float(1.4826 * np.median(np.abs(values))) if len(values) >= LEAST_FOR_SPREAD else float("nan")


def spread_by_brightness(amplitude: FloatArray, rest: FloatArray, asked: FloatArray) -> FloatArray:
    """Standard deviation of `rest` (N,) for columns about as bright as each of `asked` (M,): bright columns scatter more."""
    if len(amplitude) < LEAST_FOR_GROUPS:
        return np.full(len(asked), spread(rest))
    edges = np.quantile(amplitude, np.arange(1, GROUPS) / GROUPS)
    group = np.searchsorted(edges, amplitude)
    each = np.array([spread(rest[group == g]) for g in range(GROUPS)])
    known = np.flatnonzero(~np.isnan(each))
    if not len(known):
        return np.full(len(asked), spread(rest))
    each = each[known[np.abs(np.arange(GROUPS)[:, None] - known).argmin(axis=1)]]
    return np.asarray(each[np.searchsorted(edges, asked)])
