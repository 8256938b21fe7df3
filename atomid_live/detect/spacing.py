"""The scale of a frame from its pixels alone: width and spacing of columns, or the safe answer that there are none.

A lattice shows as Bragg spots that stand out of the frame's own noise spectrum. Without one, columns must beat the
Gaussian tail of the band-passed frame on the bright side more than on the dark side: noise of any colour does neither.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from atomid_live.detect.dog_filter import band_pass
from atomid_live.detect.faint import FaintLattice, look_for_lattice
from atomid_live.detect.levels import Levels
from atomid_live.detect.local_contrast import local_contrast
from atomid_live.detect.near import nearest_px as nearest
from atomid_live.detect.peaks import find_peaks
from atomid_live.detect.resample import CANONICAL_SIGMA_PX
from atomid_live.detect.scale import SMALLEST_SIGMA_PX, SUPPRESS_SIGMA, Scale
from atomid_live.detect.sparse import sparse_noise, sparse_scale, spread
from atomid_live.detect.spectrum import Spectrum, measure_spectrum
from atomid_live.detect.stacked import stacked_sigma
from atomid_live.types import NAN

Image = NDArray[np.float32]

SPECTRUM_SIDE = 512
FINER_SIDE, CROP_PX = 2, 1024
NOISY_LATTICE = 0.85
SPECTRUM_SAY = 2.0
CLOSEST_PER_PLANE = 0.5
LEAST_PER_PLANE, MOST_PER_PLANE = 0.16, 0.36
MIDDLE_SIDE = 288
MOST_NARROWER, MOST_WIDER = 0.8, 1.25


def _chequer(shape: tuple[int, int]) -> Image:
    """1 on the black squares of a chequer-board, 0 on the white ones."""
    rows, cols = np.arange(shape[0]), np.arange(shape[1])
    return ((rows[:, None] + cols) % 2).astype(np.float32)


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
    say = min(SPECTRUM_SAY * noisy, 1.0)
    pulled = sigma ** (1.0 - say) * first**say
    least = LEAST_PER_PLANE * plane if noisy > 0.3 else 0.0
    sigma = max(min(max(pulled, least), MOST_PER_PLANE * plane), SMALLEST_SIGMA_PX)
    # no lattice has neighbours closer than a honeycomb; nearer peaks were noise
    spacing = float(np.fmax(spacing, CLOSEST_PER_PLANE * plane))
    return Scale(sigma, spacing, float(spectrum.spot_ratio.max()), "lattice", noisy, plane)


def _with_spots(spectrum: Spectrum, faint: FaintLattice) -> Spectrum:
    """A spectrum whose spots are those of a lattice found together, not one by one."""
    return replace(
        spectrum, spot_frequency=np.hypot(*faint.spot_yx.T), spot_power=faint.spot_power, spot_ratio=faint.spot_ratio,
        spot_yx=faint.spot_yx, sure=True,
    )  # fmt: skip


def _unfolded(levels: Levels, spectrum: Spectrum, side: int) -> tuple[Spectrum, int]:
    """The spectrum, or a finer one of the middle of the frame where that shows shorter waves.

    Means over `side` pixels weaken waves shorter than two such pixels, but let them through as longer ones.
    """
    if side <= FINER_SIDE:
        return spectrum, side
    image = levels.reduced(FINER_SIDE).image
    top, left = (max(0, (size - CROP_PX // FINER_SIDE) // 2) for size in image.shape)
    middle = image[top : top + CROP_PX // FINER_SIDE, left : left + CROP_PX // FINER_SIDE]
    finer = measure_spectrum(local_contrast(np.ascontiguousarray(middle)))
    folded = finer.sure and finer.plane_px * FINER_SIDE < 2.1 * side
    return (finer, FINER_SIDE) if folded else (spectrum, side)


def _lattice_spectrum(levels: Levels, side: int) -> tuple[Spectrum | None, int]:
    """Spectrum of a frame with a lattice, and the reduction it was measured at; None without a lattice.

    Spots that stand out each by itself decide at once. Else a harder look decides, which ordinary frames never pay for, and
    in a large frame one at less reduction, where narrower columns show.
    """
    spectrum = measure_spectrum(levels.reduced(side).contrast)
    if spectrum.sure:
        return _unfolded(levels, spectrum, side)
    for looked in (side, FINER_SIDE) if side > FINER_SIDE else (side,):
        contrast = levels.reduced(looked).contrast
        faint = look_for_lattice(contrast, looked)
        if faint.found:
            own = spectrum if looked == side else measure_spectrum(contrast)
            return own if own.sure else _with_spots(own, faint), looked
    return None, side


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
    spectrum, side = _lattice_spectrum(given, side)
    if spectrum is None:
        return sparse_scale(given)
    lattice = _lattice_scale(given, spectrum, side)
    if lattice.noise_fraction > NOISY_LATTICE:
        sparse = sparse_scale(given)
        return sparse if sparse.found else lattice
    return lattice


__all__ = [
    "CANONICAL_SIGMA_PX", "SMALLEST_SIGMA_PX", "SUPPRESS_SIGMA", "Scale", "estimate_scale", "sparse_noise", "spread",
    "stacked_sigma",
]  # fmt: skip
