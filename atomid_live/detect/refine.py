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

# half side of the square window; its area is that of a circle of two widths
# after a first pass a second step of the second changes the rms error by less than a hundredth
SECOND_STEPS = 1
WINDOW_SIGMA = 1.77
SANDWICH = 0.7
MODEL_SIGMA = 3.6
FARTHEST_SIGMA = 0.8
STILL_SIGMA = 0.12
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
def _errors(
    patch: Image, box: tuple[int, int, int, int], gy: Image, dy: Image, gx: Image, dx: Image, fit: FloatArray, out: FloatArray
) -> None:
    """Residual sum of squares, and the same weighted by the squared derivative along y and along x."""
    top, bottom, left, right = box
    amplitude, background = np.float32(fit[0]), np.float32(fit[1])
    square = np.float32(0.0)
    along_y = np.float32(0.0)
    along_x = np.float32(0.0)
    for k in range(top, bottom):
        a = amplitude * gy[k]
        plain = weighted = bent = np.float32(0.0)
        for j in range(left, right):
            e = patch[k, j] - background - a * gx[j]
            e2 = e * e
            g2 = gx[j] * gx[j]
            plain += e2
            weighted += e2 * g2
            bent += e2 * g2 * dx[j] * dx[j]
        w = gy[k] * gy[k]
        square += plain
        along_y += weighted * w * dy[k] * dy[k]
        along_x += bent * w
    out[0], out[1], out[2] = square, along_y, along_x


@njit(nogil=True, cache=True, fastmath=True)
def _pool(
    patch: Image, box: tuple[int, int, int, int], gy: Image, dy: Image, gx: Image, dx: Image, fit: FloatArray, out: FloatArray
) -> None:
    """Add to `out` what shows common errors of a row's pixels.

    Squared row sums of the residual times the derivative along y and x, the same pixel by pixel, products of residuals one row
    apart, and squares; each in units of the column's mean square.
    """
    top, bottom, left, right = box
    amplitude, background = np.float32(fit[0]), np.float32(fit[1])
    s0y = s0x = s1y = s1x = lag = square = 0.0
    for k in range(top, bottom):
        a = amplitude * gy[k]
        row_y = row_x = 0.0
        for j in range(left, right):
            e = patch[k, j] - background - a * gx[j]
            wy, wx = gy[k] * dy[k] * gx[j], gy[k] * gx[j] * dx[j]
            row_y += e * wy
            row_x += e * wx
            s0y += e * e * wy * wy
            s0x += e * e * wx * wx
            square += e * e
            if k + 1 < bottom:
                lag += e * (patch[k + 1, j] - background - amplitude * gy[k + 1] * gx[j])
        s1y += row_y * row_y
        s1x += row_x * row_x
    if square > 0.0:
        unit = (bottom - top) * (right - left) / square
        out[0] += s0y * unit
        out[1] += s1y * unit
        out[2] += s0x * unit
        out[3] += s1x * unit
        out[4] += lag * unit
        out[5] += square * unit
        out[6] += 1.0


@njit(nogil=True, cache=True, fastmath=True)
def _cut(
    image: Image,
    model: Image,
    corner: tuple[int, int],
    box: tuple[int, int, int, int],
    height: float,
    gy: Image,
    gx: Image,
    patch: Image,
) -> None:
    """Copy a window; with a height above zero, minus the model but for the column's own part."""
    top, bottom, left, right = box
    for k in range(top, bottom):
        r = corner[0] + k
        if height > 0.0:
            a = np.float32(height) * gy[k]
            for j in range(left, right):
                patch[k, j] = image[r, corner[1] + j] - model[r, corner[1] + j] + a * gx[j]
        else:
            for j in range(left, right):
                patch[k, j] = image[r, corner[1] + j] - model[r, corner[1] + j]


