"""The slow relief of a frame: contamination, thickness, edges, far wider than a cell, and how well candidate shifts fit it.

The frame is smoothed until the lattice is gone. One cell more or less changes the difference to the reference only a little,
but over the whole frame: the correlation, with the number of independent samples, is evidence in nats. Planes are
taken off within the overlap: any filter tied to the frame would pull the answer towards no shift.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from atomid_live.drift.overlap import Image, accumulate
from atomid_live.drift.prepare import clip_outliers

FloatArray = NDArray[np.float64]

SMOOTH_CELLS = 0.6
LEAST_CELL = 3.2
CAUTION = 0.5
MOST_FRAMES = 16
STRIDE = 5
OUTLIER_SIGMAS = 3.0
MOST_ALIKE = 0.999


@njit(nogil=True, cache=True, fastmath=True)
def _row(
    here: NDArray[np.float32],
    top: NDArray[np.float32],
    bottom: NDArray[np.float32],
    fy: np.float32,
    fx: np.float32,
    span: tuple[int, int, int],
) -> tuple[float, float, float, float, float, float, float]:
    """Sums of r, r^2, r x, j, j^2, j x and j r along one row; x counts from the middle of the overlap."""
    one = np.float32(1)
    x0, x1, ix = span
    middle = np.float32(0.5 * (x0 + x1 - 1))
    r1 = r2 = rx = j1 = j2 = jx = jr = np.float32(0)
    for x in range(x0, x1):
        upper = (one - fx) * top[x + ix] + fx * top[x + ix + 1]
        lower = (one - fx) * bottom[x + ix] + fx * bottom[x + ix + 1]
        j = (one - fy) * upper + fy * lower
        r = here[x]
        u = np.float32(x) - middle
        r1 += r
        r2 += r * r
        rx += r * u
        j1 += j
        j2 += j * j
        jx += j * u
        jr += j * r
    return float(r1), float(r2), float(rx), float(j1), float(j2), float(jx), float(jr)


@njit(nogil=True, cache=True)
def _variances(reference: Image, image: Image, shift: tuple[float, float], margin: int, stride: int) -> NDArray[np.float64]:
    """Number of samples, and the variances of reference, image and difference about their planes, over the overlap."""
    dy, dx = shift
    iy, ix = math.floor(dy), math.floor(dx)
    fy, fx = np.float32(dy - iy), np.float32(dx - ix)
    rows, cols = reference.shape
    y0, y1 = max(margin, margin - iy), min(rows - margin, rows - margin - 1 - iy)
    x0, x1 = max(margin, margin - ix), min(cols - margin, cols - margin - 1 - ix)
    out = np.zeros(4)
    if y1 - y0 < 4 * stride or x1 - x0 < 4:
        return out
    total = np.zeros(9)
    lines, last = 0, 0
    for y in range(y0, y1, stride):
        lines, last = lines + 1, y
    middle = 0.5 * (y0 + last)
    for y in range(y0, y1, stride):
        row = _row(reference[y], image[y + iy], image[y + iy + 1], fy, fx, (x0, x1, ix))
        for k in range(7):
            total[k] += row[k]
        total[7] += row[0] * (y - middle)
        total[8] += row[3] * (y - middle)
    width = x1 - x0
    n = float(lines * width)
    var_x = (width * width - 1) / 12.0
    var_y = (lines * lines - 1) / 12.0 * stride * stride
    r1, r2, rx, j1, j2, jx, jr, ry, jy = total / n
    out[0] = n
    out[1] = r2 - r1 * r1 - rx * rx / var_x - ry * ry / var_y
    out[2] = j2 - j1 * j1 - jx * jx / var_x - jy * jy / var_y
    out[3] = r2 + j2 - 2 * jr - (j1 - r1) ** 2 - (jx - rx) ** 2 / var_x - (jy - ry) ** 2 / var_y
    return out


class Relief:
    """Rolling reference of the slow relief.

    Parameters
    ----------
    cell_px : float
        Shorter lattice vector in pixels of the working image.
    """

    def __init__(self, cell_px: float) -> None:
        self._factor = min(max(int(cell_px / LEAST_CELL), 1), 8)
        self._smooth = SMOOTH_CELLS * cell_px / self._factor
        self._mean: Image | None = None
        self._count: Image | None = None

    def of(self, binned: Image) -> Image:
        """Relief of a binned frame: smoothed until the lattice is gone, about its median."""
        size = (binned.shape[1] // self._factor, binned.shape[0] // self._factor)
        small = cv2.resize(binned, size, interpolation=cv2.INTER_AREA) if self._factor > 1 else binned
        smooth = cv2.GaussianBlur(small, (0, 0), self._smooth)
        level = np.float32(np.median(smooth[::5, ::5]))
        answer: Image = smooth - level
        clip_outliers(answer, OUTLIER_SIGMAS)
        return answer

    def begin(self, relief: Image) -> None:
        """Take one frame's relief as the reference."""
        self._mean, self._count = relief.copy(), np.ones_like(relief)

    def add(self, relief: Image, shift_yx: tuple[float, float]) -> None:
        """Let an aligned frame's relief into the mean."""
        if self._mean is not None and self._count is not None:
            f = self._factor
            accumulate(self._mean, self._count, relief, shift_yx[0] / f, shift_yx[1] / f, MOST_FRAMES)

    def move(self, relief: Image, moved: tuple[int, int], place_yx: FloatArray) -> None:
        """Follow a reference moved by whole working pixels; what comes into view is filled from the frame at `place_yx`."""
        if self._mean is None or self._count is None:
            return
        f = self._factor
        fresh, seen = np.zeros_like(self._mean), np.zeros_like(self._count)
        # the old mean is an image in which the new reference's features are found at minus the move
        accumulate(fresh, seen, self._mean, -moved[0] / f, -moved[1] / f, 1)
        age = np.zeros_like(self._count)
        accumulate(age, np.zeros_like(self._count), self._count, -moved[0] / f, -moved[1] / f, 1)
        own, there = np.zeros_like(self._mean), np.zeros_like(self._count)
        accumulate(own, there, relief, place_yx[0] / f, place_yx[1] / f, 1)
        known = seen > 0
        self._mean = np.where(known, fresh, np.where(there > 0, own, relief)).astype(np.float32)
        self._count = np.where(known, np.maximum(age, 1), np.float32(1)).astype(np.float32)

    def nats(self, relief: Image, shifts_yx: FloatArray) -> FloatArray:
        """Evidence of each shift against "nothing in common"; slightly negative where there is no relief."""
        answer = np.zeros(len(shifts_yx))
        if self._mean is None:
            return answer
        # a Gaussian of width s averages over 4 pi s^2 pixels
        independent = STRIDE / (4 * math.pi * self._smooth**2)
        margin = min(math.ceil(2 * self._smooth), min(relief.shape) // 8)
        for k, (dy, dx) in enumerate(shifts_yx / self._factor):
            number, mine, theirs, difference = _variances(self._mean, relief, (float(dy), float(dx)), margin, STRIDE)
            if mine > 0 and theirs > 0:
                like = min(max((mine + theirs - difference) / (mine + theirs), 0.0), MOST_ALIKE)
                samples = number * independent
                # profile likelihood of the difference against that of two reliefs of these variances with nothing in common
                # (the gain is the same: a relief seen half as high elsewhere is not the same relief), less what one free
                # parameter costs (Schwarz)
                answer[k] = -0.5 * CAUTION * samples * math.log1p(-like) - 0.5 * math.log1p(samples)
        return answer
