"""The rules of the kernels, one plain NumPy function each, in float64: what all other versions are held to."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from atomid_live.detect.refine import (
    FARTHEST_SIGMA,
    FIRST_HALF_SIGMA,
    LEAST_DARK,
    LEAST_WINDOW_PX,
    MODEL_SIGMA,
    POOLED,
    SANDWICH,
    WINDOW_SIGMA,
)
from atomid_live.kernels.layout import Column, Pool
from atomid_live.types import FloatArray, IntArray

CELL, BLUR_CELLS, REACH, LIMIT = 8, 2.0, 8, 6.0
MODEL, FARTHEST = MODEL_SIGMA, FARTHEST_SIGMA
STRONGEST, FEWEST = 400, 20


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


def first_half(sigma_px: float) -> int:
    """Half side of the first pass's square window."""
    return max(2, int(FIRST_HALF_SIGMA * sigma_px))


def window_radius(sigma_px: float) -> float:
    """Radius of the second pass's round window in pixels."""
    return max(WINDOW_SIGMA * sigma_px, LEAST_WINDOW_PX)


def window_half(sigma_px: float) -> int:
    """Half side of the square that holds the round window."""
    return int(window_radius(sigma_px) + 0.5)


def _axis(centre: float, first: int, count: int, sigma: float) -> tuple[FloatArray, FloatArray]:
    u = (np.arange(first, first + count) - centre) / sigma
    return np.asarray(np.exp(-0.5 * u * u)), np.asarray(u)


@dataclass(frozen=True, slots=True)
class _Around:
    """One column's window: pixels, their weights, first row and column, the peak it belongs to, and the frame's shape."""

    patch: FloatArray
    weight: FloatArray
    corner: tuple[int, int]
    peak: FloatArray
    shape: tuple[int, int]

    def allows(self, place: FloatArray, sigma: float) -> float:
        """1 where a fit may end, 0 too far from the peak, -1 beyond the border."""
        if not all(-0.5 <= place[a] <= self.shape[a] - 0.5 for a in (0, 1)):
            return -1.0
        return float(np.sum((place - self.peak) ** 2) <= (FARTHEST * sigma) ** 2)


def _fit_one(around: _Around, start: FloatArray, sigma: float) -> tuple[FloatArray, FloatArray]:
    """One column: a Gauss-Newton step on height, background and place; a row of `Column` without EDGE, and one of `Pool`."""
    patch, weight, row, pool = around.patch, around.weight.ravel(), np.zeros(len(Column)), np.zeros(len(Pool))
    row[:2] = around.peak
    pixels = int(np.count_nonzero(weight))
    if pixels <= 8:
        return row, pool
    (gy, dy), (gx, dx) = (_axis(start[a], around.corner[a], patch.shape[a], sigma) for a in (0, 1))
    g = np.outer(gy, gx)
    basis = np.stack([g, np.ones_like(g), g * dy[:, None], g * dx], -1).reshape(-1, 4)
    normal = (basis * weight[:, None]).T @ basis
    if np.linalg.eigvalsh(normal)[0] < 1e-9:
        return row, pool
    value = np.linalg.solve(normal, basis.T @ (weight * patch.ravel()))
    row[Column.AMPLITUDE], row[Column.BACKGROUND] = max(value[0], 0.0), value[1]
    if not value[0] > 0.0:
        return row, pool
    place = start + np.clip(sigma * value[2:] / value[0], -0.5 * sigma, 0.5 * sigma)
    if around.allows(place, sigma) < 1.0:
        row[Column.OK] = around.allows(place, sigma)
        return row, pool
    row[:2], row[Column.OK] = place, 1.0
    residual = np.where(weight > 0, patch.ravel() - basis[:, :2] @ value[:2], 0.0)
    square, chi, free = float(np.sum(residual**2)), float(np.sum(weight * residual**2)), max(pixels - 4, 1)
    row[Column.NOISE] = np.sqrt(square / free)
    scale = sigma**2 / value[0] ** 2 * pixels / free
    for column, k in ((Column.VAR_Y, 2), (Column.VAR_X, 3)):
        n, own = np.sum(weight * basis[:, k] ** 2), np.sum((weight * residual * basis[:, k]) ** 2)
        row[column] = scale * (SANDWICH * own / n + (1 - SANDWICH) * chi / pixels) / n
    slope = (weight[:, None] * basis[:, 2:]).reshape(*patch.shape, 2)
    return row, _pooled(residual.reshape(patch.shape), slope, pixels)


