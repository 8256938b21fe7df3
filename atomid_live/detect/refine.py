"""Sub-pixel positions on the raw pixels: fixed-width Gaussians on a constant, neighbours subtracted once.

Gauss-Newton on (height, background, y, x) within two column widths (SCIENCE: fixed width, neighbour subtraction removes
the site bias of crystals with unequal neighbours); the width is one number per frame, fitted on all columns together.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from math import ceil, exp, sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atomid_live.lanes import beside
from atomid_live.types import FloatArray

Image = NDArray[np.float32]

# half side of the first pass's square window; its area is that of a circle of two widths
FIRST_HALF_SIGMA = 1.77
# radius of the round window: a square one is pulled by threefold surroundings (0.08 px on MoS2), a round one is not
WINDOW_SIGMA, LEAST_WINDOW_PX = 2.2, 2.4
# least part of the noise that does not grow with the light
LEAST_DARK = 0.1
SANDWICH = 0.7
MODEL_SIGMA = 3.6
FARTHEST_SIGMA = 0.8
POOLED = 800
# Below this many columns a half is done sooner than the second lane wakes.
FEW_FOR_TWO = 300
FAILED_SIGMA = 0.6
MOST_COLOUR, FEW_COLUMNS = 3.0, 20.0
LOW_DOSE, MOST_LOW_DOSE = 25.0, 1.2


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
    outside : ndarray, shape (N,), bool
        The fit failed because it left the frame: the column's centre lies beyond the border.
    """

    yx_px: FloatArray = field(repr=False)
    sigma_yx_px: FloatArray = field(repr=False)
    amplitude: FloatArray = field(repr=False)
    background: FloatArray = field(repr=False)
    noise: FloatArray = field(repr=False)
    failed: NDArray[np.bool_] = field(repr=False)
    at_edge: NDArray[np.bool_] = field(repr=False)
    column_sigma_px: float = float("nan")
    outside: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_), repr=False)

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Refined:
        """Some of the columns, by mask or by number."""
        return Refined(
            self.yx_px[which], self.sigma_yx_px[which], self.amplitude[which], self.background[which], self.noise[which],
            self.failed[which], self.at_edge[which], self.column_sigma_px, self.outside[which],
        )  # fmt: skip


@njit(nogil=True, cache=True)
def solve4(m: FloatArray, v: FloatArray) -> bool:
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
def profile(centre: float, first: int, sigma: float, g: Image, u: Image) -> None:
    """Gaussian and distance in widths at pixels first, first + 1, ...; by recurrence, since exponentials would dominate."""
    inverse = 1.0 / sigma
    start = (first - centre) * inverse
    value, ratio, bend = exp(-0.5 * start * start), exp(-start * inverse - 0.5 * inverse * inverse), exp(-inverse * inverse)
    for k in range(len(g)):
        g[k], u[k] = value, start + k * inverse
        value *= ratio
        ratio *= bend


@njit(nogil=True, cache=True)
def window(sigma: float) -> tuple[float, int]:
    """Radius of the second pass's round window in pixels, and half the side of the square that holds it."""
    radius = max(WINDOW_SIGMA * sigma, LEAST_WINDOW_PX)
    return radius, int(radius + 0.5)


@njit(nogil=True, cache=True, fastmath=True)
def sums(g: Image, u: Image, count: int, out: FloatArray) -> None:
    """Sums along one axis of g, g u, g g, g g u, and g g u u over the first `count` pixels."""
    s0 = s1 = s2 = s3 = s4 = 0.0
    for k in range(count):
        a = float(g[k])
        b = a * u[k]
        s0 += a
        s1 += b
        s2 += a * a
        s3 += a * b
        s4 += b * b
    out[0], out[1], out[2], out[3], out[4] = s0, s1, s2, s3, s4


