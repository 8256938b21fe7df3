"""What the network sees in a frame: scale, resampling, local contrast, one or more inferences, and the peaks of the map."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomid_live.detect.candidate_features import fitted_candidates
from atomid_live.detect.dog import CLEAN_FRACTION, DogDetector
from atomid_live.detect.dog_filter import band_pass
from atomid_live.detect.judge import Peaks
from atomid_live.detect.local_contrast import local_contrast
from atomid_live.detect.normalise import Prepared, prepare
from atomid_live.detect.peaks import find_peaks, parabola
from atomid_live.detect.refine import Refined, refine
from atomid_live.detect.resample import to_canonical
from atomid_live.detect.spacing import SMALLEST_SIGMA_PX, Scale, sparse_noise
from atomid_live.detect.support import support, translations
from atomid_live.flags import Flag
from atomid_live.protocols import Maps, Network
from atomid_live.settings import DetectSettings, FrameSettings
from atomid_live.types import NAN, FloatArray, IntArray

Image = NDArray[np.float32]

# Width of a column in what the network sees.
INPUT_SIGMA_PX = 1.9
# Sides are rounded up to this, so that frames of a session share few compiled shapes.
SIDE_MULTIPLE = 64
FLOOR = 0.01
RADIUS_SIGMA = 2.0
# The network's own opinion of the column width overrules the spectrum's beyond these ratios, and not more than twice.
NARROWER, WIDER = 0.8, 1.25
SECOND_LOOKS = 2
SLACK = 0.05
# A frame whose peaks are typically this low is looked at again at other scales, which must convince.
WEAK, CONVINCING = 0.15, 0.5
OTHER_SCALES = (0.5, 0.25, 2.0)
# Single atoms must stand this far out of the band-passed noise to have a say in the choice of scale.
STANDS_OUT = 4.0
# From this share of noise on, the lattice is asked whether it stands behind a peak.
NOISY = 0.35


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What the network saw in a frame.

    Attributes
    ----------
    prepared, scale : Prepared, Scale
        The frame with bright columns, and what its pixels say of the scale.
    peaks : Peaks
        Peaks of the map in pixels of the frame, highest first.
    refined : Refined
        Their fits on the raw pixels.
    spacing_px : float
        The network's mean spacing in pixels of the frame.
    """

    prepared: Prepared
    scale: Scale
    peaks: Peaks
    refined: Refined
    spacing_px: float


@dataclass(frozen=True, slots=True, eq=False)
class _Sight:
    """One scale's answer in pixels of the frame.

    `ratio` is the column width the network finds over the one assumed, `whole` says that the frame was not reduced, `merit`
    is how high peaks typically are: third quartile in a lattice, else the median of those that stand out of the noise.
    """

    column_sigma_px: float
    ratio: float
    whole: bool
    merit: float
    spacing_px: float
    yx_px: FloatArray
    height: FloatArray
    sharpness: FloatArray
    significance: FloatArray
    support: FloatArray


