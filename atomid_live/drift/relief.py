"""The slow relief of a frame: contamination, thickness, edges, far wider than a cell, and how well candidate shifts fit it.

The frame is smoothed until the lattice is gone. One cell more or less changes the difference to the reference only a little,
but over the whole frame: the ratio of variances, times the number of independent samples, is evidence in nats.
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
SHADING_PIXELS = 24
CAUTION = 0.5
MOST_FRAMES = 16
STRIDE = 3
OUTLIER_SIGMAS = 3.0
SHADING_WIDTH = 6.0


@njit(nogil=True, cache=True, fastmath=True)
def _differences(reference: Image, image: Image, dy: float, dx: float, stride: int) -> tuple[float, float, float, float]:
    """Number, mean square difference about its mean, and both images' variances over the overlap."""
    iy, ix = math.floor(dy), math.floor(dx)
    fy, fx = np.float32(dy - iy), np.float32(dx - ix)
    one = np.float32(1)
    rows, cols = reference.shape
    y0, y1 = max(1, 1 - iy), min(rows - 1, rows - 2 - iy)
    x0, x1 = max(1, 1 - ix), min(cols - 1, cols - 2 - ix)
    d1 = d2 = r1 = r2 = j1 = j2 = 0.0
    number = 0
    for y in range(y0, y1, stride):
        top, bottom, here = image[y + iy], image[y + iy + 1], reference[y]
        sd = sdd = sr = srr = sj = sjj = np.float32(0)
        for x in range(x0, x1):
            upper = (one - fx) * top[x + ix] + fx * top[x + ix + 1]
            lower = (one - fx) * bottom[x + ix] + fx * bottom[x + ix + 1]
            j = (one - fy) * upper + fy * lower
            r = here[x]
            sd += j - r
            sdd += (j - r) * (j - r)
            sr += r
            srr += r * r
            sj += j
            sjj += j * j
        d1, d2, r1 = d1 + float(sd), d2 + float(sdd), r1 + float(sr)
        r2, j1, j2 = r2 + float(srr), j1 + float(sj), j2 + float(sjj)
        number += max(x1 - x0, 0)
    if number < 10:
        return 0.0, 0.0, 0.0, 0.0
    return (
        float(number),
        d2 / number - (d1 / number) ** 2,
        r2 / number - (r1 / number) ** 2,
        j2 / number - (j1 / number) ** 2,
    )


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
        """Relief of a binned frame: lattice and shading removed."""
        size = (binned.shape[1] // self._factor, binned.shape[0] // self._factor)
        small = cv2.resize(binned, size, interpolation=cv2.INTER_AREA) if self._factor > 1 else binned
        smooth = cv2.GaussianBlur(small, (0, 0), self._smooth)
        tiny = cv2.resize(smooth, (SHADING_PIXELS, SHADING_PIXELS), interpolation=cv2.INTER_AREA)
        shading = cv2.resize(
            cv2.GaussianBlur(tiny, (0, 0), SHADING_PIXELS / SHADING_WIDTH), size, interpolation=cv2.INTER_LINEAR
        )
        answer: Image = np.subtract(smooth, shading, out=smooth if self._factor > 1 else None)
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
        """Evidence of each shift against "nothing in common"; zero where there is no relief."""
        answer = np.zeros(len(shifts_yx))
        if self._mean is None:
            return answer
        # a Gaussian of width s averages over 4 pi s^2 pixels
        independent = STRIDE / (4 * math.pi * self._smooth**2)
        for k, (dy, dx) in enumerate(shifts_yx / self._factor):
            number, difference, mine, theirs = _differences(self._mean, relief, float(dy), float(dx), STRIDE)
            if difference > 0 and mine + theirs > 0:
                answer[k] = -0.5 * CAUTION * number * independent * math.log(difference / (mine + theirs))
        return answer
