"""The classical detector: band-pass of the column's own width, overlapping local maxima, radius suppression."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from atomid_live.detect.columns import collect
from atomid_live.detect.dog_filter import band_pass
from atomid_live.detect.levels import Level, Levels
from atomid_live.detect.near import in_company
from atomid_live.detect.normalise import Prepared, prepare
from atomid_live.detect.peaks import find_peaks, parabola, parabola_height
from atomid_live.detect.second_look import second_look
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
FLOOR_Z = 1.2
SURE_TIMES = 1.7
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
    out = sure.copy()
    out[doubtful] = in_company(yx, doubtful, SUPPORT_SPACINGS * spacing_px, SUPPORTERS)
    return out


def _response(level: Level, column_sigma_px: float, scale: Scale) -> tuple[Image, float]:
    """Band-passed frame and the standard deviation of its noise.

    In a lattice from the pixels as they are: local contrast would show the noise of a hole as large as columns. Lone atoms
    among thick and thin places need it.
    """
    here = level.sigma_px(column_sigma_px)
    if scale.kind == "lattice":
        response = band_pass(level.image, here)
        return response, float(response[::2, ::2].std()) * sqrt(scale.noise_fraction)
    response = band_pass(level.contrast, here)
    return response, sparse_noise(response, level.contrast, here)


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


def _strong(height: FloatArray) -> FloatArray:
    """Heights above three tenths of what a twentieth of them exceed."""
    if not len(height):
        return height
    place = len(height) - 1 - len(height) // 20
    return np.asarray(height[height > 0.3 * np.partition(height, place)[place]])


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Columns of a frame before they are refined.

    Attributes
    ----------
    yx_px : ndarray, shape (N, 2), float64
        In pixels of the frame.
    score : ndarray, shape (N,), float64
        0.5 at the automatic threshold.
    first : ndarray, shape (N, 3), float64, or None
        y, x and height of a quick fit, where there was one.
    """

    yx_px: FloatArray = field(repr=False)
    score: FloatArray = field(repr=False)
    first: FloatArray | None = field(default=None, repr=False)

    def take(self, which: NDArray[np.bool_]) -> Candidates:
        """Some of them."""
        return Candidates(self.yx_px[which], self.score[which], None if self.first is None else self.first[which])


def candidates(level: Level, column_sigma_px: float, scale: Scale, threshold: float | None) -> Candidates:
    """Columns of a frame.

    Parameters
    ----------
    level : Level
        The frame where a column is about 1.1 to 2.2 px wide, columns bright.
    column_sigma_px : float
        Width of a column in the frame.
    scale : Scale
    threshold : float or None
        Least score.
    """
    response, noise = _response(level, column_sigma_px, scale)
    radius = SUPPRESS_SIGMA * level.sigma_px(column_sigma_px)
    yx, _ = find_peaks(response, FLOOR_Z * noise if threshold is None else 0.0, radius)
    height = parabola_height(response, yx)
    low, high = automatic_threshold(_strong(height), noise, scale)
    if threshold is not None:
        ratio = height / max(low, 1e-12)
        found = Candidates(level.to_frame(parabola(response, yx)), ratio / (1.0 + ratio))
        return found.take(found.score >= threshold)
    keep = height >= low
    ratio, place, sure = height[keep] / max(low, 1e-12), parabola(response, yx[keep]), height[keep] >= high
    first = None
    if scale.kind == "lattice" and len(place):
        place, ratio, first = second_look(level, column_sigma_px, place, radius, scale.noise_fraction < CLEAN_FRACTION)
        first[:, :2] = level.to_frame(first[:, :2])
        sure = ratio > SURE_TIMES
    found = Candidates(level.to_frame(place), ratio / (1.0 + np.maximum(ratio, 0.0)), first)
    enough = ratio >= 1.0
    found, sure = found.take(enough), sure[enough]
    # peaks of noise crowd the spacing that was seen; the spectrum's planes are the safer measure of who is near
    return found.take(_supported(found.yx_px, sure, float(np.fmax(scale.spacing_px, scale.plane_px))))


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
        levels = Levels(prepared.image)
        prepared, scale = self.oriented(prepared, levels)
        if not scale.found:
            return Detections.empty(int(Flag.EMPTY | Flag.NO_SCALE) | prepared.frame_flags)
        if prepared.image is not levels.pixels:
            levels = Levels(prepared.image)
        sigma = scale.column_sigma_px
        found = candidates(levels.fitting(sigma), sigma, scale, self._detect.threshold)
        least = None
        if self._detect.min_separation is not None:
            least = separation_px(self._detect.min_separation, scale.spacing_px, frame.pixel_size_yx_nm)
        faintest = FAINTEST_PART if scale.kind == "lattice" and self._detect.threshold is None else 0.0
        return collect(
            prepared, found.yx_px, found.score, sigma, least_px=least, plane_px=scale.plane_px, faintest_part=faintest,
            fit_width=scale.noise_fraction < CLEAN_FRACTION, first=found.first, mode=self._detect.refine,
        )  # fmt: skip

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Compile the kernels and allocate for frames of this shape, on a small made-up lattice."""
        rows, cols = max(shape[0], 64), max(shape[1], 64)
        y, x = np.mgrid[:rows, :cols]
        grey = (1 + np.cos(y * 0.52)) * (1 + np.cos(x * 0.45 + 0.2 * y)) * 100
        pixels = grey.astype(np.uint16)
        self.detect(Frame(-1, pixels, float("nan"), Origin("warm-up")))

    def oriented(self, prepared: Prepared, levels: Levels | None = None) -> tuple[Prepared, Scale]:
        """The frame with bright columns, and its scale; `auto` takes the sign with the taller, rarer peaks.

        `levels`, if given, holds the reductions of `prepared.image`.
        """
        polarity = self._frame.polarity
        given = levels or Levels(prepared.image)
        if polarity == "bright":
            return prepared, estimate_scale(prepared.image, given)
        inverted = replace(
            prepared,
            image=np.max(prepared.image) - prepared.image,
            ceiling=float("inf"),
        )
        if polarity == "dark":
            return inverted, estimate_scale(inverted.image)
        both = [(prepared, given), (inverted, Levels(inverted.image))]
        ranked = [(p, estimate_scale(p.image, made), made) for p, made in both]
        best = max(ranked, key=lambda one: self._merit(one[1], one[2]))
        return best[0], best[1]

    @staticmethod
    def _merit(scale: Scale, levels: Levels) -> float:
        if not scale.found:
            return -np.inf
        level = levels.fitting(scale.column_sigma_px)
        response = band_pass(level.image, level.sigma_px(scale.column_sigma_px)).astype(np.float64)
        return float(np.mean((response / max(response.std(), 1e-12)) ** 3))
