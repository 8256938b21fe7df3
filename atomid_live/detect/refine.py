"""Sub-pixel positions on the raw pixels: fixed-width Gaussians on a constant, neighbours subtracted once.

Gauss-Newton on (height, background, y, x) within two column widths (SCIENCE: fixed width, neighbour subtraction removes
the site bias of crystals with unequal neighbours); the width is one number per frame, fitted on all columns together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, exp, sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atomid_live.types import FloatArray

Image = NDArray[np.float32]

WINDOW_SIGMA = 2.0
MODEL_SIGMA = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """Fitted columns, in the order of the start positions.

    Attributes
    ----------
    yx_px, sigma_yx_px : ndarray, shape (N, 2), float64
        Position and its standard error.
    amplitude, background, noise : ndarray, shape (N,), float64
        Height above the background, the background, and the standard deviation of a pixel around the fit, in pixel units.
    failed, at_edge : ndarray, shape (N,), bool
        The fit left its neighbourhood (the start position is returned); the window was cut by the border.
    column_sigma_px : float
        Width used in the last pass.
    """

    yx_px: FloatArray = field(repr=False)
    sigma_yx_px: FloatArray = field(repr=False)
    amplitude: FloatArray = field(repr=False)
    background: FloatArray = field(repr=False)
    noise: FloatArray = field(repr=False)
    failed: NDArray[np.bool_] = field(repr=False)
    at_edge: NDArray[np.bool_] = field(repr=False)
    column_sigma_px: float = float("nan")


@njit(nogil=True, cache=True)
def _solve4(m: FloatArray, v: FloatArray) -> bool:
    """Solve the symmetric 4x4 system in place by Cholesky; False when it is not positive definite."""
    for i in range(4):
        for j in range(i + 1):
            s = m[i, j]
            for k in range(j):
                s -= m[i, k] * m[j, k]
            if i == j:
                if s <= 1e-12:
                    return False
                m[i, i] = sqrt(s)
            else:
                m[i, j] = s / m[j, j]
    for i in range(4):
        s = v[i]
        for k in range(i):
            s -= m[i, k] * v[k]
        v[i] = s / m[i, i]
    for i in range(3, -1, -1):
        s = v[i]
        for k in range(i + 1, 4):
            s -= m[k, i] * v[k]
        v[i] = s / m[i, i]
    return True


@njit(nogil=True, cache=True, fastmath=True)
def _profiles(y: float, x: float, r0: int, c0: int, half: int, sigma: float, gy: Image, gx: Image, dy: Image, dx: Image) -> None:
    inverse = 1.0 / sigma
    for k in range(2 * half + 1):
        u = (r0 - half + k - y) * inverse
        v = (c0 - half + k - x) * inverse
        dy[k], dx[k] = u, v
        gy[k], gx[k] = exp(-0.5 * u * u), exp(-0.5 * v * v)


@njit(nogil=True, cache=True, fastmath=True)
def _fit(image: Image, model: Image, subtract: bool, start: FloatArray, held: FloatArray, sigma: float, steps: int, out: FloatArray) -> None:
    """Fit each column; rows of `out`: y, x, A, b, pixel noise, var_y, var_x, ok, edge. `held`: y, x, A rendered in `model`."""
    rows, cols = image.shape
    half = int(ceil(WINDOW_SIGMA * sigma))
    side = 2 * half + 1
    width = np.empty(side, np.int64)
    for k in range(side):
        width[k] = int(sqrt(max((WINDOW_SIGMA * sigma + 0.3) ** 2 - (k - half) ** 2, 0.0)))
    gy, gx, dy, dx = np.empty(side, np.float32), np.empty(side, np.float32), np.empty(side, np.float32), np.empty(side, np.float32)
    patch = np.empty((side, side), np.float32)
    m, v = np.empty((4, 4)), np.empty(4)
    for n in range(len(start)):
        y, x = start[n, 0], start[n, 1]
        r0, c0 = int(y + 0.5), int(x + 0.5)
        edge = False
        for k in range(side):
            r = r0 - half + k
            if r < 0 or r >= rows:
                edge = True
        if c0 - half < 0 or c0 + half >= cols:
            edge = True
        top, bottom = max(0, half - r0), min(side, rows - r0 + half)
        left, right = max(0, half - c0), min(side, cols - c0 + half)
        if subtract:
            _profiles(held[n, 0], held[n, 1], r0, c0, half, sigma, gy, gx, dy, dx)
            a = np.float32(held[n, 2])
            for k in range(top, bottom):
                for l in range(left, right):
                    patch[k, l] = image[r0 - half + k, c0 - half + l] - model[r0 - half + k, c0 - half + l] + a * gy[k] * gx[l]
        else:
            for k in range(top, bottom):
                for l in range(left, right):
                    patch[k, l] = image[r0 - half + k, c0 - half + l]
        amplitude, background, ok = 0.0, 0.0, True
        for _step in range(steps):
            _profiles(y, x, r0, c0, half, sigma, gy, gx, dy, dx)
            sg = sgg = sgy = sgx = sggy = sggx = sggyy = sggxx = sggxy = np.float32(0.0)
            t = tg = tgy = tgx = np.float32(0.0)
            count = 0
            for k in range(top, bottom):
                first, last = max(left, half - width[k]), min(right, half + width[k] + 1)
                # sums over one line of the separable Gaussian; the factors of the line come in afterwards
                a0 = a1 = b0 = b1 = b2 = p0 = p1 = p2 = np.float32(0.0)
                for l in range(first, last):
                    g, u, p = gx[l], dx[l], patch[k, l]
                    gu = g * u
                    a0 += g
                    a1 += gu
                    b0 += g * g
                    b1 += g * gu
                    b2 += gu * gu
                    p0 += p
                    p1 += p * g
                    p2 += p * gu
                w, h = gy[k], dy[k]
                wh = w * h
                sg += w * a0
                sgx += w * a1
                sgy += wh * a0
                sgg += w * w * b0
                sggx += w * w * b1
                sggxx += w * w * b2
                sggy += w * wh * b0
                sggyy += wh * wh * b0
                sggxy += w * wh * b1
                t += p0
                tg += w * p1
                tgx += w * p2
                tgy += wh * p1
                count += last - first
            m[0, 0], m[1, 1], m[2, 2], m[3, 3] = sgg, count, sggyy, sggxx
            m[1, 0], m[2, 0], m[2, 1], m[3, 0], m[3, 1], m[3, 2] = sg, sggy, sgy, sggx, sgx, sggxy
            v[0], v[1], v[2], v[3] = tg, t, tgy, tgx
            ok = count > 8 and _solve4(m, v)
            if not ok or not v[0] > 0.0:
                ok = False
                break
            amplitude, background = v[0], v[1]
            move_y, move_x = sigma * v[2] / amplitude, sigma * v[3] / amplitude
            y += min(max(move_y, -0.5 * sigma), 0.5 * sigma)
            x += min(max(move_x, -0.5 * sigma), 0.5 * sigma)
            if (y - start[n, 0]) ** 2 + (x - start[n, 1]) ** 2 > (1.2 * sigma) ** 2:
                ok = False
                break
        out[n, 7], out[n, 8] = ok, edge
        out[n, 0], out[n, 1] = (y, x) if ok else (start[n, 0], start[n, 1])
        out[n, 2], out[n, 3] = amplitude, background
        _profiles(out[n, 0], out[n, 1], r0, c0, half, sigma, gy, gx, dy, dx)
        square = ny = nx = ey = ex = np.float32(0.0)
        count = 0
        for k in range(top, bottom):
            first, last = max(left, half - width[k]), min(right, half + width[k] + 1)
            for l in range(first, last):
                g = gy[k] * gx[l]
                e = patch[k, l] - np.float32(background) - np.float32(amplitude) * g
                square += e * e
                qy, qx = g * dy[k], g * dx[l]
                ny += qy * qy
                nx += qx * qx
                ey += e * e * qy * qy
                ex += e * e * qx * qx
            count += last - first
        free = max(count - 4, 1)
        out[n, 4] = sqrt(square / free)
        scale = sigma * sigma / max(amplitude * amplitude, 1e-30) * count / free
        # errors of the pixels as they are (counting noise is largest on the column): the sandwich, softened by its mean
        pooled = square / max(count, 1)
        out[n, 5] = scale * (0.7 * ey / max(ny * ny, 1e-12) + 0.3 * pooled / max(ny, 1e-12))
        out[n, 6] = scale * (0.7 * ex / max(nx * nx, 1e-12) + 0.3 * pooled / max(nx, 1e-12))


@njit(nogil=True, cache=True, fastmath=True)
def _render(columns: FloatArray, sigma: float, model: Image) -> None:
    """Add every column (y, x, A) to `model`."""
    rows, cols = model.shape
    half = int(ceil(MODEL_SIGMA * sigma))
    gx = np.empty(2 * half + 1, np.float32)
    inverse = 1.0 / sigma
    for n in range(len(columns)):
        y, x, a = columns[n, 0], columns[n, 1], columns[n, 2]
        if not a > 0.0:
            continue
        r0, c0 = int(y + 0.5), int(x + 0.5)
        left, right = max(0, c0 - half), min(cols, c0 + half + 1)
        for c in range(left, right):
            gx[c - left] = exp(-0.5 * ((c - x) * inverse) ** 2)
        for r in range(max(0, r0 - half), min(rows, r0 + half + 1)):
            w = np.float32(a * exp(-0.5 * ((r - y) * inverse) ** 2))
            for c in range(left, right):
                model[r, c] += w * gx[c - left]


@njit(nogil=True, cache=True, fastmath=True)
def _width_step(image: Image, model: Image, columns: FloatArray, sigma: float) -> float:
    """Newton step of the common width on what `model` leaves, heights and backgrounds free."""
    rows, cols = image.shape
    half = int(ceil(WINDOW_SIGMA * sigma))
    side = 2 * half + 1
    gy, gx, dy, dx = np.empty(side, np.float32), np.empty(side, np.float32), np.empty(side, np.float32), np.empty(side, np.float32)
    upper, lower = 0.0, 0.0
    for n in range(len(columns)):
        y, x, a = columns[n, 0], columns[n, 1], columns[n, 2]
        r0, c0 = int(y + 0.5), int(x + 0.5)
        if r0 < half or c0 < half or r0 + half >= rows or c0 + half >= cols or not a > 0.0:
            continue
        _profiles(y, x, r0, c0, half, sigma, gy, gx, dy, dx)
        s1 = sg = sgg = sq = sgq = sqq = te = tge = tqe = 0.0
        for k in range(side):
            for l in range(side):
                square = dy[k] * dy[k] + dx[l] * dx[l]
                if square <= WINDOW_SIGMA * WINDOW_SIGMA:
                    g = gy[k] * gx[l]
                    q = g * square
                    e = image[r0 - half + k, c0 - half + l] - model[r0 - half + k, c0 - half + l]
                    s1 += 1.0
                    sg += g
                    sgg += g * g
                    sq += q
                    sgq += g * q
                    sqq += q * q
                    te += e
                    tge += g * e
                    tqe += q * e
        d = s1 * sgg - sg * sg
        if d > 1e-9:
            c_g, c_1 = (s1 * sgq - sg * sq) / d, (sgg * sq - sg * sgq) / d
            upper += a * (tqe - c_g * tge - c_1 * te)
            lower += a * a * (sqq - c_g * sgq - c_1 * sq)
    return sigma * upper / lower if lower > 0.0 else 0.0


def _strongest(columns: FloatArray, count: int = 1500) -> FloatArray:
    if len(columns) <= count:
        return columns
    return columns[np.argpartition(-columns[:, 2], count)[:count]]


def refine(image: Image, yx_px: FloatArray, column_sigma_px: float, *, fit_width: bool = True, subtract: bool = True) -> Refined:
    """Fit every column on the raw pixels.

    Parameters
    ----------
    image : ndarray, shape (rows, cols), float32
        Full resolution, finite, columns bright.
    yx_px : ndarray, shape (N, 2), float64
        Start positions, within about one column width.
    column_sigma_px : float
        Width of a column.
    fit_width : bool
        Improve the width by one step over all columns (needs `subtract`).
    subtract : bool
        Second pass with the neighbours of the first taken away; without it the fit is quicker and leans towards neighbours.

    Returns
    -------
    Refined
    """
    count = len(yx_px)
    out = np.zeros((count, 9))
    if count == 0:
        none = np.zeros(0, np.bool_)
        return Refined(np.empty((0, 2)), np.empty((0, 2)), out[:, 2], out[:, 3], out[:, 4], none, none, column_sigma_px)
    start, sigma = np.ascontiguousarray(yx_px, np.float64), float(column_sigma_px)
    _fit(image, image, False, start, out, sigma, 3, out)
    if subtract:
        held = np.where(out[:, 7:8] > 0, out[:, :3], 0.0)
        model = np.zeros_like(image)
        _render(held, sigma, model)
        if fit_width and np.count_nonzero(held[:, 2] > 0) >= 20:
            step = _width_step(image, model, _strongest(held), sigma)
            held, sigma, model = _rewiden(held, model, sigma, step)
        second = np.empty_like(out)
        _fit(image, model, True, np.where(out[:, 7:8] > 0, out[:, :2], start), held, sigma, 3, second)
        far = np.hypot(*(second[:, :2] - start).T) > 1.5 * sigma
        second[far, :2], second[far, 7] = start[far], 0.0
        out = second
    failed = out[:, 7] == 0
    error = np.sqrt(out[:, 5:7])
    error[failed] = np.nan
    return Refined(out[:, :2].copy(), error, out[:, 2], out[:, 3], out[:, 4], failed, out[:, 8] > 0, sigma)


def _rewiden(held: FloatArray, model: Image, sigma: float, step: float) -> tuple[FloatArray, float, Image]:
    """The columns rendered anew when their width changes by more than 1 %: same area under the narrower or wider column."""
    wider = min(max(sigma + step, 0.75 * sigma), 1.35 * sigma)
    if abs(wider / sigma - 1.0) < 0.01:
        return held, sigma, model
    changed = held.copy()
    changed[:, 2] *= (sigma / wider) ** 2
    fresh = np.zeros_like(model)
    _render(changed, wider, fresh)
    return changed, wider, fresh
