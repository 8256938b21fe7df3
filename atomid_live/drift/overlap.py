"""Serial kernels over the overlap of an image with a reference: residual displacement, running mean, samples at points.

All take the shift as (dy, dx): pixel p of the reference is compared with p + shift of the image, read bilinearly. The
fraction of the shift is the same for every pixel, so the four weights are constants of the loop.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Image = NDArray[np.float32]

MARGIN = 2
SUMS = 10


@njit(nogil=True, cache=True)
def _span(size: int, shift: float, margin: int) -> tuple[int, int]:
    whole = math.floor(shift)
    return max(margin, margin - whole), min(size - margin, size - margin - whole - 1)


@njit(nogil=True, cache=True, fastmath=True)
def _row_sums(
    reference: Image, image: Image, y: int, iy: int, ix: int, weights: tuple[float, float, float, float], x0: int, x1: int
) -> tuple[float, float, float, float, float, float, float, float, float, float]:
    a, b, c, d = (np.float32(weights[0]), np.float32(weights[1]), np.float32(weights[2]), np.float32(weights[3]))
    quarter, half, two = np.float32(0.25), np.float32(0.5), np.float32(2)
    yy = xx = yx = yd = xd = rr = jj = rj = gy2 = gx2 = np.float32(0)
    top, bottom = image[y + iy], image[y + iy + 1]
    up2, up, here, down, down2 = reference[y - 2], reference[y - 1], reference[y], reference[y + 1], reference[y + 2]
    for x in range(x0, x1):
        value = a * top[x + ix] + b * top[x + ix + 1] + c * bottom[x + ix] + d * bottom[x + ix + 1]
        r = here[x]
        gy = (down[x] - up[x]) * half
        gx = (here[x + 1] - here[x - 1]) * half
        difference = value - r
        yy -= (down2[x] - two * r + up2[x]) * quarter * value
        xx -= (here[x + 2] - two * r + here[x - 2]) * quarter * value
        yx -= (down[x + 1] - down[x - 1] - up[x + 1] + up[x - 1]) * quarter * value
        yd += gy * difference
        xd += gx * difference
        rr += r * r
        jj += value * value
        rj += r * value
        gy2 += gy * gy
        gx2 += gx * gx
    return float(yy), float(xx), float(yx), float(yd), float(xd), float(rr), float(jj), float(rj), float(gy2), float(gx2)


@njit(nogil=True, cache=True)
def overlap_sums(reference: Image, image: Image, dy: float, dx: float, blocks: int, stride: int) -> NDArray[np.float64]:
    """Sum what a least-squares displacement needs, per horizontal block of the overlap.

    Returns
    -------
    ndarray, shape (blocks, 10), float64
        With j the shifted image, r the reference, g its gradient and h its second derivative: sums of -hyy j, -hxx j, -hyx j,
        gy (j - r), gx (j - r), r r, j j, r j, gy gy, gx gx; all zero where there is no overlap.

    Notes
    -----
    By partial summation -h j sums to the product of the gradients of both images, whose noises are independent: unlike g g it
    is the curvature of the signal alone, so the displacement is not made too small by a noisy reference.
    """
    sums = np.zeros((blocks, SUMS))
    iy, ix = math.floor(dy), math.floor(dx)
    fy, fx = dy - iy, dx - ix
    weights = ((1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx)
    y0, y1 = _span(reference.shape[0], dy, MARGIN)
    x0, x1 = _span(reference.shape[1], dx, MARGIN)
    if y1 <= y0 or x1 <= x0:
        return sums
    for y in range(y0, y1, stride):
        block = (y - y0) * blocks // (y1 - y0)
        row = _row_sums(reference, image, y, iy, ix, weights, x0, x1)
        for k in range(SUMS):
            sums[block, k] += row[k]
    return sums


@njit(nogil=True, cache=True, fastmath=True)
def accumulate(mean: Image, count: Image, image: Image, dy: float, dx: float, most: float) -> None:
    """Put the shifted image into the running mean, in place; beyond `most` frames the mean forgets exponentially."""
    iy, ix = math.floor(dy), math.floor(dx)
    fy, fx = dy - iy, dx - ix
    a, b = np.float32((1 - fy) * (1 - fx)), np.float32((1 - fy) * fx)
    c, d = np.float32(fy * (1 - fx)), np.float32(fy * fx)
    y0, y1 = _span(mean.shape[0], dy, 0)
    x0, x1 = _span(mean.shape[1], dx, 0)
    one, limit = np.float32(1), np.float32(most)
    for y in range(y0, y1):
        top, bottom = image[y + iy], image[y + iy + 1]
        for x in range(x0, x1):
            value = a * top[x + ix] + b * top[x + ix + 1] + c * bottom[x + ix] + d * bottom[x + ix + 1]
            number = min(count[y, x] + one, limit)
            mean[y, x] += (value - mean[y, x]) / number
            count[y, x] = number


@njit(nogil=True, cache=True)
def _cubic(f: float) -> tuple[float, float, float, float]:
    """Catmull-Rom weights at fraction f between the second and third of four points."""
    g = f * f
    h = g * f
    return -0.5 * h + g - 0.5 * f, 1.5 * h - 2.5 * g + 1.0, -1.5 * h + 2.0 * g + 0.5 * f, 0.5 * h - 0.5 * g


@njit(nogil=True, cache=True)
def sample(image: Image, y: float, x: float) -> float:
    """Value of the image by cubic convolution; NaN nearer than two pixels to the border.

    Bilinear reading flattens a column by several per cent depending on where it sits between pixels, which on a sharp image
    would look like a defect that repeats with the moire of lattice and pixels.
    """
    iy, ix = math.floor(y), math.floor(x)
    if iy < 1 or ix < 1 or iy >= image.shape[0] - 2 or ix >= image.shape[1] - 2:
        return math.nan
    wy, wx = _cubic(y - iy), _cubic(x - ix)
    value = 0.0
    for v in range(4):
        row = image[iy - 1 + v]
        value += wy[v] * (wx[0] * row[ix - 1] + wx[1] * row[ix] + wx[2] * row[ix + 1] + wx[3] * row[ix + 2])
    return value


@njit(nogil=True, cache=True)
def star_residual(image: Image, points: NDArray[np.int64], translates_yx: NDArray[np.float64]) -> NDArray[np.float64]:
    """Image minus the mean of its translates at some pixels, read by cubic convolution; 0 where one falls outside."""
    out = np.zeros(len(points))
    for k in range(len(points)):
        y, x = points[k, 0], points[k, 1]
        total = 0.0
        for t in range(len(translates_yx)):
            total += sample(image, y + translates_yx[t, 0], x + translates_yx[t, 1])
        if not math.isnan(total):
            out[k] = image[y, x] - total / len(translates_yx)
    return out


@njit(nogil=True, cache=True, fastmath=True)
def lattice_residual(image: Image, translates_yx: NDArray[np.float64]) -> Image:
    """Image minus the mean of its translates: what does not repeat with the lattice (0 where a translate falls outside)."""
    rows, cols = image.shape
    out = np.zeros((rows, cols), np.float32)
    reach_y, reach_x = 0, 0
    for k in range(len(translates_yx)):
        reach_y = max(reach_y, math.ceil(abs(translates_yx[k, 0])) + 1)
        reach_x = max(reach_x, math.ceil(abs(translates_yx[k, 1])) + 1)
    share = np.float32(1.0 / len(translates_yx))
    for y in range(reach_y, rows - reach_y):
        line = out[y]
        for x in range(reach_x, cols - reach_x):
            line[x] = image[y, x]
        for k in range(len(translates_yx)):
            iy, ix = math.floor(translates_yx[k, 0]), math.floor(translates_yx[k, 1])
            fy, fx = translates_yx[k, 0] - iy, translates_yx[k, 1] - ix
            a, b = np.float32((1 - fy) * (1 - fx)) * share, np.float32((1 - fy) * fx) * share
            c, d = np.float32(fy * (1 - fx)) * share, np.float32(fy * fx) * share
            top, bottom = image[y + iy], image[y + iy + 1]
            for x in range(reach_x, cols - reach_x):
                line[x] -= a * top[x + ix] + b * top[x + ix + 1] + c * bottom[x + ix] + d * bottom[x + ix + 1]
    return out


@njit(nogil=True, cache=True)
def slope_samples(mean: Image, residual: Image, count: Image, stride: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Squared slope of what repeats (mean - residual), and |residual| sqrt(count), at every `stride`-th pixel that has one."""
    rows, cols = mean.shape
    slope = np.empty((rows // stride + 1) * (cols // stride + 1), np.float32)
    size = np.empty_like(slope)
    number = 0
    for y in range(stride, rows - 1, stride):
        for x in range(stride, cols - 1, stride):
            if residual[y, x] != 0:
                gy = mean[y + 1, x] - residual[y + 1, x] - mean[y - 1, x] + residual[y - 1, x]
                gx = mean[y, x + 1] - residual[y, x + 1] - mean[y, x - 1] + residual[y, x - 1]
                slope[number] = gy * gy + gx * gx
                size[number] = abs(residual[y, x]) * math.sqrt(count[y, x])
                number += 1
    return slope[:number], size[:number]


@njit(nogil=True, cache=True, fastmath=True)
def sharpness_map(mean: Image, residual: Image, count: Image, rise: float) -> Image:
    """One over the noise of each pixel of a mean of `count` frames: sqrt(count / (1 + rise slope^2))."""
    rows, cols = mean.shape
    out = np.empty((rows, cols), np.float32)
    part, one = np.float32(rise), np.float32(1)
    for y in range(rows):
        for x in range(cols):
            out[y, x] = count[y, x]
        if 0 < y < rows - 1:
            for x in range(1, cols - 1):
                gy = mean[y + 1, x] - residual[y + 1, x] - mean[y - 1, x] + residual[y - 1, x]
                gx = mean[y, x + 1] - residual[y, x + 1] - mean[y, x - 1] + residual[y, x - 1]
                out[y, x] /= one + part * (gy * gy + gx * gx)
        for x in range(cols):
            out[y, x] = np.sqrt(out[y, x])
    return out


@njit(nogil=True, cache=True)
def local_extremes(image: Image, least: float, most: int) -> NDArray[np.int64]:
    """Pixels (y, x) whose absolute value exceeds `least` and all eight neighbours, in reading order, at most `most`."""
    found = np.empty((most, 2), np.int64)
    number = 0
    for y in range(1, image.shape[0] - 1):
        for x in range(1, image.shape[1] - 1):
            value = abs(image[y, x])
            if value <= least:
                continue
            top = True
            for v in range(y - 1, y + 2):
                for u in range(x - 1, x + 2):
                    if (v != y or u != x) and abs(image[v, u]) >= value:
                        top = False
            if top:
                found[number, 0], found[number, 1] = y, x
                number += 1
                if number == most:
                    return found
    return found[:number]


@njit(nogil=True, cache=True)
def sample_cells(
    image: Image, points_yx: NDArray[np.float64], a_yx: NDArray[np.float64], b_yx: NDArray[np.float64], reach: int
) -> NDArray[np.float64]:
    """Values at each point moved by every i a + j b with |i|, |j| <= reach; shape (points, 2 reach + 1, 2 reach + 1)."""
    size = 2 * reach + 1
    values = np.empty((len(points_yx), size, size))
    for k in range(len(points_yx)):
        for i in range(size):
            for j in range(size):
                y = points_yx[k, 0] + (i - reach) * a_yx[0] + (j - reach) * b_yx[0]
                x = points_yx[k, 1] + (i - reach) * a_yx[1] + (j - reach) * b_yx[1]
                values[k, i, j] = sample(image, y, x)
    return values