@njit(nogil=True, cache=True, fastmath=True)
def _fit(
    image: Image, model: Image, start: FloatArray, held: FloatArray, sigma: float, steps: int, peak: FloatArray,
    out: FloatArray, pool: FloatArray,
) -> None:  # fmt: skip
    """Fit each column; rows of `out`: y, x, A, b, pixel noise, var_y, var_x, ok, edge. `held`: y, x, A rendered in `model`.

    A fit must stay within 0.8 widths of `peak` and on the frame. Errors are worked out when `pool` has a length; it takes
    the sums of `_pool`.
    """
    rows, cols = image.shape
    half = max(2, int(WINDOW_SIGMA * sigma))
    side = 2 * half + 1
    gy, gx, dy, dx = (
        np.empty(side, np.float32),
        np.empty(side, np.float32),
        np.empty(side, np.float32),
        np.empty(side, np.float32),
    )
    line, bent = np.empty(side, np.float32), np.empty(side, np.float32)
    patch = np.empty((side, side), np.float32)
    m, v, sy, sx, rest = np.empty((4, 4)), np.empty(4), np.empty(5), np.empty(5), np.empty(3)
    stride = 1 + len(start) // POOLED
    for n in range(len(start)):
        y, x = start[n, 0], start[n, 1]
        r0, c0 = int(np.floor(y + 0.5)) - half, int(np.floor(x + 0.5)) - half
        top, bottom = max(0, -r0), min(side, rows - r0)
        left, right = max(0, -c0), min(side, cols - c0)
        high, wide = bottom - top, right - left
        out[n, 8] = high < side or wide < side
        if held[n, 2] > 0.0:
            profile(held[n, 0], r0, sigma, gy, dy)
            profile(held[n, 1], c0, sigma, gx, dx)
        _cut(image, model, (r0, c0), (top, bottom, left, right), held[n, 2], gy, gx, patch)
        v[0] = v[1] = 0.0
        ok = high * wide > 8
        total = 0.0
        for k in range(top, bottom):
            part = np.float32(0.0)
            for j in range(left, right):
                part += patch[k, j]
            total += float(part)
        step_y = step_x = sigma
        outside = False
        for step in range(steps):
            if not ok or (step > 0 and abs(step_y) + abs(step_x) < STILL_SIGMA * sigma):
                break
            profile(y, r0, sigma, gy, dy)
            profile(x, c0, sigma, gx, dx)
            sums(gy[top:bottom], dy[top:bottom], high, sy)
            sums(gx[left:right], dx[left:right], wide, sx)
            for j in range(left, right):
                line[j] = bent[j] = np.float32(0.0)
            for k in range(top, bottom):
                w = gy[k]
                wh = w * dy[k]
                for j in range(left, right):
                    line[j] += w * patch[k, j]
                    bent[j] += wh * patch[k, j]
            tg = tgy = tgx = np.float32(0.0)
            for j in range(left, right):
                tg += gx[j] * line[j]
                tgx += gx[j] * dx[j] * line[j]
                tgy += gx[j] * bent[j]
            m[0, 0], m[1, 1] = sy[2] * sx[2], high * wide
            m[2, 2], m[3, 3] = sy[4] * sx[2], sy[2] * sx[4]
            m[1, 0], m[2, 0], m[3, 0] = sy[0] * sx[0], sy[3] * sx[2], sy[2] * sx[3]
            m[2, 1], m[3, 1], m[3, 2] = sy[1] * sx[0], sy[0] * sx[1], sy[3] * sx[3]
            v[0], v[1], v[2], v[3] = tg, total, tgy, tgx
            ok = solve4(m, v) and v[0] > 0.0
            if ok:
                step_y = min(max(sigma * v[2] / v[0], -0.5 * sigma), 0.5 * sigma)
                step_x = min(max(sigma * v[3] / v[0], -0.5 * sigma), 0.5 * sigma)
                y += step_y
                x += step_x
                ok = (y - peak[n, 0]) ** 2 + (x - peak[n, 1]) ** 2 <= (FARTHEST_SIGMA * sigma) ** 2
                if not (-0.5 <= y <= rows - 0.5 and -0.5 <= x <= cols - 0.5):
                    ok, outside = False, True
        out[n, 0], out[n, 1], out[n, 2], out[n, 3] = peak[n, 0], peak[n, 1], max(v[0], 0.0), v[1]
        out[n, 7] = -1.0 if outside else (1.0 if ok else 0.0)
        if not ok:
            continue
        out[n, 0], out[n, 1] = y, x
        if not len(pool):
            continue
        box = (top, bottom, left, right)
        _errors(patch, box, gy, dy, gx, dx, v, rest)
        if n % stride == 0 and not out[n, 8]:
            _pool(patch, box, gy, dy, gx, dx, v, pool)
        pixels = high * wide
        free = max(pixels - 4, 1)
        out[n, 4] = sqrt(rest[0] / free)
        # errors of the pixels as they are (counting noise is largest on the column): the sandwich, softened by its mean
        scale = sigma * sigma / (v[0] * v[0]) * pixels / free
        ny, nx = sy[4] * sx[2], sy[2] * sx[4]
        out[n, 5] = scale * (SANDWICH * rest[1] / ny + (1.0 - SANDWICH) * rest[0] / pixels) / ny
        out[n, 6] = scale * (SANDWICH * rest[2] / nx + (1.0 - SANDWICH) * rest[0] / pixels) / nx


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
def _width_step(image: Image, model: Image, columns: FloatArray, sigma: float) -> float:
    """Newton step of the common width on what `model` leaves, heights and backgrounds free."""
    rows, cols = image.shape
    half = max(2, int(WINDOW_SIGMA * sigma))
    side = 2 * half + 1
    gy, gx, dy, dx = (
        np.empty(side, np.float32),
        np.empty(side, np.float32),
        np.empty(side, np.float32),
        np.empty(side, np.float32),
    )
    upper, lower = 0.0, 0.0
    for n in range(len(columns)):
        y, x, a = columns[n, 0], columns[n, 1], columns[n, 2]
        r0, c0 = int(y + 0.5), int(x + 0.5)
        if r0 < half or c0 < half or r0 + half >= rows or c0 + half >= cols or not a > 0.0:
            continue
        profile(y, r0 - half, sigma, gy, dy)
        profile(x, c0 - half, sigma, gx, dx)
        s1 = sg = sgg = sq = sgq = sqq = te = tge = tqe = 0.0
        for k in range(side):
            for j in range(side):
                square = dy[k] * dy[k] + dx[j] * dx[j]
                if square <= WINDOW_SIGMA * WINDOW_SIGMA:
                    g = gy[k] * gx[j]
                    q = g * square
                    e = image[r0 - half + k, c0 - half + j] - model[r0 - half + k, c0 - half + j]
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