@njit(nogil=True, cache=True, fastmath=True)
def _accept(
    n: int, v: FloatArray, solved: bool, limits: tuple[float, int, int], place: FloatArray, peak: FloatArray, out: FloatArray
) -> bool:
    """Write y, x, A, b and ok of a step from `place`; a fit must stay within 0.8 widths of `peak` and on the frame."""
    sigma, rows, cols = limits
    ok, outside = solved and v[0] > 0.0, False
    y, x = peak[n, 0], peak[n, 1]
    if ok:
        step_y = min(max(sigma * v[2] / v[0], -0.5 * sigma), 0.5 * sigma)
        step_x = min(max(sigma * v[3] / v[0], -0.5 * sigma), 0.5 * sigma)
        to_y, to_x = place[n, 0] + step_y, place[n, 1] + step_x
        ok = (to_y - y) ** 2 + (to_x - x) ** 2 <= (FARTHEST_SIGMA * sigma) ** 2
        if not (-0.5 <= to_y <= rows - 0.5 and -0.5 <= to_x <= cols - 0.5):
            ok, outside = False, True
        if ok:
            y, x = to_y, to_x
    out[n, 0], out[n, 1], out[n, 2], out[n, 3] = y, x, max(v[0], 0.0), v[1]
    out[n, 7] = -1.0 if outside else (1.0 if ok else 0.0)
    return ok


@njit(nogil=True, cache=True, fastmath=True)
def _fit_alone(image: Image, start: FloatArray, sigma: float, with_errors: bool, out: FloatArray) -> None:
    """One step of each column's fit in a square window, neighbours and all; rows of `out` as `_fit_among`.

    Its errors are those of white noise as large as what is left.
    """
    rows, cols = image.shape
    half = max(2, int(FIRST_HALF_SIGMA * sigma))
    side = 2 * half + 1
    gy, gx, dy, dx = (
        np.empty(side, np.float32),
        np.empty(side, np.float32),
        np.empty(side, np.float32),
        np.empty(side, np.float32),
    )
    line, bent = np.empty(side, np.float32), np.empty(side, np.float32)
    m, v, sy, sx = np.empty((4, 4)), np.empty(4), np.empty(5), np.empty(5)
    for n in range(len(start)):
        y, x = start[n, 0], start[n, 1]
        r0, c0 = int(np.floor(y + 0.5)) - half, int(np.floor(x + 0.5)) - half
        r1, c1 = min(r0 + side, rows), min(c0 + side, cols)
        out[n, 8] = r0 < 0 or c0 < 0 or r1 < r0 + side or c1 < c0 + side
        r0, c0 = max(r0, 0), max(c0, 0)
        # loops from zero let the compiler see that no index is negative, which makes them three times as fast
        high, wide = max(r1 - r0, 0), max(c1 - c0, 0)
        pixels = high * wide
        v[:] = 0.0
        solved = pixels > 8
        if solved:
            profile(y, r0, sigma, gy, dy)
            profile(x, c0, sigma, gx, dx)
            sums(gy, dy, high, sy)
            sums(gx, dx, wide, sx)
            for j in range(wide):
                line[j] = bent[j] = np.float32(0.0)
            total = 0.0
            for k in range(high):
                w, wh, part = gy[k], gy[k] * dy[k], np.float32(0.0)
                pixel = image[r0 + k, c0:c1]
                for j in range(wide):
                    p = pixel[j]
                    part += p
                    line[j] += w * p
                    bent[j] += wh * p
                total += float(part)
            tg = tgy = tgx = np.float32(0.0)
            for j in range(wide):
                tg += gx[j] * line[j]
                tgx += gx[j] * dx[j] * line[j]
                tgy += gx[j] * bent[j]
            m[0, 0], m[1, 1] = sy[2] * sx[2], pixels
            m[2, 2], m[3, 3] = sy[4] * sx[2], sy[2] * sx[4]
            m[1, 0], m[2, 0], m[3, 0] = sy[0] * sx[0], sy[3] * sx[2], sy[2] * sx[3]
            m[2, 1], m[3, 1], m[3, 2] = sy[1] * sx[0], sy[0] * sx[1], sy[3] * sx[3]
            v[0], v[1], v[2], v[3] = tg, total, tgy, tgx
            solved = solve4(m, v)
        if not _accept(n, v, solved, (sigma, rows, cols), start, start, out) or not with_errors:
            continue
        square, height, level = 0.0, np.float32(v[0]), np.float32(v[1])
        bend_y, bend_x = np.float32(v[2]), np.float32(v[3])
        for k in range(high):
            a, c, part = (height + bend_y * dy[k]) * gy[k], bend_x * gy[k], np.float32(0.0)
            pixel = image[r0 + k, c0:c1]
            for j in range(wide):
                e = pixel[j] - level - (a + c * dx[j]) * gx[j]
                part += e * e
            square += float(part)
        variance = square / max(pixels - 4, 1)
        out[n, 4] = sqrt(variance)
        out[n, 5] = variance * (sigma / v[0]) ** 2 / (sy[4] * sx[2])
        out[n, 6] = variance * (sigma / v[0]) ** 2 / (sy[2] * sx[4])


