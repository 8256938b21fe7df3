"""The rules of the kernels, one plain NumPy function each, in float64: what all other versions are held to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atomid_live.kernels.reference_fit import refine
from atomid_live.types import FloatArray, IntArray

__all__ = ["area_resample", "axis_weights", "local_contrast", "local_maxima", "refine", "suppress", "to_image"]

CELL, BLUR_CELLS, REACH, LIMIT = 8, 2.0, 8, 6.0


def to_image(pixels: NDArray[np.generic], offset: float = 0.0, top: float | None = None) -> NDArray[np.float32]:
    """Pixels (rows, cols) of any real type minus `offset`, float32; with `top`, turned over so that dark columns are bright."""
    image = (pixels.astype(np.float64) - offset).astype(np.float32)
    return image if top is None else np.float32(top) - image


def axis_weights(length: int, wanted: int) -> FloatArray:
    """Matrix (wanted, length) of area means: the part of each sample inside each of `wanted` equal intervals."""
    edges = np.arange(wanted + 1) * (length / wanted)
    sample = np.arange(length)
    inside = np.minimum(edges[1:, None], sample + 1.0) - np.maximum(edges[:-1, None], sample)
    return np.asarray(np.clip(inside, 0.0, None) * (wanted / length))


def area_resample(image: NDArray[np.float32], shape: tuple[int, int]) -> FloatArray:
    """Area means of an image (rows, cols) on a coarser grid of `shape`."""
    return np.asarray(
        axis_weights(image.shape[0], shape[0]) @ image.astype(np.float64) @ axis_weights(image.shape[1], shape[1]).T
    )


def _blur(cells: FloatArray, axis: int) -> FloatArray:
    weights = np.exp(-0.5 * (np.arange(-REACH, REACH + 1) / BLUR_CELLS) ** 2)
    length = cells.shape[axis]
    period = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    places = period[(np.arange(length)[:, None] + np.arange(-REACH, REACH + 1)) % (2 * length)]
    moved = np.moveaxis(cells, axis, 0)
    return np.moveaxis(np.tensordot(weights / weights.sum(), moved[places], axes=(0, 1)), 0, axis)


def _interpolated(cells: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Straight lines between the centres of cells, constant outside."""
    out = cells
    for axis in (0, 1):
        place = np.clip((np.arange(shape[axis]) + 0.5) / CELL - 0.5, 0.0, cells.shape[axis] - 1.0)
        low = np.minimum(place.astype(np.int64), max(cells.shape[axis] - 2, 0))
        high = np.minimum(low + 1, cells.shape[axis] - 1)
        part = (place - low).reshape((-1, 1) if axis == 0 else (1, -1))
        out = np.take(out, low, axis) * (1.0 - part) + np.take(out, high, axis) * part
    return out


def local_contrast(image: NDArray[np.float32]) -> FloatArray:
    """Image (rows, cols) minus local mean over local standard deviation, from means over 8x8 cells; limited to +-6."""
    rows, cols = image.shape
    pad = np.pad(image.astype(np.float64), ((0, -rows % CELL), (0, -cols % CELL)), mode="edge")
    pad -= pad.mean()
    cells = pad.reshape(pad.shape[0] // CELL, CELL, pad.shape[1] // CELL, CELL)
    mean, power = (_blur(_blur(part.mean((1, 3)), 0), 1) for part in (cells, cells**2))
    variance = power - mean**2
    spread = np.sqrt(np.where(variance > 1e-12 * power, variance, 0.0))
    gain = np.where(spread > 1e-6 * max(float(spread.max()), 1e-12), 1.0 / np.maximum(spread, 1e-300), 0.0)
    flat = pad[:rows, :cols] - _interpolated(mean, (rows, cols))
    return np.asarray(np.clip(flat * _interpolated(gain, (rows, cols)), -LIMIT, LIMIT))


def local_maxima(image: NDArray[np.float32], floor_value: float) -> IntArray:
    """Pixels (N, 2), raster order, above the floor and greater than each neighbour, or equal and earlier in raster order.

    NaN is no peak, and does not hinder its neighbours.
    """
    rows, cols = image.shape
    found = []
    for r in range(rows):
        for c in range(cols):
            v = image[r, c]
            around = [
                (y, x)
                for y in (r - 1, r, r + 1)
                for x in (c - 1, c, c + 1)
                if 0 <= y < rows and 0 <= x < cols and (y, x) != (r, c)
            ]
            if v > floor_value and not any(image[p] > v or (image[p] == v and p < (r, c)) for p in around):
                found.append((r, c))
    return np.array(found, np.int64).reshape(-1, 2)


def suppress(yx: IntArray, height: FloatArray, radius_px: float) -> NDArray[np.bool_]:
    """Which peaks (N, 2) stay when the highest first forbids all closer than the radius; equal heights in raster order."""
    keep = np.ones(len(yx), np.bool_)
    if radius_px <= 1.0:
        return keep
    order = sorted(range(len(yx)), key=lambda k: (-height[k], *yx[k]))
    for place, best in enumerate(order):
        if keep[best]:
            rest = np.array(order[place + 1 :], np.int64)
            keep[rest[((yx[rest] - yx[best]) ** 2).sum(1) < radius_px**2]] = False
    return keep
