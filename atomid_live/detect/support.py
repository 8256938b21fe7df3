"""Where dose is low, a lattice helps the eye: what the map shows one lattice vector away from each peak."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from atomid_live.detect.peaks import find_peaks
from atomid_live.types import NAN, FloatArray, IntArray

Image = NDArray[np.float32]

FARTHEST_PX, LEAST_SIDE_PX = 44, 48
PART_OF_TALLEST = 0.6
MOST_VECTORS = 6
LEAST_PART = 0.2


def translations(confidence: Image, closest_px: float) -> IntArray:
    """Vectors by which a map repeats, from its autocorrelation: (K, 2) in map pixels, one of each +- pair, K up to 6.

    Peaks between two columns of one basis are about half as high as those of the lattice, so six tenths
    of the tallest leaves the lattice's own. Empty for small maps and where no peak has a fifth of the
    map's own power.

    Parameters
    ----------
    confidence : ndarray, shape (rows, cols), float32
    closest_px : float
        No two columns are nearer than this.
    """
    rows, cols = confidence.shape
    if min(rows, cols) < LEAST_SIDE_PX:
        return np.empty((0, 2), np.int64)
    window = np.hanning(rows)[:, None] * np.hanning(cols)
    seen = ((confidence - confidence.mean()) * window).astype(np.float32)
    size = (fft.next_fast_len(rows, real=True), fft.next_fast_len(cols, real=True))
    lag = np.asarray(fft.irfft2(np.abs(fft.rfft2(seen, s=size)) ** 2, s=size), np.float32)
    reach = min(FARTHEST_PX, min(rows, cols) // 3)
    half = np.concatenate([lag[: reach + 1, -reach:], lag[: reach + 1, : reach + 1]], 1)
    yx, height = find_peaks(half, 0.0, closest_px)
    step = yx - np.array([0, reach])
    far = np.hypot(*step.T)
    inner = (far >= closest_px) & (far < reach) & (step[:, 0] < reach) & ((step[:, 0] > 0) | (step[:, 1] > 0))
    step, height = step[inner], height[inner]
    if not len(height) or height[0] < LEAST_PART * lag[0, 0]:
        return np.empty((0, 2), np.int64)
    return np.asarray(step[height >= PART_OF_TALLEST * height[0]][:MOST_VECTORS])


def support(confidence: Image, yx_px: FloatArray, vectors: IntArray) -> FloatArray:
    """Mean of the map at the places to which lattice vectors take each peak (N, 2), shape (N,); NaN without any on the map.

    A place is the tallest of 3x3 pixels, so that distortion, jitter and rounding do not miss it.
    """
    if not len(vectors) or not len(yx_px):
        return np.full(len(yx_px), NAN)
    tall = cv2.dilate(confidence, np.ones((3, 3), np.uint8))
    both = np.concatenate([vectors, -vectors])
    place = np.rint(yx_px).astype(np.int64)[:, None, :] + both
    there = ((place >= 0) & (place < np.array(confidence.shape))).all(2)
    place = np.clip(place, 0, np.array(confidence.shape) - 1)
    value = np.where(there, tall[place[..., 0], place[..., 1]], 0.0)
    count = there.sum(1)
    return np.asarray(np.where(count > 0, value.sum(1) / np.maximum(count, 1), NAN))