@njit(nogil=True, cache=True, fastmath=True)
def _equations(flat: Image, limit: float, gain: float, m: FloatArray, v: FloatArray) -> int:
    """Normal equations of height, background, y and x over one window; its weights are written to `flat[5]`.

    `flat` holds pixels, light of the model, Gaussian, and distance in widths along y and x. Returns the number of pixels.
    """
    pixels, light, gauss, up, aside, weight = flat[0], flat[1], flat[2], flat[3], flat[4], flat[5]
    rise, farthest = np.float32(gain), np.float32(limit)
    a00 = a10 = a11 = a20 = a21 = a22 = a30 = a31 = a32 = a33 = b0 = b1 = b2 = b3 = count = np.float32(0.0)
    for i in range(len(pixels)):
        u, t, g, p = up[i], aside[i], gauss[i], pixels[i]
        inside = u * u + t * t <= farthest
        w = np.float32(1.0) / (np.float32(1.0) + rise * max(light[i], np.float32(0.0)))
        w = w if inside else np.float32(0.0)
        count += np.float32(1.0) if inside else np.float32(0.0)
        weight[i] = w
        gu, gt, a = g * u, g * t, w * g
        au, at = w * gu, w * gt
        a00 += a * g
        a10 += a
        a11 += w
        a20 += au * g
        a21 += au
        a22 += au * gu
        a30 += at * g
        a31 += at
        a32 += at * gu
        a33 += at * gt
        b0 += a * p
        b1 += w * p
        b2 += au * p
        b3 += at * p
    m[0, 0], m[1, 0], m[1, 1], m[2, 0], m[2, 1], m[2, 2] = a00, a10, a11, a20, a21, a22
    m[3, 0], m[3, 1], m[3, 2], m[3, 3] = a30, a31, a32, a33
    v[0], v[1], v[2], v[3] = b0, b1, b2, b3
    return int(count)


@njit(nogil=True, cache=True, fastmath=True)
def _errors(flat: Image, fit: FloatArray, out: FloatArray) -> None:
    """Sums of the squared residual, times weight, and times the square of weight and derivative along y and along x."""
    pixels, gauss, up, aside, weight = flat[0], flat[2], flat[3], flat[4], flat[5]
    height, level = np.float32(fit[0]), np.float32(fit[1])
    s0 = s1 = s2 = s3 = np.float32(0.0)
    for i in range(len(pixels)):
        w, g = weight[i], gauss[i]
        e = pixels[i] - level - height * g
        e = e if w > np.float32(0.0) else np.float32(0.0)
        we = w * e
        h = we * we * g * g
        s0 += e * e
        s1 += we * e
        s2 += h * up[i] * up[i]
        s3 += h * aside[i] * aside[i]
    out[0], out[1], out[2], out[3] = s0, s1, s2, s3


