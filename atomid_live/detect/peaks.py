"""Peaks of a map: overlapping local maximum with an exact tie rule, then greedy suppression within a radius."""

from __future__ import annotations

from math import ceil

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atomid_live.types import FloatArray, IntArray

Image = NDArray[np.float32]


@njit(nogil=True, cache=True)
def _local_maxima(image: Image, threshold: float, where: IntArray) -> int:
    rows, cols = image.shape
    count = 0
    for r in range(rows):
        for c in range(cols):
            v = image[r, c]
            if not v > threshold:
                continue
            top = True
            for dr in range(-1, 2):
                for dc in range(-1, 2):
                    y, x = r + dr, c + dc
                    if y < 0 or x < 0 or y >= rows or x >= cols or (dr == 0 and dc == 0):
                        continue
                    later = dr > 0 or (dr == 0 and dc > 0)
                    if image[y, x] > v or (image[y, x] == v and not later):
                        top = False
            if top:
                where[count] = r * cols + c
                count += 1
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
    for axis in (0, 1):
        index = yx[:, axis]
        inner = (index > 0) & (index < image.shape[axis] - 1)
        y, x = yx[inner].T
        step = (1, 0) if axis == 0 else (0, 1)
        before = image[y - step[0], x - step[1]].astype(np.float64)
        after = image[y + step[0], x + step[1]].astype(np.float64)
        curve = before + after - 2.0 * image[y, x]
        shift = np.where(curve < 0, 0.5 * (before - after) / np.where(curve < 0, curve, 1.0), 0.0)
        out[inner, axis] += np.clip(shift, -0.5, 0.5)
    return out