def _pooled(residual: FloatArray, slope: FloatArray, pixels: int) -> FloatArray:
    """What one column shows of errors that pixels have in common, in units of its mean square (`Pool`)."""
    square = float(np.sum(residual**2))
    if square <= 0.0:
        return np.zeros(len(Pool))
    own = np.sum((residual[:, :, None] * slope) ** 2, (0, 1))
    rows = np.sum(np.sum(residual[:, :, None] * slope, 1) ** 2, 0)
    lag = np.sum(residual[:-1] * residual[1:])
    return np.array([own[0], rows[0], own[1], rows[1], lag, square, square / pixels]) * pixels / square


def _weights(shown: FloatArray, away: FloatArray, sigma: float, gain: float) -> FloatArray:
    """One over the variance of pixels in the light `shown` of the model; nought outside the round window."""
    inside = away <= (window_radius(sigma) / sigma) ** 2
    return np.where(inside, 1.0 / (1.0 + gain * np.maximum(shown, 0.0)), 0.0)


def _pass(
    image: FloatArray,
    model: FloatArray | None,
    peak: FloatArray,
    start: FloatArray,
    held: FloatArray,
    width: tuple[float, float],
) -> tuple[FloatArray, FloatArray]:
    """Fit all columns; `held` (N, 3) is what the model holds of each: y, x, height. Without a model, the first pass."""
    sigma, gain = width
    half = first_half(sigma) if model is None else window_half(sigma)
    table, pool = np.zeros((len(start), len(Column))), np.zeros(len(Pool))
    stride = 1 + len(start) // POOLED
    for n, place in enumerate(start):
        corner = [floor(place[a] + 0.5) - half for a in (0, 1)]
        first = [max(0, corner[a]) for a in (0, 1)]
        last = [min(image.shape[a], corner[a] + 2 * half + 1) for a in (0, 1)]
        if last[0] <= first[0] or last[1] <= first[1]:
            table[n, :2], table[n, Column.EDGE] = peak[n], 1.0
            continue
        window = np.s_[first[0] : last[0], first[1] : last[1]]
        patch = image[window]
        weight = np.ones_like(patch)
        if model is not None:
            own = [_axis(held[n, a], first[a], last[a] - first[a], sigma)[0] for a in (0, 1)]
            patch = patch - model[window] + max(held[n, 2], 0.0) * np.outer(*own)
            y, x = (_axis(place[a], first[a], last[a] - first[a], sigma)[1] for a in (0, 1))
            weight = _weights(model[window], y[:, None] ** 2 + x**2, sigma, gain)
        around = _Around(patch, weight, (first[0], first[1]), peak[n], (image.shape[0], image.shape[1]))
        table[n], seen = _fit_one(around, place, sigma)
        table[n, Column.EDGE] = patch.shape != (2 * half + 1, 2 * half + 1)
        if n % stride == 0 and not table[n, Column.EDGE]:
            pool += seen
    return table, pool


def _render(shape: tuple[int, int], held: FloatArray, sigma: float) -> FloatArray:
    model, half = np.zeros(shape), ceil(MODEL * sigma)
    for y, x, height in held[held[:, 2] > 0.0]:
        r0, c0 = int(y + 0.5), int(x + 0.5)
        rows, cols = (np.arange(max(0, n - half), min(size, n + half + 1)) for n, size in ((r0, shape[0]), (c0, shape[1])))
        gy, gx = np.exp(-0.5 * ((rows - y) / sigma) ** 2), np.exp(-0.5 * ((cols - x) / sigma) ** 2)
        model[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] += height * np.outer(gy, gx)
    return model