@njit(nogil=True, cache=True, fastmath=True)
def _pool(part: Image, fit: FloatArray, out: FloatArray) -> None:
    """Add to `out` what shows common errors of a row's pixels.

    Squared row sums of the weighted residual times the derivative along y and x, the same pixel by pixel, products of
    residuals one row apart, and squares; each in units of the column's mean square. `part` is `flat` of `_equations`, as a
    square.
    """
    height, level = np.float32(fit[0]), np.float32(fit[1])
    s0y = s0x = s1y = s1x = lag = square = pixels = 0.0
    side = part.shape[1]
    for k in range(side):
        row_y = row_x = 0.0
        for j in range(side):
            w, g = part[5, k, j], part[2, k, j]
            if w <= 0.0:
                continue
            e = part[0, k, j] - level - height * g
            wy, wx = w * e * g * part[3, k, j], w * e * g * part[4, k, j]
            row_y += wy
            row_x += wx
            s0y += wy * wy
            s0x += wx * wx
            square += e * e
            pixels += 1.0
            if k + 1 < side and part[5, k + 1, j] > 0.0:
                lag += e * (part[0, k + 1, j] - level - height * part[2, k + 1, j])
        s1y += row_y * row_y
        s1x += row_x * row_x
    if square > 0.0:
        unit = pixels / square
        out[0] += s0y * unit
        out[1] += s1y * unit
        out[2] += s0x * unit
        out[3] += s1x * unit
        out[4] += lag * unit
        out[5] += square * unit
        out[6] += 1.0


@njit(nogil=True, cache=True, fastmath=True)
def _fit_among(
    image: Image, model: Image, start: FloatArray, height: FloatArray, width: tuple[float, float], peak: FloatArray,
    out: FloatArray, pool: FloatArray,
) -> None:  # fmt: skip
    """One step of each column's fit with its neighbours taken away; rows of `out`: y, x, A, b, noise, var_y, var_x, ok, edge.

    `model` shows a column of `height` at each `start`. `width` is the width, and how the variance of a pixel grows with the
    light of `model`, in units of its dark part. `pool` takes the sums of `_pool`.
    """
    rows, cols = image.shape
    sigma, gain = width
    radius, half = window(sigma)
    side = 2 * half + 1
    part = np.zeros((6, side, side), np.float32)
    flat = part.reshape((6, side * side))
    patch, light, gauss, up, aside = part[0], part[1], part[2], part[3], part[4]
    gy, gx, dy, dx = (
        np.empty(side, np.float32),
        np.empty(side, np.float32),
        np.empty(side, np.float32),
        np.empty(side, np.float32),
    )
    m, v, rest = np.empty((4, 4)), np.empty(4), np.empty(4)
    stride = 1 + len(start) // POOLED
    limit = (radius / sigma) ** 2
    for n in range(len(start)):
        y, x = start[n, 0], start[n, 1]
        r0, c0 = int(np.floor(y + 0.5)) - half, int(np.floor(x + 0.5)) - half
        r1, c1 = min(r0 + side, rows), min(c0 + side, cols)
        edge = r0 < 0 or c0 < 0 or r1 < r0 + side or c1 < c0 + side
        out[n, 8] = edge
        r0, c0 = max(r0, 0), max(c0, 0)
        high, wide = max(r1 - r0, 0), max(c1 - c0, 0)
        if edge:
            part[:] = np.float32(0.0)
            up[:] = np.float32(2.0 * limit)
        profile(y, r0, sigma, gy, dy)
        profile(x, c0, sigma, gx, dx)
        own = np.float32(height[n])
        for k in range(high):
            pixel, shown = image[r0 + k, c0:c1], model[r0 + k, c0:c1]
            a, d = gy[k], dy[k]
            for j in range(wide):
                g = a * gx[j]
                patch[k, j] = pixel[j] - shown[j] + own * g
                light[k, j] = shown[j]
                gauss[k, j] = g
                up[k, j] = d
                aside[k, j] = dx[j]
        pixels = _equations(flat, limit, gain, m, v)
        weight_y, weight_x = m[2, 2], m[3, 3]
        solved = pixels > 8 and solve4(m, v)
        if not solved:
            v[:] = 0.0
        if not _accept(n, v, solved, (sigma, rows, cols), start, peak, out):
            continue
        _errors(flat, v, rest)
        if n % stride == 0 and not edge:
            _pool(part, v, pool)
        free = max(pixels - 4, 1)
        out[n, 4] = sqrt(rest[0] / free)
        # errors of the pixels as they are (counting noise is largest on the column): the sandwich, softened by its mean
        scale = sigma * sigma / (v[0] * v[0]) * pixels / free
        out[n, 5] = scale * (SANDWICH * rest[2] / weight_y + (1.0 - SANDWICH) * rest[1] / pixels) / weight_y
        out[n, 6] = scale * (SANDWICH * rest[3] / weight_x + (1.0 - SANDWICH) * rest[1] / pixels) / weight_x


