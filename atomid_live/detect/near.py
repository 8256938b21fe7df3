"""Who is near whom among columns, without a tree (numba, serial)."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from atomid_live.lattice.grid import Bins, nearest_distance, sort_into_bins
from atomid_live.types import FloatArray, IntArray


@numba.njit(nogil=True, cache=True)
def _company(yx, which, order, start, size, low_y, low_x, rows, cols, reach, enough, out):  # type: ignore[no-untyped-def]
    limit = reach * reach
    ring = int(reach / size) + 1
    for n in range(len(which)):
        i = which[n]
        r0 = min(rows - 1, int((yx[i, 0] - low_y) / size))
        c0 = min(cols - 1, int((yx[i, 1] - low_x) / size))
        count = 0
        for r in range(max(0, r0 - ring), min(rows, r0 + ring + 1)):
            for c in range(max(0, c0 - ring), min(cols, c0 + ring + 1)):
                for k in range(start[r * cols + c], start[r * cols + c + 1]):
                    j = order[k]
                    if j != i and (yx[j, 0] - yx[i, 0]) ** 2 + (yx[j, 1] - yx[i, 1]) ** 2 <= limit:
                        count += 1
            if count >= enough:
                break
        out[n] = count >= enough


def in_company(yx_px: FloatArray, which: IntArray, reach_px: float, enough: int) -> NDArray[np.bool_]:
    """Whether each of the columns `which` (indices into positions (N, 2)) has at least `enough` others within `reach_px`."""
    out = np.zeros(len(which), np.bool_)
    if len(which):
        bins = sort_into_bins(yx_px, reach_px)
        _company(
            yx_px, which, bins.order, bins.start, bins.size_px, *bins.low_yx_px, bins.rows, bins.cols, reach_px, enough, out
        )
    return out


def nearest_px(yx_px: FloatArray, typical_px: float) -> FloatArray:
    """Distance of each of the positions (N, 2) to its nearest other; infinity for a single one.

    `typical_px` is about what is expected; it decides the speed only.
    """
    if len(yx_px) < 2:
        return np.full(len(yx_px), np.inf)
    bins: Bins = sort_into_bins(yx_px, typical_px)
    return nearest_distance(yx_px, bins)


@numba.njit(nogil=True, cache=True)
def _neighbourhood(yx, amplitude, main, order, start, size, low_y, low_x, rows, cols, near, distance, brighter, apart, clear):  # type: ignore[no-untyped-def]
    count = near.shape[1]
    best = np.empty(count)
    for i in range(len(yx)):
        r0 = min(rows - 1, int((yx[i, 0] - low_y) / size))
        c0 = min(cols - 1, int((yx[i, 1] - low_x) / size))
        held = 0
        least = closest = np.inf
        for r in range(max(0, r0 - 2), min(rows, r0 + 3)):
            for c in range(max(0, c0 - 2), min(cols, c0 + 3)):
                for k in range(start[r * cols + c], start[r * cols + c + 1]):
                    j = order[k]
                    if j == i:
                        continue
                    d = (yx[j, 0] - yx[i, 0]) ** 2 + (yx[j, 1] - yx[i, 1]) ** 2
                    if d < closest and main[j]:
                        closest = d
                    if d < least and amplitude[j] > amplitude[i]:
                        least = d
                        brighter[i] = j
                    if held == count and d >= best[count - 1]:
                        continue
                    place = min(held, count - 1)
                    while place > 0 and best[place - 1] > d:
                        best[place] = best[place - 1]
                        near[i, place] = near[i, place - 1]
                        place -= 1
                    best[place] = d
                    near[i, place] = j
                    held = min(held + 1, count)
        for k in range(held):
            distance[i, k] = np.sqrt(best[k])
        apart[i], clear[i] = np.sqrt(least), np.sqrt(closest)


def neighbourhood(
    yx_px: FloatArray, amplitude: FloatArray, main: NDArray[np.bool_], count: int, typical_px: float
) -> tuple[IntArray, FloatArray, IntArray, FloatArray, FloatArray]:
    """The `count` nearest others of each of the positions (N, 2), N >= 1, the nearest that is brighter, and the nearest `main`.

    Only others within two to three times `typical_px` are looked at.

    Returns
    -------
    ndarray, shape (N, count), int64
        Numbers of the nearest others, -1 where there are fewer.
    ndarray, shape (N, count)
        Their distances; infinity where there are fewer.
    ndarray, shape (N,), int64
        Number of the nearest brighter one, -1 for none.
    ndarray, shape (N,)
        Its distance; infinity for none.
    ndarray, shape (N,)
        Distance of the nearest other that is `main`; infinity for none.
    """
    size = len(yx_px)
    near, distance = np.full((size, count), -1, np.int64), np.full((size, count), np.inf)
    brighter, apart, clear = np.full(size, -1, np.int64), np.full(size, np.inf), np.full(size, np.inf)
    bins = sort_into_bins(yx_px, typical_px)
    _neighbourhood(
        yx_px, amplitude, main, bins.order, bins.start, bins.size_px, *bins.low_yx_px, bins.rows, bins.cols,
        near, distance, brighter, apart, clear,
    )  # fmt: skip
    return near, distance, brighter, apart, clear
