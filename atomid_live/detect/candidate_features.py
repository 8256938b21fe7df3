"""What a quick fit of each candidate says about whether it is a column: numbers without units, for a judge that is learned.

Every number is a ratio, so that gain, offset and magnification of a frame do not enter.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import nan, pi, sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atomid_live.detect.refine import FIRST_HALF_SIGMA, profile, solve4, sums
from atomid_live.lattice.grid import Bins, sort_into_bins
from atomid_live.types import FloatArray

Image = NDArray[np.float32]

# the height that bright columns of a frame have: a quarter of the candidates is taller
TYPICAL_QUANTILE = 0.75
FARTHEST_STEP, MOST_STEP = 1.0, 0.5
NEIGHBOUR_SIGMA = 6.0
LEAST_PIXELS = 8
MOST_SIGNIFICANT = 1e3


@dataclass(frozen=True, slots=True, eq=False)
class CandidateFeatures:
    """One entry per candidate, in the order given; NaN only for a candidate of which fewer than nine pixels are on the frame.

    "Height" is that of a Gaussian of the frame's column width on a constant, by one linear step of the fit in a square
    window of 1.77 widths to each side, neighbours not subtracted.

    Attributes
    ----------
    d_prime : ndarray, shape (N,), float64
        Height over noise, times sqrt(pi) column widths in pixels: the significance a matched filter would have. The noise is
        what the fit leaves. Negative where the pixels are darker than around them; between -1000 and 1000.
    relative_height : ndarray, shape (N,), float64
        Height over the height that a quarter of the frame's candidates exceed.
    misfit : ndarray, shape (N,), float64
        Reduced chi squared: mean square of what the fit leaves over half the mean square of its differences between next
        pixels, which holds the noise and no smooth structure. About 1 for a column in white noise; larger on a slope, beside
        an unexplained neighbour, on a column of another width, and in coloured noise.
    shift : ndarray, shape (N,), float64
        How far one step of the fit moves, in column widths; 1 at most, and 1 where the height is not positive.
    slope : ndarray, shape (N,), float64
        Difference that the fit leaves between opposite sides of the window, over the typical height.
    background : ndarray, shape (N,), float64
        Level under the candidate minus the median of such levels, over the typical height: low in holes, high on dirt.
    nearest : ndarray, shape (N,), float64
        Distance to the nearest other candidate in column widths; at most 6.
    nearest_height : ndarray, shape (N,), float64
        Height of the tallest other candidate within 6 widths, over the typical height; 0 without one.
    inside : ndarray, shape (N,), float64
        Part of the window that is on the frame.
    """

    d_prime: FloatArray = field(repr=False)
    relative_height: FloatArray = field(repr=False)
    misfit: FloatArray = field(repr=False)
    shift: FloatArray = field(repr=False)
    slope: FloatArray = field(repr=False)
    background: FloatArray = field(repr=False)
    nearest: FloatArray = field(repr=False)
    nearest_height: FloatArray = field(repr=False)
    inside: FloatArray = field(repr=False)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the features, in the order of the columns of `table`."""
        return tuple(each.name for each in fields(cls))

    def table(self) -> FloatArray:
        """All features side by side, shape (N, 9)."""
        return np.column_stack([getattr(self, name) for name in self.names()])


