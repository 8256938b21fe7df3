"""Single atoms without a lattice: peaks beyond the frame's own noise tail, on the bright side more than on the dark side."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2, sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atomid_live.detect.dog_filter import band_pass, kernel_sums
from atomid_live.detect.levels import LEAST_SIGMA_PX, Level, Levels
from atomid_live.detect.near import nearest_px
from atomid_live.detect.peaks import find_peaks
from atomid_live.detect.scale import SMALLEST_SIGMA_PX, SPARSE_Z, SUPPRESS_SIGMA, Scale
from atomid_live.detect.stacked import stacked_sigma
from atomid_live.types import NAN, IntArray

Image = NDArray[np.float32]

SPARSE_EVIDENCE = 14.0
SURE_EVIDENCE, SURE_PART = 25.0, 0.86
FIRST_SIGMA_PX = 1.3


@dataclass(frozen=True, slots=True)
class Moments:
    """Standard deviation, skewness and excess kurtosis of an image's pixels."""

    deviation: float
    skew: float
    excess: float


@njit(nogil=True, cache=True, fastmath=True)
def _power_sums(image: Image, mean: float) -> tuple[float, float, float, float]:
    two, three, four, count = 0.0, 0.0, 0.0, 0.0
    centre = np.float32(mean)
    for r in range(0, image.shape[0], 2):
        for c in range(0, image.shape[1], 2):
            v = image[r, c] - centre
            square = v * v
            two += square
            three += square * v
            four += square * square
            count += 1.0
    return two, three, four, count


def moments(image: Image) -> Moments:
    """Of every second pixel along each axis; shape (rows, cols), float32."""
    two, three, four, count = _power_sums(np.ascontiguousarray(image), float(image[::2, ::2].mean()))
    variance = max(two / max(count, 1.0), 1e-30)
    return Moments(sqrt(variance), three / count / variance**1.5, four / count / variance**2 - 3.0)


def spread(image: Image) -> float:
    """Standard deviation of the bulk, from the median absolute deviation of every third pixel along each axis."""
    some = image[::3, ::3]
    return float(1.4826 * np.median(np.abs(some - np.median(some))))


def sparse_noise(response: Image, contrast: Image, column_sigma_px: float, shape: Moments | None = None) -> float:
    """Standard deviation of band-passed noise from the bulk of the pixels, at least that of white noise of equal variance.

    Where most pixels hold no electron, the median deviation alone would be nought.
    """
    white = sqrt(kernel_sums(column_sigma_px)[0]) * (shape.deviation if shape else float(contrast.std()))
    return float(max(spread(response), white, 1e-9))


def tail_threshold(shape: Moments, column_sigma_px: float, z: float = SPARSE_Z) -> float:
    """Deviations at which skewed white noise is as rare as Gaussian noise at `z` (Cornish and Fisher 1937).

    Few counts make rare bright pixels; their third and fourth cumulants come through the band-pass weakened.
    """
    two, three, four = kernel_sums(column_sigma_px)
    skew, excess = shape.skew * three / two**1.5, shape.excess * four / two**2
    skew, excess = min(max(skew, 0.0), 2.0), min(max(excess, 0.0), 6.0)
    shift = skew * (z**2 - 1) / 6 + excess * (z**3 - 3 * z) / 24 - skew**2 * (2 * z**3 - 5 * z) / 36
    return float(z + max(shift, 0.0))


def _evidence(level: Level, shape: Moments, sigma_px: float) -> tuple[float, float, IntArray]:
    """Evidence (bright minus twice dark), tail threshold, and bright peaks, at one width in pixels of the level."""
    response = band_pass(level.contrast, sigma_px)
    noise = sparse_noise(response, level.contrast, sigma_px, shape)
    tail = tail_threshold(shape, sigma_px)
    radius = SUPPRESS_SIGMA * sigma_px
    bright, high = find_peaks(response, tail * noise, radius)
    if not len(bright):
        return 0.0, tail, bright
    _, low = find_peaks(-response, tail * noise, radius)
    evidence = float(np.sum(high / noise - tail + 1.0) - 2.0 * np.sum(low / noise - tail + 1.0))
    return evidence, tail, bright


def _typical(yx: IntArray) -> float:
    """Median distance to the nearest neighbour; NaN under two points."""
    return float(np.median(nearest_px(yx.astype(np.float64), 8.0))) if len(yx) > 1 else NAN


def sparse_scale(levels: Levels) -> Scale:
    """Width of single atoms, by the width at which most stands out; kind "none" where nothing does.

    Every width is looked at where the frame is halved as often as it is still well sampled.
    """
    largest = min(levels.pixels.shape) / 24.0
    steps = max(1, int(2 * log2(max(largest / FIRST_SIGMA_PX, 1.0))) + 1)
    best, known = Scale(), dict[int, Moments]()
    for sigma in FIRST_SIGMA_PX * np.sqrt(2.0) ** np.arange(steps):
        level = levels.reduced(2 ** max(int(log2(sigma / LEAST_SIGMA_PX)), 0))
        here = level.sigma_px(float(sigma))
        if level.side not in known:
            known[level.side] = moments(level.contrast)
        evidence, tail, yx = _evidence(level, known[level.side], here)
        if evidence > max(SPARSE_EVIDENCE, best.evidence):
            fitted = stacked_sigma(level.image, yx, here) * level.side
            width = min(max(fitted, 0.75 * sigma), 1.35 * sigma) if np.isfinite(fitted) else sigma
            width = max(float(width), SMALLEST_SIGMA_PX)
            # once there are atoms beyond doubt, the threshold may go where they and the noise balance
            part = SURE_PART if evidence > SURE_EVIDENCE else 1.0
            best = Scale(width, _typical(yx) * level.side, evidence, "sparse", 1.0, NAN, tail * part)
    return best