def _wider(image: FloatArray, model: FloatArray, held: FloatArray, sigma: float) -> tuple[float, float]:
    """Width after one Newton step over the strongest columns, heights and backgrounds free; growth of the noise with light."""
    half, upper, lower = window_half(sigma), 0.0, 0.0
    levels, changes = [np.empty(0)], [np.empty(0)]
    for y, x, height in held[np.argsort(-held[:, 2], kind="stable")[:STRONGEST]]:
        r0, c0 = int(y + 0.5), int(x + 0.5)
        if min(r0, c0) < half or r0 + half >= image.shape[0] or c0 + half >= image.shape[1] or not height > 0.0:
            continue
        window = np.s_[r0 - half : r0 + half + 1, c0 - half : c0 + half + 1]
        square = (
            (np.arange(r0 - half, r0 + half + 1) - y)[:, None] ** 2 + (np.arange(c0 - half, c0 + half + 1) - x) ** 2
        ) / sigma**2
        use = square * sigma**2 <= window_radius(sigma) ** 2
        left, light = (image - model)[window], model[window]
        levels.append(0.5 * (light[:, 1:] + light[:, :-1])[use[:, :-1]])
        changes.append((np.diff(left, axis=1) ** 2)[use[:, :-1]])
        e, square = left[use], square[use]
        g = np.exp(-0.5 * square)
        basis, q = np.stack([g, np.ones_like(g)], 1), g * square
        free = q - basis @ np.linalg.lstsq(basis, q, rcond=None)[0]
        upper, lower = upper + height * float(free @ e), lower + height**2 * float(free @ q)
    step = sigma * upper / lower if lower > 0.0 else 0.0
    wider = min(max(sigma + step, 0.9 * sigma), 1.1 * sigma)
    gain = _growth(np.concatenate(levels), np.concatenate(changes))
    return (wider if abs(wider / sigma - 1.0) >= 0.01 else sigma), gain


def _growth(level: FloatArray, change: FloatArray) -> float:
    """Slope over offset of the line through `change` against `level`; the offset is at least a tenth of the mean change."""
    if len(level) < 2 or not np.var(level) > 0.0 or not change.mean() > 0.0:
        return 0.0
    slope = float(np.cov(level, change, ddof=0)[0, 1] / np.var(level))
    dark = max(float(change.mean() - slope * level.mean()), LEAST_DARK * float(change.mean()))
    return max(slope / dark, 0.0)


def refine(
    image: NDArray[np.float32], yx_px: FloatArray, sigma_px: float, *, fit_width: bool = True
) -> tuple[FloatArray, float, FloatArray]:
    """Sub-pixel fit of columns: twice, the second time with the common width improved and all neighbours taken away.

    Parameters
    ----------
    image : ndarray, shape (rows, cols), float32
    yx_px : ndarray, shape (N, 2), float64
    sigma_px : float
    fit_width : bool

    Returns
    -------
    ndarray, shape (N, 9), float64
        Columns of `kernels.layout.Column`; errors as if pixels were independent.
    float
        Width used in the second pass.
    ndarray, shape (7,), float64
        Sums of `kernels.layout.Pool` over every column, or every k-th of many.
    """
    pixels, start = image.astype(np.float64), np.asarray(yx_px, np.float64)
    first, _ = _pass(pixels, None, start, start, np.zeros((len(start), 3)), (sigma_px, 0.0))
    fitted = first[:, Column.OK] > 0
    held = np.where(fitted[:, None], first[:, :3], 0.0)
    model, sigma, gain = _render(image.shape, held, sigma_px), sigma_px, 0.0
    if fit_width and np.count_nonzero(held[:, 2] > 0) >= FEWEST:
        sigma, gain = _wider(pixels, model, held, sigma_px)
        held[:, 2] *= (sigma_px / sigma) ** 2
        model = _render(image.shape, held, sigma)
    table, pool = _pass(pixels, model, start, np.where(fitted[:, None], first[:, :2], start), held, (sigma, gain))
    return table, sigma, pool