def _fit_all(
    image: Image, model: Image, start: FloatArray, held: FloatArray, sigma: float, steps: int, peak: FloatArray,
    out: FloatArray, pool: FloatArray,
) -> None:  # fmt: skip
    """`_fit` in two halves, which have nothing to do with each other; the same halves however many lanes there are."""
    half = len(start) // 2
    if half < FEW_FOR_TWO:
        _fit(image, model, start, held, sigma, steps, peak, out, pool)
        return
    further = np.zeros_like(pool)
    with beside(
        lambda: _fit(image, model, start[half:], held[half:], sigma, steps, peak[half:], out[half:], further)
    ) as second:  # fmt: skip
        _fit(image, model, start[:half], held[:half], sigma, steps, peak[:half], out[:half], pool)
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
    _fit_all(
        image,
        _blank("never written", image.shape),
        start,
        np.zeros((len(start), 3)),
        column_sigma_px,
        1,
        start,
        out,
        np.empty(0),
    )
    # where a column is a few pixels wide, its peak is a better place than a fit that its neighbours pull
    return np.column_stack([start, np.where(out[:, 7] > 0, out[:, 2], 0.0)])


def first_fit(image: Image, yx_px: FloatArray, column_sigma_px: float, *, fit_width: bool) -> tuple[Image, FloatArray, float]:
    """One quick fit of columns at `yx_px` (N, 2): their image without background, (N, 3) of y, x, height, and their width."""
    held, sigma = quick_fit(image, yx_px, column_sigma_px), column_sigma_px
    model = _blank("first", image.shape)
    _render_all(held, column_sigma_px, model)
    for _ in range(2 if fit_width else 0):
        held, sigma, model = _rewiden(held, model, sigma, _width_step(image, model, _strongest(held), sigma))
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
    model, pool = _blank("second", image.shape), np.zeros(7)
    if first is None or not subtract:
        _fit_all(
            image, model, start, np.zeros((count, 3)), sigma, 1 if subtract else 2, start, out, pool[: 0 if subtract else 7]
        )
    else:
        out[:, :3], out[:, 7] = first, first[:, 2] > 0
    if subtract:
        held = np.where(out[:, 7:8] > 0, out[:, :3], 0.0)
        _render_all(held, sigma, model)
        if fit_width and np.count_nonzero(held[:, 2] > 0) >= 20:
            step = _width_step(image, model, _strongest(held), sigma)
            held, sigma, model = _rewiden(held, model, sigma, step)
        second = np.zeros_like(out)
        _fit_all(image, model, np.where(out[:, 7:8] > 0, out[:, :2], start), held, sigma, SECOND_STEPS, start, second, pool)
        out = second
    failed = out[:, 7] <= 0
    variance = out[:, 5:7] * _common(pool, 2 * max(2, int(WINDOW_SIGMA * sigma)) + 1)
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
