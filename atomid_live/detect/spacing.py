"""The scale of a frame from its pixels alone: width and spacing of columns, or the safe answer that there are none.

A lattice shows as Bragg spots that stand out of the frame's own noise spectrum. Without one, columns must beat the
Gaussian tail of the band-passed frame on the bright side more than on the dark side: noise of any colour does neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from atomid_live.detect.dog_filter import band_pass, kernel_sums
from atomid_live.detect.levels import Levels
from atomid_live.detect.local_contrast import local_contrast
from atomid_live.detect.near import nearest_px as nearest
from atomid_live.detect.peaks import find_peaks
from atomid_live.detect.resample import CANONICAL_SIGMA_PX, Resampled, to_canonical
from atomid_live.detect.spectrum import Spectrum, measure_spectrum
from atomid_live.types import NAN, IntArray

Image = NDArray[np.float32]

SMALLEST_SIGMA_PX = 1.15
SUPPRESS_SIGMA = 2.2
SPECTRUM_SIDE = 512
SPARSE_Z = 5.0
SPARSE_EVIDENCE = 14.0
SURE_EVIDENCE, SURE_PART = 25.0, 0.86
NOISY_LATTICE = 0.85
CLOSEST_PER_PLANE = 0.5
LEAST_PER_PLANE, MOST_PER_PLANE = 0.16, 0.36
MIDDLE_SIDE = 288
MOST_NARROWER, MOST_WIDER = 0.8, 1.25


@dataclass(frozen=True, slots=True)
class Scale:
    """What size columns have in a frame.

    Attributes
    ----------
    column_sigma_px : float
        Standard deviation of a column in pixels of the frame; NaN when there is no evidence of columns.
    spacing_px : float
        Median nearest-neighbour distance of the peaks seen on the way; NaN when unknown.
    evidence : float
        Lattice: strongest spot over the noise spectrum. Sparse: significance beyond the noise, bright minus dark.
    kind : str
        "lattice", "sparse" or "none".
    noise_fraction : float
        Part of the band-passed variance that is noise (lattice only).
    plane_px : float
        Plane distance of the strongest Bragg spot (lattice only).
    tail : float
        Least significance (in standard deviations) of a column on a background with this frame's noise tail.
    """

    column_sigma_px: float = NAN
    spacing_px: float = NAN
    evidence: float = 0.0
    kind: Literal["lattice", "sparse", "none"] = "none"
    noise_fraction: float = 1.0
    plane_px: float = NAN
    tail: float = SPARSE_Z

    @property
    def found(self) -> bool:
        """Whether the frame has columns to look for."""
        return self.kind != "none"


def spread(image: Image) -> float:
    """Standard deviation of the bulk, from the median absolute deviation of every third pixel along each axis."""
    some = image[::3, ::3]
    return float(1.4826 * np.median(np.abs(some - np.median(some))))


def sparse_noise(response: Image, contrast: Image, column_sigma_px: float) -> float:
    """Standard deviation of band-passed noise from the bulk of the pixels, at least that of white noise of equal variance.

    Where most pixels hold no electron, the median deviation alone would be nought.
    """
    white = sqrt(kernel_sums(column_sigma_px)[0]) * float(contrast.std())
    return float(max(spread(response), white, 1e-9))


def tail_threshold(image: Image, column_sigma_px: float, z: float = SPARSE_Z) -> float:
    """Deviations at which skewed white noise is as rare as Gaussian noise at `z` (Cornish and Fisher 1937).

    Few counts make rare bright pixels; their third and fourth cumulants come through the band-pass weakened.
    """
    some = image[::2, ::2].astype(np.float64)
    some = some - some.mean()
    variance = max(float(np.mean(some**2)), 1e-30)
    two, three, four = kernel_sums(column_sigma_px)
    skew = float(np.mean(some**3)) / variance**1.5 * three / two**1.5
    excess = (float(np.mean(some**4)) / variance**2 - 3.0) * four / two**2
    skew, excess = min(max(skew, 0.0), 2.0), min(max(excess, 0.0), 6.0)
    shift = skew * (z**2 - 1) / 6 + excess * (z**3 - 3 * z) / 24 - skew**2 * (2 * z**3 - 5 * z) / 36
    return float(z + max(shift, 0.0))


def _chequer(shape: tuple[int, int]) -> Image:
    """1 on the black squares of a chequer-board, 0 on the white ones."""
    rows, cols = np.arange(shape[0]), np.arange(shape[1])
    return ((rows[:, None] + cols) % 2).astype(np.float32)


def stacked_sigma(image: Image, yx: IntArray, guess_px: float, use: Image | None = None) -> float:
    """Width of the mean column around `yx`, by a Gaussian on a constant within 1.7 guesses; NaN where none fits.

    Parameters
    ----------
    image : ndarray, shape (rows, cols), float32
    yx : ndarray, shape (N, 2), int64
    guess_px : float
    use : ndarray, shape (rows, cols), float32, or None
        1 where a pixel may be used.
    """
    half = max(2, int(1.7 * guess_px + 0.5))
    rows, cols = image.shape
    inner = (yx[:, 0] >= half) & (yx[:, 0] < rows - half) & (yx[:, 1] >= half) & (yx[:, 1] < cols - half)
    centres = yx[inner][:600]
    if len(centres) < 3:
        return NAN
    step = np.arange(-half, half + 1)
    square = (step[:, None] ** 2 + step**2).astype(np.float64)
    near = square <= (1.7 * guess_px) ** 2 + 0.5
    down, right = np.nonzero(near)
    where = (centres[:, 0, None] * cols + centres[:, 1, None]) + (down - half) * cols + (right - half)
    values = image.reshape(-1)[where]
    held = np.ones_like(values) if use is None else use.reshape(-1)[where]
    weight = held.sum(0, dtype=np.float64)
    some = weight > 0
    mean = (values * held).sum(0, dtype=np.float64)[some] / weight[some]
    weight, r2 = weight[some], square[near][some]
    ladder = guess_px * np.geomspace(0.5, 2.0, 61)
    shape = np.exp(-0.5 * r2 / ladder[:, None] ** 2)
    # weighted straight line of the mean column against each shape
    total = weight.sum()
    shape -= (shape @ weight)[:, None] / total
    mean = mean - mean @ weight / total
    up, own = shape @ (weight * mean), (shape**2) @ weight
    gain = np.where(up > 0, up**2 / np.maximum(own, 1e-30), 0.0)
    if not gain.max() > 0:
        return NAN
    # whole-pixel stacking widens the mean by the variance of the rounding
    return sqrt(max(float(ladder[int(np.argmax(gain))]) ** 2 - 1.0 / 12.0, 0.25))


def _middle(image: Image) -> Image:
    """The middle of a level, as much as is enough to measure a width."""
    top, left = (max(0, (size - MIDDLE_SIDE) // 2) for size in image.shape)
    return image[top : top + MIDDLE_SIDE, left : left + MIDDLE_SIDE]


def _measured_sigma(levels: Levels, first_px: float) -> tuple[float, float]:
    """Width and spacing of columns, from about the right width: peaks at that width, the width of their mean, and again."""
    sigma, spacing = first_px, NAN
    for _ in range(2):
        level = levels.fitting(sigma)
        contrast = _middle(level.contrast)
        here = level.sigma_px(sigma)
        black = _chequer(contrast.shape)
        # one half of the pixels finds the columns and the other shows their width: noise is not taken for narrow columns
        yx, height = find_peaks(band_pass(contrast * black, here), 0.0, SUPPRESS_SIGMA * here)
        strong = height > 0.5 * height[len(height) // 10] if len(height) else np.zeros(0, np.bool_)
        yx = yx[strong]
        fitted = stacked_sigma(contrast, yx, here, 1.0 - black)
        if len(yx) > 1:
            spacing = float(np.median(nearest(yx.astype(np.float64), 4.0 * here))) * level.side
        if not np.isfinite(fitted):
            break
        # a bin is a box that widened the column
        native = sqrt(max(fitted**2 - (1.0 - level.side**-2) / 12.0, 0.25)) * level.side
        before, sigma = sigma, min(max(native, MOST_NARROWER * first_px), MOST_WIDER * first_px)
        if 0.87 < sigma / before < 1.15:
            break
    return sigma, spacing


def _lattice_scale(levels: Levels, spectrum: Spectrum, side: int) -> Scale:
    plane = spectrum.plane_px * side
    first = max(spectrum.first_sigma_px * side, SMALLEST_SIGMA_PX)
    sigma, spacing = _measured_sigma(levels, first)
    noisy = spectrum.noise_fraction(sigma / side)
    # the noisier the frame, the more the spectrum has a say
    pulled = sigma ** (1.0 - noisy) * first**noisy
    least = LEAST_PER_PLANE * plane if noisy > 0.3 else 0.0
    sigma = max(min(max(pulled, least), MOST_PER_PLANE * plane), SMALLEST_SIGMA_PX)
    # no lattice has neighbours closer than a honeycomb; nearer peaks were noise
    spacing = float(np.fmax(spacing, CLOSEST_PER_PLANE * plane))
    return Scale(sigma, spacing, float(spectrum.spot_ratio.max()), "lattice", noisy, plane)


def _sparse_at(level: Resampled, sigma_px: float) -> tuple[float, float, IntArray]:
    """Evidence (bright minus twice dark), tail threshold, and bright peaks, at one width in pixels of the level."""
    contrast = local_contrast(level.image)
    response = band_pass(contrast, sigma_px)
    noise = sparse_noise(response, contrast, sigma_px)
    tail = tail_threshold(contrast, sigma_px)
    radius = SUPPRESS_SIGMA * sigma_px
    bright, high = find_peaks(response, tail * noise, radius)
    _, low = find_peaks(-response, tail * noise, radius)
    evidence = float(np.sum(high / noise - tail + 1.0) - 2.0 * np.sum(low / noise - tail + 1.0))
    return evidence, tail, bright


def _typical(yx: IntArray) -> float:
    """Median distance to the nearest neighbour; NaN under two points."""
    return float(np.median(nearest(yx.astype(np.float64), 8.0))) if len(yx) > 1 else NAN


def _sparse_scale(pixels: Image) -> Scale:
    largest = min(pixels.shape) / 24.0
    steps = max(1, int(2 * log2(max(largest / 1.3, 1.0))) + 1)
    best = Scale()
    for sigma in 1.3 * np.sqrt(2.0) ** np.arange(steps):
        level = to_canonical(pixels, float(sigma))
        factor = sqrt(level.factor_yx[0] * level.factor_yx[1])
        evidence, tail, yx = _sparse_at(level, float(sigma) * factor)
        if evidence > max(SPARSE_EVIDENCE, best.evidence):
            fitted = stacked_sigma(level.image, yx, float(sigma) * factor) / factor
            width = min(max(fitted, 0.75 * sigma), 1.35 * sigma) if np.isfinite(fitted) else sigma
            width = max(float(width), SMALLEST_SIGMA_PX)
            # once there are atoms beyond doubt, the threshold may go where they and the noise balance
            part = SURE_PART if evidence > SURE_EVIDENCE else 1.0
            best = Scale(width, _typical(yx) / factor, evidence, "sparse", 1.0, NAN, tail * part)
    return best


def estimate_scale(pixels: Image, levels: Levels | None = None) -> Scale:
    """Find the width of columns in a frame, or that it shows none.

    Parameters
    ----------
    pixels : ndarray, shape (rows, cols), float32
        Finite, columns bright.
    levels : Levels or None
        Reductions of `pixels` that were made before or will be needed again.

    Returns
    -------
    Scale
        `found` is False for constant, noise-only, vacuum and featureless frames, and for frames under 32 pixels a side.
    """
    if min(pixels.shape) < 32:
        return Scale()
    given = levels or Levels(pixels)
    side = min(4, max(1, round(max(pixels.shape) / SPECTRUM_SIDE)))
    spectrum = measure_spectrum(given.reduced(side).contrast)
    if not spectrum.has_lattice:
        return _sparse_scale(pixels)
    lattice = _lattice_scale(given, spectrum, side)
    if lattice.noise_fraction > NOISY_LATTICE:
        sparse = _sparse_scale(pixels)
        return sparse if sparse.found else lattice
    return lattice


__all__ = ["CANONICAL_SIGMA_PX", "Scale", "estimate_scale", "sparse_noise", "spread", "stacked_sigma", "tail_threshold"]
