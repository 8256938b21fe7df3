"""FindFoci, written from the description of Herbert, Carr and Hoffmann, PLoS ONE 9, e114749 (2014).

Every pixel above the background belongs to the maximum that steepest ascent leads to; a maximum that rises too little above the
highest saddle towards another one, or whose area is too small, is merged into that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from time import perf_counter
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from atomid_live.evaluate.rivals.oracle import best
from atomid_live.evaluate.scenes.truth import SceneImage
from atomid_live.evaluate.scoring import Answer
from atomid_live.types import FloatArray, IntArray

Image = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Options:
    """Parameters of FindFoci.

    Attributes
    ----------
    background : float
        Part of the way from the darkest to the brightest pixel of the blurred image; what is below is background.
    blur_px : float
        Standard deviation of the Gaussian.
    peak_part : float
        Height above the highest saddle that a maximum needs, as a part of its height above the background.
    least_pixels : int
        Smallest area of a peak.
    """

    background: float = 0.2
    blur_px: float = 1.5
    peak_part: float = 0.5
    least_pixels: int = 10


# One set for every magnification, in the middle of the thesis's ranges (background 0.1-0.3, blur 0.8-2, at least 10 pixels).
FIXED = Options()
SEARCH = tuple(Options(*values) for values in product((0.1, 0.3), (0.8, 1.4, 2.4, 4.0), (0.25, 0.5), (10,)))


@njit(nogil=True, cache=True)
def _climb(image: Image, order: IntArray, label: IntArray, saddles: IntArray, saddle_height: FloatArray) -> tuple[int, int]:
    """Label pixels in descending order; returns how many peaks and saddles there are.

    A pixel takes the label of its highest labelled neighbour; where two labels meet, the pixel is a saddle between them.
    """
    rows, cols = image.shape
    peaks, count = 0, 0
    for n in range(len(order)):
        r, c = order[n] // cols, order[n] % cols
        top, mine = -1.0e300, -1
        for dr in range(-1, 2):
            for dc in range(-1, 2):
                y, x = r + dr, c + dc
                if 0 <= y < rows and 0 <= x < cols and label[y, x] >= 0 and image[y, x] > top:
                    top, mine = image[y, x], label[y, x]
        if mine < 0:
            mine = peaks
            peaks += 1
        label[r, c] = mine
        for dr in range(-1, 2):
            for dc in range(-1, 2):
                y, x = r + dr, c + dc
                if 0 <= y < rows and 0 <= x < cols and label[y, x] >= 0 and label[y, x] != mine and count < len(saddles):
                    saddles[count, 0], saddles[count, 1] = mine, label[y, x]
                    saddle_height[count] = image[r, c]
                    count += 1
    return peaks, count


@njit(nogil=True, cache=True)
def _root(parent: IntArray, k: int) -> int:
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


@njit(nogil=True, cache=True)
def _merge(
    parent: IntArray, height: FloatArray, area: IntArray, pairs: IntArray, saddle: FloatArray, background: float, part: float,
    least: int,
) -> None:  # fmt: skip
    """Merge by height over the saddle, highest saddle first, then by area; peak numbers ascend as heights descend."""
    for n in range(len(saddle)):
        a, b = _root(parent, pairs[n, 0]), _root(parent, pairs[n, 1])
        if a == b:
            continue
        if a > b:
            a, b = b, a
        if height[b] - saddle[n] < part * (height[b] - background):
            parent[b] = a
            area[a] += area[b]
    for n in range(len(saddle)):
        a, b = _root(parent, pairs[n, 0]), _root(parent, pairs[n, 1])
        if a != b and (area[a] < least or area[b] < least):
            if a > b:
                a, b = b, a
            parent[b] = a
            area[a] += area[b]


def find_foci(image: NDArray[Any], options: Options) -> FloatArray:
    """Return maxima (N, 2), whole pixels, brightest first.

    Parameters
    ----------
    image : ndarray, shape (rows, cols)
    options : Options
    """
    smooth = np.ascontiguousarray(gaussian_filter(np.asarray(image, np.float64), options.blur_px, mode="nearest"))
    low, high = float(smooth.min()), float(smooth.max())
    background = low + options.background * (high - low)
    flat = smooth.ravel()
    above = np.flatnonzero(flat > background)
    order = above[np.argsort(-flat[above], kind="stable")].astype(np.int64)
    label = np.full(smooth.shape, -1, np.int64)
    saddles, saddle_height = np.empty((6 * len(order) + 1, 2), np.int64), np.empty(6 * len(order) + 1)
    peaks, count = _climb(smooth, order, label, saddles, saddle_height)
    if not peaks:
        return np.empty((0, 2))
    inside = label.ravel()[order]
    first = order[np.unique(inside, return_index=True)[1]]
    height, area = flat[first], np.bincount(inside, minlength=peaks).astype(np.int64)
    pairs = np.sort(saddles[:count], axis=1)
    _, once = np.unique(pairs[:, 0] * peaks + pairs[:, 1], return_index=True)
    once.sort()
    parent = np.arange(peaks, dtype=np.int64)
    _merge(parent, height, area, pairs[once], saddle_height[once], background, options.peak_part, options.least_pixels)
    kept = np.flatnonzero((parent == np.arange(peaks)) & (area >= options.least_pixels))
    return np.stack([first[kept] // smooth.shape[1], first[kept] % smooth.shape[1]], 1).astype(np.float64)


def _timed(image: NDArray[Any], options: Options) -> Answer:
    start = perf_counter()
    found = find_foci(image, options)
    note = f"background {options.background:g}, blur {options.blur_px:g} px, peak {options.peak_part:g}"
    return Answer(found, timings_ms={"FindFoci": 1e3 * (perf_counter() - start)}, note=note)


def _tries(image: NDArray[Any]) -> Iterator[Answer]:
    for options in SEARCH:
        yield _timed(image, options)


def findfoci_fixed(scene: SceneImage) -> Answer:
    """FindFoci with the one set of parameters."""
    return _timed(scene.pixels, FIXED)


def findfoci_best(scene: SceneImage) -> Answer:
    """FindFoci with the best set for this image."""
    chosen = best(_tries(scene.pixels), scene)
    return chosen if chosen is not None else Answer(np.empty((0, 2)))