def padded(image: Image, multiple: int = SIDE_MULTIPLE) -> Image:
    """Image with zeros below and to the right, sides multiples of `multiple`; zero is the local mean."""
    rows, cols = (-(-n // multiple) * multiple for n in image.shape)
    out = np.zeros((rows, cols), np.float32)
    out[: image.shape[0], : image.shape[1]] = image
    return out


def map_peaks(maps: Maps, shape: tuple[int, int], sigma_px: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Peaks of a confidence map, highest first.

    Parameters
    ----------
    maps : Maps
    shape : (rows, cols)
        Of the image that the network saw, without what was padded.
    sigma_px : float
        Width of a column in its pixels.

    Returns
    -------
    ndarray, shape (N, 2)
        Positions in pixels of that image.
    ndarray, shape (N,)
        Heights.
    ndarray, shape (N,)
        Part of the height that is lost, on average, one map pixel further up, down, left and right.
    """
    stride = maps.stride
    inner = np.ascontiguousarray(maps.confidence[: -(-shape[0] // stride), : -(-shape[1] // stride)])
    yx, height = find_peaks(inner, FLOOR, RADIUS_SIGMA * sigma_px / stride)
    return stride * parabola(inner, yx) + 0.5 * (stride - 1), height, 1.0 - beside(inner, yx) / height


def beside(image: Image, yx: IntArray) -> FloatArray:
    """Mean of the pixels above, below, left and right of places (N, 2), shape (N,); the border's own pixel beyond it."""
    last = np.array(image.shape) - 1
    total = np.zeros(len(yx))
    for step in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        place = np.clip(yx + step, 0, last)
        total += image[place[:, 0], place[:, 1]]
    return total / 4.0


def significance(contrast: Image, yx_px: FloatArray, sigma_px: float) -> FloatArray:
    """Band-passed image at positions (N, 2), in standard deviations of its noise, shape (N,).

    Single atoms stand on speckle that a network trained on lattices too is easily fond of; the matched filter is not.
    """
    response = band_pass(contrast, sigma_px)
    index = np.clip(np.rint(yx_px).astype(np.int64), 0, np.array(response.shape) - 1)
    return np.asarray(response[index[:, 0], index[:, 1]] / sparse_noise(response, contrast, sigma_px), np.float64)


def supported(maps: Maps, shape: tuple[int, int], yx_px: FloatArray, sigma_px: float) -> FloatArray:
    """Map one lattice vector away from peaks (N, 2) in pixels of the image that the network saw, shape (N,)."""
    stride = maps.stride
    inner = np.ascontiguousarray(maps.confidence[: -(-shape[0] // stride), : -(-shape[1] // stride)])
    vectors = translations(inner, RADIUS_SIGMA * sigma_px / stride)
    return support(inner, (yx_px - 0.5 * (stride - 1)) / stride, vectors)


class Looker:
    """Shows frames to a network.

    Parameters
    ----------
    network : Network
        Opened; the caller closes it.
    detect, frame : DetectSettings, FrameSettings
        `polarity` is heeded.
    """

    def __init__(self, network: Network, detect: DetectSettings | None = None, frame: FrameSettings | None = None) -> None:
        self._network = network
        self._dog = DogDetector(detect, frame)
        self._full = detect is None or detect.refine == "full"

    def look(self, pixels: NDArray[Any]) -> Look | None:
        """Show a frame (rows, cols) to the network, again at another scale if it finds columns narrower, wider or hardly any.

        Returns
        -------
        Look or None
            None where the pixels show no scale: constant, noise, vacuum.
        """
        prepared = prepare(pixels)
        if prepared.frame_flags & Flag.CONSTANT:
            return None
        prepared, scale = self._dog.oriented(prepared)
        if not scale.found:
            return None
        sight = self._settle(prepared.image, scale.column_sigma_px, scale)
        if scale.kind == "lattice" and sight.merit < WEAK:
            sizes = [part * scale.column_sigma_px for part in OTHER_SCALES]
            others = [self._settle(prepared.image, size, scale) for size in sizes if size >= SMALLEST_SIGMA_PX]
            best = max(others, key=lambda other: other.merit, default=sight)
            sight = best if best.merit > CONVINCING else sight
        fit, first = fitted_candidates(prepared.image, sight.yx_px, sight.column_sigma_px)
        refined = refine(
            prepared.image, sight.yx_px, sight.column_sigma_px, fit_width=scale.noise_fraction < CLEAN_FRACTION, first=first,
            subtract=self._full,
        )  # fmt: skip
        own = refined.amplitude if self._full else np.full(len(refined.amplitude), NAN)
        peaks = Peaks(
            sight.yx_px, sight.height, sight.sharpness, fit, sight.significance, sight.support, sight.column_sigma_px,
            scale.kind == "lattice", scale.noise_fraction, own, refined.noise,
        )  # fmt: skip
        return Look(prepared, scale, peaks, refined, sight.spacing_px)

    def _settle(self, image: Image, sigma_px: float, scale: Scale) -> _Sight:
        """Run the network at a scale, and at the one that it finds there as long as it then sees no less."""
        sight = self._see(image, sigma_px, scale)
        for _ in range(SECOND_LOOKS):
            if not np.isfinite(sight.ratio) or NARROWER < sight.ratio < WIDER or (sight.whole and sight.ratio < 1.0):
                break
            other = self._see(image, sight.column_sigma_px * min(max(sight.ratio, 0.5), 2.0), scale)
            if other.merit < sight.merit - (SLACK if scale.kind == "lattice" else 0.0):
                break
            sight = other
        return sight

    def _see(self, image: Image, sigma_px: float, scale: Scale) -> _Sight:
        """Run the network at one scale."""
        canonical = to_canonical(image, sigma_px, INPUT_SIGMA_PX)
        factor = sqrt(canonical.factor_yx[0] * canonical.factor_yx[1])
        contrast = local_contrast(canonical.image)
        maps = self._network.infer(padded(contrast))
        yx, height, sharp = map_peaks(maps, contrast.shape, sigma_px * factor)
        if scale.kind == "lattice":
            clear, counted, part = np.full(len(yx), NAN), height, 0.75
        else:
            clear = significance(contrast, yx, sigma_px * factor)
            counted, part = height[clear >= STANDS_OUT], 0.5
        merit = float(np.quantile(counted, part)) if len(counted) else 0.0
        held = np.full(len(yx), NAN)
        if scale.kind == "lattice" and scale.noise_fraction > NOISY:
            held = supported(maps, contrast.shape, yx, sigma_px * factor)
        ratio = maps.column_sigma_px / (sigma_px * factor)
        return _Sight(
            sigma_px, ratio, factor == 1.0, merit, maps.spacing_px / factor, canonical.to_frame(yx), height,
            sharp, clear, held,
        )  # fmt: skip

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Compile the kernels and the network for frames of this shape."""
        self._dog.warm_up(shape)
        rows, cols = (-(-n // SIDE_MULTIPLE) * SIDE_MULTIPLE for n in shape)
        self._network.infer(np.zeros((rows, cols), np.float32))