@njit(nogil=True, cache=True, fastmath=True)
def _render(columns: FloatArray, sigma: float, model: Image) -> None:
    """Add every column (y, x, A) to `model`."""
    rows, cols = model.shape
    half = ceil(MODEL_SIGMA * sigma)
    gx = np.empty(2 * half + 1, np.float32)
    inverse = 1.0 / sigma
    for n in range(len(columns)):
        y, x, a = columns[n, 0], columns[n, 1], columns[n, 2]
        if not a > 0.0:
            continue
        r0, c0 = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
        left, right = max(0, c0 - half), min(cols, c0 + half + 1)
        if r0 + half < 0 or r0 - half >= rows:
            continue
        for c in range(left, right):
            gx[c - left] = exp(-0.5 * ((c - x) * inverse) ** 2)
        for r in range(max(0, r0 - half), min(rows, r0 + half + 1)):
            w = np.float32(a * exp(-0.5 * ((r - y) * inverse) ** 2))
            for c in range(left, right):
                model[r, c] += w * gx[c - left]


@njit(nogil=True, cache=True, fastmath=True)
def _width_step(image: Image, model: Image, columns: FloatArray, sigma: float) -> tuple[float, float]:
    """Newton step of the common width on what `model` leaves, heights and backgrounds free; and the noise's growth with light.

    That is by how much the variance of a pixel grows with the light of `model`, in units of the variance without: a straight
    line through squared differences of pixels next to each other, which hold the noise and little else.
    """
    rows, cols = image.shape
    radius, half = window(sigma)
    side = 2 * half + 1
    gy, gx, dy, dx = (
        np.empty(side, np.float32),
        np.empty(side, np.float32),
        np.empty(side, np.float32),
        np.empty(side, np.float32),
    )
    upper, lower = 0.0, 0.0
    count = level = level2 = change = product = 0.0
    for n in range(len(columns)):
        y, x, a = columns[n, 0], columns[n, 1], columns[n, 2]
        r0, c0 = int(y + 0.5), int(x + 0.5)
        if r0 < half or c0 < half or r0 + half >= rows or c0 + half >= cols or not a > 0.0:
            continue
        profile(y, r0 - half, sigma, gy, dy)
        profile(x, c0 - half, sigma, gx, dx)
        s1 = sg = sgg = sq = sgq = sqq = te = tge = tqe = 0.0
        for k in range(side):
            pixel, light = image[r0 - half + k, c0 - half : c0 + half + 1], model[r0 - half + k, c0 - half : c0 + half + 1]
            for j in range(side):
                square = dy[k] * dy[k] + dx[j] * dx[j]
                if square * sigma * sigma <= radius * radius:
                    g = gy[k] * gx[j]
                    q = g * square
                    e = pixel[j] - light[j]
                    s1 += 1.0
                    sg += g
                    sgg += g * g
                    sq += q
                    sgq += g * q
                    sqq += q * q
                    te += e
                    tge += g * e
                    tqe += q * e
                    if j + 1 < side:
                        d2 = (pixel[j + 1] - light[j + 1] - e) ** 2
                        mean = 0.5 * (light[j] + light[j + 1])
                        count += 1.0
                        level += mean
                        level2 += mean * mean
                        change += d2
                        product += d2 * mean
        d = s1 * sgg - sg * sg
        if d > 1e-9:
            c_g, c_1 = (s1 * sgq - sg * sq) / d, (sgg * sq - sg * sgq) / d
            upper += a * (tqe - c_g * tge - c_1 * te)
            lower += a * a * (sqq - c_g * sgq - c_1 * sq)
    return sigma * upper / lower if lower > 0.0 else 0.0, growth(count, level, level2, change, product)


