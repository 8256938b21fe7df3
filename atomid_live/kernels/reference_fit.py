"""The rules of the fit in plain NumPy and float64, column by column: what all other versions are held to."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, sqrt

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
from atomid_live.kernels.layout import FEWEST, STRONGEST, Column, Pool
from atomid_live.types import FloatArray

LEAST_PIXELS = 8


def first_half(sigma_px: float) -> int:
    """Half side of the first pass's square window."""
    return max(2, int(FIRST_HALF_SIGMA * sigma_px))


def round_window(sigma_px: float) -> tuple[float, int]:
    """Radius of the second pass's round window in pixels, and half the side of the square that holds it."""
    radius = max(WINDOW_SIGMA * sigma_px, LEAST_WINDOW_PX)
    return radius, int(radius + 0.5)


@dataclass(frozen=True, slots=True)
class _Window:
    """The part of a square around a place that lies on the frame: which pixels, Gaussian, distances in widths along y, x."""

    where: tuple[slice, slice]
    g: FloatArray
    u: FloatArray
    t: FloatArray
    whole: bool

    @classmethod
    def around(cls, place: FloatArray, half: int, sigma: float, shape: tuple[int, int]) -> _Window:
        corner = [floor(place[a] + 0.5) - half for a in (0, 1)]
        first = [max(0, c) for c in corner]
        last = [max(first[a], min(shape[a], corner[a] + 2 * half + 1)) for a in (0, 1)]
        u, t = ((np.arange(first[a], last[a]) - place[a]) / sigma for a in (0, 1))
        inside = (last[0] - first[0], last[1] - first[1])
        grid_u, grid_t = np.broadcast_to(u[:, None], inside), np.broadcast_to(t, inside)
        g = np.exp(-0.5 * (grid_u**2 + grid_t**2))
        return cls(
            (slice(first[0], last[0]), slice(first[1], last[1])), g, grid_u, grid_t, inside == (2 * half + 1, 2 * half + 1)
        )