@njit(nogil=True, cache=True, fastmath=True)
def _left_over(patch: Image, size: tuple[int, int], g: Image, d: Image, values: FloatArray, out: FloatArray) -> None:
    """Squares and squared differences of what a linear step leaves, and the means along the four sides of the window."""
    high, wide = size
    gy, gx, dy, dx = g[0], g[1], d[0], d[1]
    height, level = np.float32(values[0]), np.float32(values[1])
    bend_y, bend_x = np.float32(values[2]), np.float32(values[3])
    square, steps, above, below, west, east = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(high):
        a, c = (height + bend_y * dy[k]) * gy[k], bend_x * gy[k]
        plain = changed = line = np.float32(0.0)
        row, above_it = patch[k, :wide], patch[max(k - 1, 0), :wide]
        for j in range(wide):
            e = row[j] - level - (a + c * dx[j]) * gx[j]
            row[j] = e
            plain += e * e
            line += e
        for j in range(wide - 1):
            changed += (row[j + 1] - row[j]) ** 2
        for j in range(wide):
            changed += (row[j] - above_it[j]) ** 2
        square += float(plain)
        steps += float(changed)
        above += float(line) if k == 0 else 0.0
        below += float(line) if k == high - 1 else 0.0
        west += float(row[0])
        east += float(row[wide - 1])
    out[0], out[1] = square, steps / (high * (wide - 1) + wide * (high - 1))
    out[2] = sqrt(((below - above) / wide) ** 2 + ((east - west) / high) ** 2)


