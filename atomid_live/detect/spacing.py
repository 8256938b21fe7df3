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
from scipy.spatial import cKDTree

from atomid_live.detect.dog_filter import band_pass, kernel_sums
from atomid_live.detect.local_contrast import local_contrast
from atomid_live.detect.peaks import find_peaks
from atomid_live.detect.resample import CANONICAL_SIGMA_PX, Resampled, resample, to_canonical
from atomid_live.detect.spectrum import Spectrum, measure_spectrum
from atomid_live.types import NAN, FloatArray, IntArray

Image = NDArray[np.float32]

SMALLEST_SIGMA_PX = 1.15
SUPPRESS_SIGMA = 2.2
SPECTRUM_SIDE = 512
SPARSE_Z = 5.0
SPARSE_EVIDENCE = 14.0
SURE_EVIDENCE, SURE_PART = 25.0, 0.86
NOISY_LATTICE = 0.85
CLOSEST_PER_PLANE = 0.5
SIGMA_PER_PLANE, LEAST_PER_PLANE = 0.2, 0.16


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


def nearest_px(yx: FloatArray | IntArray) -> float:
    """Median distance to the nearest neighbour; NaN under two points."""
    if len(yx) < 2:
        return NAN
    return float(np.median(cKDTree(yx).query(yx, k=2)[0][:, 1]))


def _chequer(shape: tuple[int, int]) -> Image:
    """1 on the black squares of a chequer-board, 0 on the white ones."""
    rows, cols = np.arange(shape[0]), np.arange(shape[1])
    return ((rows[:, None] + cols) % 2).astype(np.float32)


def _middle(pixels: Image, column_sigma_px: float) -> Image:
    """The middle of a frame, as much as is 512 canonical pixels a side."""
    side = int(512 * max(column_sigma_px / CANONICAL_SIGMA_PX, 1.0))
    top, left = (max(0, (size - side) // 2) for size in pixels.shape)
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


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
    where = (centres[:, 0, None, None] + step[:, None], centres[:, 1, None, None] + step)
    held = np.full(len(centres), 1.0)[:, None, None] if use is None else use[where]
    weight = np.broadcast_to(held, (len(centres), len(step), len(step))).sum(0, dtype=np.float64)
    stack = (image[where] * held).sum(0, dtype=np.float64) / np.maximum(weight, 1.0)
    square = (step[:, None] ** 2 + step**2).astype(np.float64)
    near = (square <= (1.7 * guess_px) ** 2 + 0.5) & (weight > 0)
    root = np.sqrt(weight[near])
    best, best_error = NAN, np.inf
    for sigma in guess_px * np.geomspace(0.5, 2.0, 41):
        basis = np.stack([np.exp(-0.5 * square[near] / sigma**2), np.ones_like(root)], 1) * root[:, None]
        solution, *_ = np.linalg.lstsq(basis, stack[near] * root, rcond=None)
        error = float(np.sum((basis @ solution - stack[near] * root) ** 2))
        if solution[0] > 0 and error < best_error:
            best, best_error = float(sigma), error
    # whole-pixel stacking widens the mean by the variance of the rounding
    return sqrt(max(best**2 - 1.0 / 12.0, 0.25)) if np.isfinite(best) else NAN


def _lattice_scale(pixels: Image, spectrum: Spectrum, reduction: float) -> Scale:
    ladder = np.geomspace(SMALLEST_SIGMA_PX * reduction * 0.8, max(pixels.shape) * reduction / 20.0, 40)
    sigma = spectrum.best_sigma(ladder) / reduction
    # the band-pass that passes most of a lattice's spots is narrower than its columns
    sigma *= 1.3
    for _ in range(3):
        canonical = to_canonical(_middle(pixels, sigma), sigma)
        factor = sqrt(canonical.factor_yx[0] * canonical.factor_yx[1])
        contrast = local_contrast(canonical.image)
        black = _chequer(contrast.shape)
        # one half of the pixels finds the columns and the other shows their width: noise is not taken for narrow columns
        yx, height = find_peaks(band_pass(contrast * black, sigma * factor), 0.0, SUPPRESS_SIGMA * sigma * factor)
        yx = yx[height > 0.5 * height[len(height) // 10]] if len(height) else yx
        fitted = stacked_sigma(contrast, yx, sigma * factor, 1.0 - black) / factor
        if not np.isfinite(fitted):
            break
        change, sigma = fitted / sigma, min(max(fitted, 0.6 * sigma), 1.6 * sigma)
        if 0.87 < change < 1.15:
            break
    spacing = nearest_px(yx) / factor
    noisy, plane = spectrum.noise_fraction(sigma * reduction), spectrum.plane_px / reduction
    # the noisier the frame, the more the plane distance has a say
    pulled = sigma ** (1.0 - noisy) * (SIGMA_PER_PLANE * plane) ** noisy
    least = LEAST_PER_PLANE * plane if noisy > 0.3 else 0.0
    sigma = max(sigma, pulled, least, SMALLEST_SIGMA_PX)
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
            best = Scale(width, nearest_px(yx) / factor, evidence, "sparse", 1.0, NAN, tail * part)
    return best


def estimate_scale(pixels: Image) -> Scale:
    """Find the width of columns in a frame, or that it shows none.

    Parameters
    ----------
    pixels : ndarray, shape (rows, cols), float32
        Finite, columns bright.

    Returns
    -------
    Scale
        `found` is False for constant, noise-only, vacuum and featureless frames, and for frames under 32 pixels a side.
    """
    if min(pixels.shape) < 32:
        return Scale()
    reduction = 1.0 / min(4, max(1, round(max(pixels.shape) / SPECTRUM_SIDE)))
    small = resample(pixels, reduction)
    spectrum = measure_spectrum(local_contrast(small.image))
    if not spectrum.has_lattice:
        return _sparse_scale(pixels)
    lattice = _lattice_scale(pixels, spectrum, sqrt(small.factor_yx[0] * small.factor_yx[1]))
    if lattice.noise_fraction > NOISY_LATTICE:
        sparse = _sparse_scale(pixels)
        return sparse if sparse.found else lattice
    return lattice


__all__ = ["CANONICAL_SIGMA_PX", "Scale", "estimate_scale", "sparse_noise", "spread", "stacked_sigma", "tail_threshold"]