def _solved(window: _Window, pixels: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Height, background and moves of one weighted linear step, and the normal matrix; None where they are not determined."""
    basis = np.stack([window.g, np.ones_like(window.g), window.g * window.u, window.g * window.t], -1).reshape(-1, 4)
    if np.count_nonzero(weight) <= LEAST_PIXELS:
        return None
    normal = basis.T @ (weight.ravel()[:, None] * basis)
    if np.linalg.eigvalsh(normal)[0] < 1e-9:
        return None
    return np.asarray(np.linalg.solve(normal, basis.T @ (weight * pixels).ravel()), np.float64), normal


def _row(
    value: FloatArray | None, place: FloatArray, peak: FloatArray, sigma: float, shape: tuple[int, int]
) -> tuple[FloatArray, bool]:
    """Row of `Column` after a step from `place`, without errors: it must end near `peak` and on the frame."""
    row = np.zeros(len(Column))
    row[:2] = peak
    if value is None:
        return row, False
    row[Column.AMPLITUDE], row[Column.BACKGROUND] = max(value[0], 0.0), value[1]
    if not value[0] > 0.0:
        return row, False
    end = place + np.clip(sigma * value[2:] / value[0], -0.5 * sigma, 0.5 * sigma)
    if not all(-0.5 <= end[a] <= shape[a] - 0.5 for a in (0, 1)):
        row[Column.OK] = -1.0
    elif np.sum((end - peak) ** 2) <= (FARTHEST_SIGMA * sigma) ** 2:
        row[:2], row[Column.OK] = end, 1.0
    return row, row[Column.OK] > 0


def fit_alone(image: FloatArray, start: FloatArray, sigma: float) -> FloatArray:
    """First pass: one step in a square window, neighbours and all; rows of `Column` without errors."""
    table = np.zeros((len(start), len(Column)))
    for n, place in enumerate(start):
        window = _Window.around(place, first_half(sigma), sigma, (image.shape[0], image.shape[1]))
        found = _solved(window, image[window.where], np.ones_like(window.g))
        table[n], _ = _row(None if found is None else found[0], place, place, sigma, (image.shape[0], image.shape[1]))
        table[n, Column.EDGE] = not window.whole
    return table


def fit_among(
    image: FloatArray, model: FloatArray, begin: FloatArray, height: FloatArray, peak: FloatArray, width: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Second pass: neighbours taken away, pixels weighted by their noise, in a round window; rows of `Column`, sums of `Pool`.

    `model` holds a column of `height` at each place of `begin`; `width` is the width, and the growth of a pixel's variance
    with the light of the model in units of its dark part.
    """
    sigma, gain = width
    radius, half = round_window(sigma)
    shape = (image.shape[0], image.shape[1])
    table, pool, stride = np.zeros((len(begin), len(Column))), np.zeros(len(Pool)), 1 + len(begin) // POOLED
    for n, place in enumerate(begin):
        window = _Window.around(place, half, sigma, shape)
        light = model[window.where]
        pixels = image[window.where] - light + height[n] * window.g
        weight = np.where(window.u**2 + window.t**2 <= (radius / sigma) ** 2, 1.0 / (1.0 + gain * np.maximum(light, 0.0)), 0.0)
        found = _solved(window, pixels, weight)
        table[n], ok = _row(None if found is None else found[0], place, peak[n], sigma, shape)
        table[n, Column.EDGE] = not window.whole
        if ok and found is not None:
            left = np.where(weight > 0.0, pixels - found[0][1] - found[0][0] * window.g, 0.0)
            _errors(table[n], window, left, weight, (sigma, float(found[0][0]), found[1]))
            if n % stride == 0 and window.whole:
                pool += _pooled(window, left, weight)
    return table, pool


def _errors(
    row: FloatArray, window: _Window, left: FloatArray, weight: FloatArray, fit: tuple[float, float, FloatArray]
) -> None:
    """Noise and variances: the sandwich, softened by its mean, since counting noise is largest on the column."""
    sigma, height, normal = fit
    pixels = int(np.count_nonzero(weight))
    free, mean = max(pixels - 4, 1), float(np.sum(weight * left**2)) / pixels
    row[Column.NOISE] = sqrt(float(np.sum(left**2)) / free)
    scale = sigma**2 / height**2 * pixels / free
    for column, k, slope in ((Column.VAR_Y, 2, window.u), (Column.VAR_X, 3, window.t)):
        own = float(np.sum((weight * left * window.g * slope) ** 2))
        row[column] = scale * (SANDWICH * own / normal[k, k] + (1 - SANDWICH) * mean) / normal[k, k]


def _pooled(window: _Window, left: FloatArray, weight: FloatArray) -> FloatArray:
    """What one column shows of errors that pixels have in common, in units of its mean square (`Pool`)."""
    square, pixels = float(np.sum(left**2)), int(np.count_nonzero(weight))
    if square <= 0.0:
        return np.zeros(len(Pool))
    along = [weight * left * window.g * slope for slope in (window.u, window.t)]
    own, rows = [float(np.sum(part**2)) for part in along], [float(np.sum(part.sum(1) ** 2)) for part in along]
    lag = float(np.sum(left[:-1] * left[1:]))
    return np.array([own[0], rows[0], own[1], rows[1], lag, square, square / pixels]) * pixels / square


def render(shape: tuple[int, int], held: FloatArray, sigma: float) -> FloatArray:
    """Image of all columns `held` (N, 3) of y, x and height."""
    model, half = np.zeros(shape), ceil(MODEL_SIGMA * sigma)
    for y, x, height in held[held[:, 2] > 0.0]:
        r0, c0 = int(y + 0.5), int(x + 0.5)
        rows, cols = (np.arange(max(0, n - half), min(size, n + half + 1)) for n, size in ((r0, shape[0]), (c0, shape[1])))
        gy, gx = np.exp(-0.5 * ((rows - y) / sigma) ** 2), np.exp(-0.5 * ((cols - x) / sigma) ** 2)
        model[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] += height * np.outer(gy, gx)
    return model


def growth(count: float, level: float, level2: float, change: float, product: float) -> float:
    """Slope over offset of a line through squared changes against light, from their sums."""
    spread = count * level2 - level * level
    if not (count > 1.0 and spread > 0.0 and change > 0.0):
        return 0.0
    slope = (count * product - level * change) / spread
    return max(slope / max((change - slope * level) / count, LEAST_DARK * change / count), 0.0)


def wider(image: FloatArray, model: FloatArray, held: FloatArray, sigma: float) -> tuple[float, float]:
    """Width after one Newton step over the strongest columns, heights and backgrounds free; and the noise's growth."""
    (radius, half), upper, lower, sums = round_window(sigma), 0.0, 0.0, np.zeros(5)
    for y, x, height in held[np.argsort(-held[:, 2], kind="stable")[:STRONGEST]]:
        r0, c0 = int(y + 0.5), int(x + 0.5)
        if min(r0, c0) < half or r0 + half >= image.shape[0] or c0 + half >= image.shape[1] or not height > 0.0:
            continue
        window = np.s_[r0 - half : r0 + half + 1, c0 - half : c0 + half + 1]
        square = (
            (np.arange(r0 - half, r0 + half + 1) - y)[:, None] ** 2 + (np.arange(c0 - half, c0 + half + 1) - x) ** 2
        ) / sigma**2
        use = square * sigma**2 <= radius**2
        left, light = (image - model)[window], model[window]
        change, mean = (np.diff(left, axis=1) ** 2)[use[:, :-1]], (0.5 * (light[:, :-1] + light[:, 1:]))[use[:, :-1]]
        sums += [len(change), mean.sum(), (mean**2).sum(), change.sum(), (change * mean).sum()]
        e, square = left[use], square[use]
        g = np.exp(-0.5 * square)
        basis, q = np.stack([g, np.ones_like(g)], 1), g * square
        free = q - basis @ np.linalg.lstsq(basis, q, rcond=None)[0]
        upper, lower = upper + height * float(free @ e), lower + height**2 * float(free @ q)
    step = sigma * upper / lower if lower > 0.0 else 0.0
    end = min(max(sigma + step, 0.9 * sigma), 1.1 * sigma)
    return end if abs(end / sigma - 1.0) >= 0.01 else sigma, growth(*sums)


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
    first = fit_alone(pixels, start, sigma_px)
    fitted = first[:, Column.OK] > 0
    held = np.where(fitted[:, None], first[:, :3], 0.0)
    model, sigma, gain = render((image.shape[0], image.shape[1]), held, sigma_px), sigma_px, 0.0
    if fit_width and np.count_nonzero(held[:, 2] > 0) >= FEWEST:
        sigma, gain = wider(pixels, model, held, sigma_px)
        held[:, 2] *= (sigma_px / sigma) ** 2
        model = render((image.shape[0], image.shape[1]), held, sigma)
    begin = np.where(fitted[:, None], first[:, :2], start)
    table, pool = fit_among(pixels, model, begin, held[:, 2], start, (sigma, gain))
    return table, sigma, pool