@njit(nogil=True, cache=True)
def growth(count: float, level: float, level2: float, change: float, product: float) -> float:
    """Slope over offset of a line through `change` against `level`, from their sums; 0 where the slope is none.

    The offset is at least a tenth of the mean change.
    """
    spread = count * level2 - level * level
    if not (count > 1.0 and spread > 0.0 and change > 0.0):
        return 0.0
    slope = (count * product - level * change) / spread
    dark = max((change - slope * level) / count, LEAST_DARK * change / count)
    return max(slope / dark, 0.0)


def _strongest(columns: FloatArray, count: int = 400) -> FloatArray:
    if len(columns) <= count:
        return columns
    return columns[np.argpartition(-columns[:, 2], count)[:count]]


_scratch = threading.local()


def _blank(use: str, shape: tuple[int, ...]) -> Image:
    """An image of zeros, the same memory at each call for a `use` in this thread: fresh pages cost a millisecond."""
    kept: dict[str, Image] = _scratch.__dict__
    if use not in kept or kept[use].shape != shape:
        kept[use] = np.zeros(shape, np.float32)
    elif use != "never written":
        kept[use].fill(0.0)
    return kept[use]


def _all_alone(image: Image, start: FloatArray, sigma: float, with_errors: bool, out: FloatArray) -> None:
    """`_fit_alone` in two halves, which have nothing to do with each other."""
    half = len(start) // 2
    if half < FEW_FOR_TWO:
        _fit_alone(image, start, sigma, with_errors, out)
        return
    with beside(lambda: _fit_alone(image, start[half:], sigma, with_errors, out[half:])) as second:
        _fit_alone(image, start[:half], sigma, with_errors, out[:half])
        second.result()


def _all_among(
    image: Image, model: Image, start: FloatArray, height: FloatArray, width: tuple[float, float], peak: FloatArray,
    out: FloatArray, pool: FloatArray,
) -> None:  # fmt: skip
    """`_fit_among` in two halves; the same halves however many lanes there are."""
    half = len(start) // 2
    if half < FEW_FOR_TWO:
        _fit_among(image, model, start, height, width, peak, out, pool)
        return
    further = np.zeros_like(pool)
    with beside(
        lambda: _fit_among(image, model, start[half:], height[half:], width, peak[half:], out[half:], further)
    ) as second:  # fmt: skip
        _fit_among(image, model, start[:half], height[:half], width, peak[:half], out[:half], pool)
        second.result()
    pool += further


def _render_all(columns: FloatArray, sigma: float, model: Image) -> None:
    """`_render` in an upper and a lower half of the image."""
    middle = len(model) // 2
    lowered = columns - np.array([middle, 0.0, 0.0])
    with beside(lambda: _render(lowered, sigma, model[middle:])) as second:
        _render(columns, sigma, model[:middle])
        second.result()


def quick_fit(image: Image, yx_px: FloatArray, column_sigma_px: float) -> FloatArray:
    """Heights of columns at `yx_px` (N, 2) by one step of the fit: (N, 3) of y, x as given, and height."""
    out, start = np.zeros((len(yx_px), 9)), np.ascontiguousarray(yx_px)
    _all_alone(image, start, float(column_sigma_px), False, out)
    # where a column is a few pixels wide, its peak is a better place than a fit that its neighbours pull
    return np.column_stack([start, np.where(out[:, 7] > 0, out[:, 2], 0.0)])


def first_fit(image: Image, yx_px: FloatArray, column_sigma_px: float, *, fit_width: bool) -> tuple[Image, FloatArray, float]:
    """One quick fit of columns at `yx_px` (N, 2): their image without background, (N, 3) of y, x, height, and their width."""
    held, sigma = quick_fit(image, yx_px, column_sigma_px), column_sigma_px
    model = _blank("first", image.shape)
    _render_all(held, column_sigma_px, model)
    for _ in range(2 if fit_width else 0):
        held, sigma, model = _rewiden(held, model, sigma, _width_step(image, model, _strongest(held), sigma)[0])
    return model, held, sigma


