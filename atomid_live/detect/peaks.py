"""Peaks of a map: overlapping local maximum with an exact tie rule, then greedy suppression within a radius."""

from __future__ import annotations

from math import ceil

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atomid_live.types import FloatArray, IntArray

Image = NDArray[np.float32]


@njit(nogil=True, cache=True)
def _inner_maximum(image: Image, r: int, c: int) -> bool:
    """Whether an inner pixel is a maximum; neighbours that come later may be equal, earlier ones may not."""
    v = image[r, c]
    if image[r, c - 1] >= v or image[r, c + 1] > v or image[r - 1, c] >= v or image[r + 1, c] > v:
        return False
    return not (image[r - 1, c - 1] >= v or image[r - 1, c + 1] >= v or image[r + 1, c - 1] > v or image[r + 1, c + 1] > v)


@njit(nogil=True, cache=True)
def _border_maximum(image: Image, r: int, c: int) -> bool:
    rows, cols = image.shape
    v = image[r, c]
    for y in range(max(r - 1, 0), min(r + 2, rows)):
        for x in range(max(c - 1, 0), min(c + 2, cols)):
            later = y > r or (y == r and x > c)
            if image[y, x] > v or (image[y, x] == v and not later and not (y == r and x == c)):
                return False
    return True


@njit(nogil=True, cache=True)
def _local_maxima(image: Image, threshold: float, where: IntArray) -> int:
    rows, cols = image.shape
    limit = np.float32(threshold)
    count = 0
    for r in range(rows):
        if r == 0 or r == rows - 1:
            for c in range(cols):
                if image[r, c] > limit and _border_maximum(image, r, c):
                    where[count] = r * cols + c
                    count += 1
            continue
        c = 0
        while c < cols:
            v = image[r, c]
            if v > limit:
                if c == 0 or c == cols - 1:
                    top = _border_maximum(image, r, c)
                else:
                    top = _inner_maximum(image, r, c)
                if top:
                    where[count] = r * cols + c
                    count += 1
                    # the next pixel has this one before it, so it is none
                    c += 1
            c += 1
    return count


@njit(nogil=True, cache=True)
def _suppress(where: IntArray, cols: int, rows: int, radius: float, keep: NDArray[np.bool_]) -> None:
    """`where` in order of preference; a kept peak forbids later ones closer than `radius`."""
    cell = max(radius / 1.4142135, 1.0)
    grid_rows, grid_cols = int(rows / cell) + 1, int(cols / cell) + 1
    grid = np.full((grid_rows, grid_cols), -1, np.int64)
    limit = radius * radius
    for n in range(len(where)):
        r, c = where[n] // cols, where[n] % cols
        i, j = int(r / cell), int(c / cell)
        free = True
        for y in range(max(i - 2, 0), min(i + 3, grid_rows)):
            for x in range(max(j - 2, 0), min(j + 3, grid_cols)):
                other = grid[y, x]
                if other >= 0:
                    dr, dc = r - other // cols, c - other % cols
                    if dr * dr + dc * dc < limit:
                        free = False
        if free:
            grid[i, j] = where[n]
        keep[n] = free


def find_peaks(image: Image, threshold: float, radius_px: float) -> tuple[IntArray, FloatArray]:
    """Local maxima above `threshold`, no two closer than `radius_px`, strongest first.

    A pixel is a maximum when it is greater than each of its eight neighbours, or equal and earlier in raster order.

    Parameters
    ----------
    image : ndarray, shape (rows, cols), float32
        NaN pixels are never peaks.
    threshold : float
        A peak is strictly above it.
    radius_px : float
        Distance that two peaks at least keep.

    Returns
    -------
    ndarray, shape (N, 2), int64
        (row, col).
    ndarray, shape (N,), float64
        Value of the map there, descending; equal values in raster order.
    """
    rows, cols = image.shape
    where = np.empty((ceil(rows / 2) + 1) * (ceil(cols / 2) + 1), np.int64)
    where = where[: _local_maxima(image, float(threshold), where)]
    values = image.reshape(-1)[where].astype(np.float64)
    order = np.argsort(-values, kind="stable")
    where, values = where[order], values[order]
    if radius_px > 1.0 and len(where):
        keep = np.empty(len(where), np.bool_)
        _suppress(where, cols, rows, float(radius_px), keep)
        where, values = where[keep], values[keep]
    return np.stack([where // cols, where % cols], 1), values


def parabola(image: Image, yx: IntArray) -> FloatArray:
    """Sub-pixel position of peaks by a parabola through three pixels along each axis; at the border the pixel itself.

    Parameters
    ----------
    image : ndarray, shape (rows, cols), float32
    yx : ndarray, shape (N, 2), int64
        Local maxima.

    Returns
    -------
    ndarray, shape (N, 2), float64
    """
    out = yx.astype(np.float64)
    _tops(image, yx, out)
    return out


@njit(nogil=True, cache=True)
def _top(before: float, here: float, after: float) -> float:
    curve = before + after - 2.0 * here
    if not curve < 0.0:
        return 0.0
    return min(max(0.5 * (before - after) / curve, -0.5), 0.5)


@njit(nogil=True, cache=True)
def _tops(image: Image, yx: IntArray, out: FloatArray) -> None:
    rows, cols = image.shape
    for n in range(len(yx)):
        r, c = yx[n, 0], yx[n, 1]
        if 0 < r < rows - 1:
            out[n, 0] += _top(float(image[r - 1, c]), float(image[r, c]), float(image[r + 1, c]))
        if 0 < c < cols - 1:
            out[n, 1] += _top(float(image[r, c - 1]), float(image[r, c]), float(image[r, c + 1]))


def parabola_height(image: Image, yx: IntArray) -> FloatArray:
    """Height of peaks by parabolas through three pixels along each axis, shape (N,); at the border the pixel's own value.

    Parameters
    ----------
    image : ndarray, shape (rows, cols), float32
    yx : ndarray, shape (N, 2), int64
        Local maxima.
    """
    out = np.empty(len(yx))
    _heights(image, yx, out)
    return out


@njit(nogil=True, cache=True)
def _rise(before: float, here: float, after: float) -> float:
    curve = 2.0 * here - before - after
    slope = 0.5 * (after - before)
    return min(0.5 * slope * slope / curve, 0.125 * curve) if curve > 0.0 else 0.0


@njit(nogil=True, cache=True)
def _heights(image: Image, yx: IntArray, out: FloatArray) -> None:
    rows, cols = image.shape
    for n in range(len(yx)):
        r, c = yx[n, 0], yx[n, 1]
        out[n] = image[r, c]
        if 0 < r < rows - 1:
            out[n] += _rise(float(image[r - 1, c]), float(image[r, c]), float(image[r + 1, c]))
        if 0 < c < cols - 1:
            out[n] += _rise(float(image[r, c - 1]), float(image[r, c]), float(image[r, c + 1]))
