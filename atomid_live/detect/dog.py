"""The classical detector: band-pass of the column's own width, overlapping local maxima, radius suppression."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from atomid_live.detect.columns import collect
from atomid_live.detect.dog_filter import band_pass
from atomid_live.detect.local_contrast import local_contrast
from atomid_live.detect.normalise import Prepared, prepare
from atomid_live.detect.peaks import find_peaks, parabola
from atomid_live.detect.resample import to_canonical
from atomid_live.detect.spacing import SUPPRESS_SIGMA, Scale, estimate_scale, sparse_noise
from atomid_live.errors import UsageError
from atomid_live.flags import Flag
from atomid_live.settings import DetectSettings, FrameSettings
from atomid_live.types import Detections, FloatArray, Frame, Origin

Image = NDArray[np.float32]

AMPLITUDE_PART = 0.2
FAINTEST_PART = 0.12
CLEAN_FRACTION = 0.1
LOW_Z, HIGH_Z = 2.6, 4.5
LOW_PART, HIGH_PART = 0.4, 0.8
SUPPORT_SPACINGS, SUPPORTERS = 1.7, 2


def separation_px(text: str, spacing_px: float, pixel_size_yx_nm: tuple[float, float]) -> float:
    """Least distance of two columns in pixels, from "5px", "0.15nm" or "0.5d" (d = spacing).

    Raises
    ------
    UsageError
        Nanometres were asked for and the frame has no pixel size.
    """
    unit = text.lstrip("0123456789.")
    value = float(text[: len(text) - len(unit)])
    if unit == "px":
        return value
    if unit == "d":
        return value * spacing_px if np.isfinite(spacing_px) else 0.0
    pixel = sqrt(pixel_size_yx_nm[0] * pixel_size_yx_nm[1])
    if not np.isfinite(pixel):
        raise UsageError(
            f"min_separation {text!r} is in nm, but the frame has no pixel size; give --pixel-size-nm, or use px or d"
        )
    return value / pixel


def _supported(yx: FloatArray, sure: NDArray[np.bool_], spacing_px: float) -> NDArray[np.bool_]:
    """Candidates that stand in company: at least two others within 1.7 spacings."""
    if len(yx) <= SUPPORTERS or not np.isfinite(spacing_px):
        return sure
    doubtful = np.flatnonzero(~sure)
    if not len(doubtful):
        return sure
    distance = cKDTree(yx).query(yx[doubtful], k=SUPPORTERS + 1)[0][:, -1]
    out = sure.copy()
    out[doubtful] = distance <= SUPPORT_SPACINGS * spacing_px
    return out


def _noise(response: Image, contrast: Image, column_sigma_px: float, scale: Scale) -> float:
    """Standard deviation of the band-passed noise."""
    if scale.kind == "lattice":
        return float(response[::2, ::2].std()) * sqrt(scale.noise_fraction)
    return sparse_noise(response, contrast, column_sigma_px)


def automatic_threshold(height: FloatArray, noise: float, scale: Scale) -> tuple[float, float]:
    """Band-pass heights from which a candidate counts: in company, and alone.

    In a lattice, a fifth of the bright columns' height and no less than 2.6 standard deviations of the noise; alone, 4.5.
    Where columns hardly rise above that, parts of their height take over, since lattice sites are likely places.
    Without a lattice, the significance at which the frame's own noise tail has ended.
    """
    if scale.kind != "lattice":
        return scale.tail * noise, scale.tail * noise
    tall = float(np.percentile(height, 90)) if len(height) else 0.0
    low = max(AMPLITUDE_PART * tall, min(LOW_Z * noise, LOW_PART * tall))
    return low, max(low, min(HIGH_Z * noise, HIGH_PART * tall))


def candidates(image: Image, column_sigma_px: float, scale: Scale, threshold: float | None) -> tuple[FloatArray, FloatArray]:
    """Columns of a canonical image: positions (N, 2) in its pixels, and scores (N,) with 0.5 at the automatic threshold.

    Parameters
    ----------
    image : ndarray, shape (rows, cols), float32
        At canonical scale, columns bright.
    column_sigma_px : float
        Width of a column in this image.
    scale : Scale
    threshold : float or None
        Least score.
    """
    contrast = local_contrast(image)
    response = band_pass(contrast, column_sigma_px)
    noise = _noise(response, contrast, column_sigma_px, scale)
    yx, height = find_peaks(response, 0.0, SUPPRESS_SIGMA * column_sigma_px)
    strong = height[height > 0.3 * height[len(height) // 20]] if len(height) else height
    low, high = automatic_threshold(strong, noise, scale)
    ratio = height / max(low, 1e-12)
    score = ratio / (1.0 + ratio)
    least = 0.5 if threshold is None else threshold
    keep = score >= least
    yx, height, score = yx[keep], height[keep], score[keep]
    place = parabola(response, yx)
    if threshold is None:
        # peaks of noise crowd the spacing that was seen; the spectrum's planes are the safer measure of who is near
        spacing = float(np.fmax(scale.spacing_px, scale.plane_px)) * column_sigma_px / scale.column_sigma_px
        company = _supported(place, height >= high, spacing)
        place, score = place[company], score[company]
    return place, score


class DogDetector:
    """Difference-of-Gaussians detector (protocols.Detector).

    Parameters
    ----------
    detect : DetectSettings
        `threshold` and `min_separation` are heeded.
    frame : FrameSettings
        `polarity` is heeded.
    """

    name = "dog"

    def __init__(self, detect: DetectSettings | None = None, frame: FrameSettings | None = None) -> None:
        self._detect = detect or DetectSettings()
        self._frame = frame or FrameSettings()

    def detect(self, frame: Frame) -> Detections:
        """Find the columns of a frame; nothing found is an empty answer with the reason among its flags."""
        prepared = prepare(frame.pixels)
        if prepared.frame_flags & Flag.CONSTANT:
            return Detections.empty(int(Flag.EMPTY | Flag.NO_SCALE) | prepared.frame_flags)
        prepared, scale = self.oriented(prepared)
        if not scale.found:
            return Detections.empty(int(Flag.EMPTY | Flag.NO_SCALE) | prepared.frame_flags)
        sigma = scale.column_sigma_px
        canonical = to_canonical(prepared.image, sigma)
        factor = sqrt(canonical.factor_yx[0] * canonical.factor_yx[1])
        yx, score = candidates(canonical.image, sigma * factor, scale, self._detect.threshold)
        least = None
        places = canonical.to_frame(yx)
        if self._detect.min_separation is not None:
            least = separation_px(self._detect.min_separation, scale.spacing_px, frame.pixel_size_yx_nm)
        faintest = FAINTEST_PART if scale.kind == "lattice" and self._detect.threshold is None else 0.0
        return collect(
            prepared, places, score, sigma, least_px=least, plane_px=scale.plane_px, faintest_part=faintest,
            fit_width=scale.noise_fraction < CLEAN_FRACTION,
        )  # fmt: skip

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Compile the kernels and allocate for frames of this shape, on a small made-up lattice."""
        rows, cols = max(shape[0], 64), max(shape[1], 64)
        y, x = np.mgrid[:rows, :cols]
        grey = (1 + np.cos(y * 0.52)) * (1 + np.cos(x * 0.45 + 0.2 * y)) * 100
        pixels = grey.astype(np.uint16)
        self.detect(Frame(-1, pixels, float("nan"), Origin("warm-up")))

    def oriented(self, prepared: Prepared) -> tuple[Prepared, Scale]:
        """The frame with bright columns, and its scale; `auto` takes the sign with the taller, rarer peaks."""
        polarity = self._frame.polarity
        if polarity == "bright":
            return prepared, estimate_scale(prepared.image)
        inverted = replace(
            prepared,
            image=np.max(prepared.image) - prepared.image,
            ceiling=float("inf"),
        )
        if polarity == "dark":
            return inverted, estimate_scale(inverted.image)
        both = [(p, estimate_scale(p.image)) for p in (prepared, inverted)]
        return max(both, key=lambda pair: self._merit(*pair))

    @staticmethod
    def _merit(prepared: Prepared, scale: Scale) -> float:
        if not scale.found:
            return -np.inf
        canonical = to_canonical(prepared.image, scale.column_sigma_px)
        factor = sqrt(canonical.factor_yx[0] * canonical.factor_yx[1])
        response = band_pass(canonical.image, scale.column_sigma_px * factor).astype(np.float64)
        return float(np.mean((response / max(response.std(), 1e-12)) ** 3))