def refine(
    image: Image,
    yx_px: FloatArray,
    column_sigma_px: float,
    *,
    fit_width: bool = True,
    subtract: bool = True,
    first: FloatArray | None = None,
) -> Refined:
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
    first : ndarray, shape (N, 3), float64, or None
        y, x and height of an earlier fit; saves the first pass.

    Returns
    -------
    Refined
    """
    count = len(yx_px)
    out = np.zeros((count, 9))
    if count == 0:
        none = np.zeros(0, np.bool_)
        return Refined(np.empty((0, 2)), np.empty((0, 2)), out[:, 2], out[:, 3], out[:, 4], none, none, column_sigma_px, none)
    start, sigma = np.ascontiguousarray(yx_px, np.float64), float(column_sigma_px)
    model, pool, gain = _blank("second", image.shape), np.zeros(7), 0.0
    if first is None or not subtract:
        _all_alone(image, start, sigma, not subtract, out)
    else:
        out[:, :3], out[:, 7] = first, first[:, 2] > 0
    if subtract:
        held = np.where(out[:, 7:8] > 0, out[:, :3], 0.0)
        _render_all(held, sigma, model)
        if fit_width and np.count_nonzero(held[:, 2] > 0) >= 20:
            step, gain = _width_step(image, model, _strongest(held), sigma)
            held, sigma, model = _rewiden(held, model, sigma, step)
        begin, second = np.where(out[:, 7:8] > 0, out[:, :2], start), np.zeros_like(out)
        _all_among(image, model, begin, np.ascontiguousarray(held[:, 2]), (sigma, gain), start, second, pool)
        out = second
    failed = out[:, 7] <= 0
    variance = out[:, 5:7] * _common(pool, 2 * window(sigma)[1] + 1)
    # least squares miss their bound where noise moves the fit by a good part of the width (measured on simulated crystals)
    error = np.sqrt(variance * (1.0 + np.minimum(LOW_DOSE * variance / sigma**2, MOST_LOW_DOSE)))
    # a Gaussian that fits the pixels without any residual is a coincidence; a failed fit may be off by as much as it may move
    error = np.maximum(error, 1e-3)
    error[failed] = np.maximum(FAILED_SIGMA * sigma, 2.0 * np.median(error[~failed], axis=0) if not failed.all() else 0.0)
    return Refined(out[:, :2].copy(), error, out[:, 2], out[:, 3], out[:, 4], failed, out[:, 8] > 0, sigma, out[:, 7] < 0)


def _common(pool: FloatArray, side: int) -> FloatArray:
    """Factors on the variances along y and x for errors that pixels have in common: row jitter, and noise with a colour.

    The variance of a row's sum over that of its pixels' own errors shows what a row has in common; the correlation of
    residuals one row apart shows the colour along y. Both are reduced by the fit itself, on white noise by the terms in the
    window's side below (measured for widths of 1.2 to 7 px).
    """
    columns = pool[6]
    if columns < 1 or pool[0] <= 0.0 or pool[2] <= 0.0 or pool[5] <= 0.0:
        return np.ones(2)
    rows = np.array([pool[1] / pool[0] / (1.0 - 1.9 / side), pool[3] / pool[2] / (1.0 - 0.86 / side)])
    colour = min(max(1.0 + 2.0 * (pool[4] / pool[5] + 3.2 / side**2), 1.0), MOST_COLOUR)
    factor = np.clip(rows, 0.8, 6.0) * colour
    weight = columns / (columns + FEW_COLUMNS)
    return np.asarray(1.0 + weight * (factor - 1.0))


def _rewiden(held: FloatArray, model: Image, sigma: float, step: float) -> tuple[FloatArray, float, Image]:
    """The columns rendered anew, in the same memory, when their width changes by more than 1 %, with the same area."""
    wider = min(max(sigma + step, 0.9 * sigma), 1.1 * sigma)
    if abs(wider / sigma - 1.0) < 0.01:
        return held, sigma, model
    changed = held.copy()
    changed[:, 2] *= (sigma / wider) ** 2
    model.fill(0.0)
    _render_all(changed, wider, model)
    return changed, wider, model