@njit(nogil=True, cache=True, fastmath=True)
def _quick(image: Image, yx: FloatArray, sigma: float, out: FloatArray) -> None:
    """Rows of `out`: height, level, residual noise, misfit, shift in widths, difference of sides, part inside, new y and x.

    The step is the first one of `detect.refine`; what cannot be fitted stays NaN.
    """
    rows, cols = image.shape
    half = max(2, int(FIRST_HALF_SIGMA * sigma))
    side = 2 * half + 1
    g, d = np.empty((2, side), np.float32), np.empty((2, side), np.float32)
    gy, dy, gx, dx = g[0], d[0], g[1], d[1]
    line, bent = np.empty(side, np.float32), np.empty(side, np.float32)
    patch = np.empty((side, side), np.float32)
    m, v, sy, sx, rest = np.empty((4, 4)), np.empty(4), np.empty(5), np.empty(5), np.empty(3)
    for n in range(len(yx)):
        y, x = yx[n, 0], yx[n, 1]
        r0, c0 = int(np.floor(y + 0.5)) - half, int(np.floor(x + 0.5)) - half
        r1, c1 = min(r0 + side, rows), min(c0 + side, cols)
        r0, c0 = max(r0, 0), max(c0, 0)
        # loops from zero let the compiler see that no index is negative, which makes them three times as fast
        high, wide = max(r1 - r0, 0), max(c1 - c0, 0)
        pixels = high * wide
        out[n, 6] = pixels / (side * side)
        if pixels <= LEAST_PIXELS:
            continue
        profile(y, r0, sigma, gy, dy)
        profile(x, c0, sigma, gx, dx)
        sums(gy, dy, high, sy)
        sums(gx, dx, wide, sx)
        # a level near the candidate's own keeps the digits of float32
        zero = image[r0 + high // 2, c0 + wide // 2]
        for j in range(wide):
            line[j] = bent[j] = np.float32(0.0)
        total = 0.0
        for k in range(high):
            w, wh, part = gy[k], gy[k] * dy[k], np.float32(0.0)
            pixel, copy = image[r0 + k, c0:c1], patch[k, :wide]
            for j in range(wide):
                p = pixel[j] - zero
                copy[j] = p
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
        if not solve4(m, v):
            continue
        _left_over(patch, (high, wide), g, d, v, rest)
        variance = rest[0] / (pixels - 4)
        out[n, 0], out[n, 1], out[n, 2] = v[0], v[1] + zero, sqrt(variance)
        out[n, 3] = 2.0 * variance / rest[1] if rest[1] > 0.0 else 1.0
        moved = sqrt(v[2] ** 2 + v[3] ** 2)
        out[n, 4] = moved / v[0] if v[0] > 0.0 and moved < FARTHEST_STEP * v[0] else FARTHEST_STEP
        out[n, 5] = rest[2]
        if v[0] > 0.0:
            out[n, 7] = y + sigma * min(max(v[2] / v[0], -MOST_STEP), MOST_STEP)
            out[n, 8] = x + sigma * min(max(v[3] / v[0], -MOST_STEP), MOST_STEP)


@njit(nogil=True, cache=True)
def _company(yx: FloatArray, height: FloatArray, bins: Bins, out: FloatArray) -> None:
    """Squared distance of the nearest other candidate, and the tallest within one bin's side; rows of `out`."""
    order, start, size, rows, cols = bins.order, bins.start, bins.size_px, bins.rows, bins.cols
    low_y, low_x = bins.low_yx_px
    for i in range(len(yx)):
        r0 = min(rows - 1, int((yx[i, 0] - low_y) / size))
        c0 = min(cols - 1, int((yx[i, 1] - low_x) / size))
        best, tallest = size * size, 0.0
        for r in range(max(0, r0 - 1), min(rows, r0 + 2)):
            for c in range(max(0, c0 - 1), min(cols, c0 + 2)):
                for k in range(start[r * cols + c], start[r * cols + c + 1]):
                    j = order[k]
                    d = (yx[j, 0] - yx[i, 0]) ** 2 + (yx[j, 1] - yx[i, 1]) ** 2
                    if j != i and d <= size * size:
                        best = min(best, d)
                        if height[j] > tallest:
                            tallest = height[j]
        out[i, 0], out[i, 1] = best, tallest


def _typical(height: FloatArray) -> float:
    """Height that a quarter of the candidates exceed; the largest size of one where those are dark; 1 on flat pixels."""
    if not len(height):
        return 1.0
    tall = float(np.quantile(height, TYPICAL_QUANTILE))
    return tall if tall > 0 else float(np.abs(height).max()) or 1.0


def fitted_candidates(image: Image, yx_px: FloatArray, column_sigma_px: float) -> tuple[CandidateFeatures, FloatArray]:
    """Judge every candidate by one linear step of the fit on the pixels.

    Parameters
    ----------
    image : ndarray, shape (rows, cols), float32
        Full resolution, finite, columns bright.
    yx_px : ndarray, shape (N, 2), float64
        Candidates, in pixels of the image.
    column_sigma_px : float
        Width of a column.

    Returns
    -------
    CandidateFeatures
    ndarray, shape (N, 3), float64
        y, x and height after the step, as `detect.refine.refine` takes them for its first pass; height 0 where it failed.
    """
    fit, near = np.full((len(yx_px), 9), nan), np.empty((len(yx_px), 2))
    place, sigma = np.ascontiguousarray(yx_px, np.float64), float(column_sigma_px)
    if not len(place):
        return CandidateFeatures(*(np.empty(0) for _ in CandidateFeatures.names())), np.empty((0, 3))
    _quick(image, place, sigma, fit)
    height, level, noise = fit[:, 0], fit[:, 1], fit[:, 2]
    known = np.isfinite(height)
    typical = _typical(height[known])
    middle = float(np.median(level[known])) if known.any() else nan
    bins = sort_into_bins(place, NEIGHBOUR_SIGMA * sigma)
    _company(place, height, bins, near)
    # pixels without noise show any height for certain
    least = np.maximum(noise, sqrt(pi) * sigma * np.abs(height) / MOST_SIGNIFICANT)
    told = CandidateFeatures(
        sqrt(pi) * sigma * height / np.where(least > 0, least, 1.0),
        height / typical,
        fit[:, 3],
        fit[:, 4],
        fit[:, 5] / typical,
        (level - middle) / typical,
        np.minimum(np.sqrt(near[:, 0]) / sigma, NEIGHBOUR_SIGMA),
        near[:, 1] / typical,
        fit[:, 6],
    )
    stays = np.asarray(((fit[:, 7:] >= -0.5) & (fit[:, 7:] <= np.array(image.shape) - 0.5)).all(1))
    moved = np.column_stack([np.where(stays[:, None], fit[:, 7:], place), np.where(stays, height, 0.0)])
    return told, moved


def candidate_features(image: Image, yx_px: FloatArray, column_sigma_px: float) -> CandidateFeatures:
    """Judge every candidate: the first part of `fitted_candidates`."""
    return fitted_candidates(image, yx_px, column_sigma_px)[0]
