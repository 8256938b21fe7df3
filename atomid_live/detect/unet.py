"""The network as a detector: same scale, resampling, peaks and refinement as `dog`; only the map is learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from atomid_live.detect.columns import collect
from atomid_live.detect.dog import CLEAN_FRACTION, FAINTEST_PART, SUPPORT_SPACINGS, SUPPORTERS, DogDetector, separation_px
from atomid_live.detect.dog_filter import band_pass
from atomid_live.detect.local_contrast import local_contrast
from atomid_live.detect.normalise import Prepared, prepare
from atomid_live.detect.peaks import find_peaks, parabola
from atomid_live.detect.refine import quick_fit
from atomid_live.detect.resample import to_canonical
from atomid_live.detect.spacing import SMALLEST_SIGMA_PX, Scale, sparse_noise
from atomid_live.flags import Flag
from atomid_live.protocols import Maps, Network
from atomid_live.settings import DetectSettings, FrameSettings
from atomid_live.types import NAN, Detections, FloatArray, Frame

Image = NDArray[np.float32]

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
# Peaks down to this height are columns if they are this part as tall as the bright ones and stand among columns.
LOW, DOUBTFUL_PART, COMPANY_ROUNDS = 0.03, 0.5, 3
BRIGHT_QUANTILE, REFERENCES = 0.75, 400
# In a frame with little noise a peak no higher than this must be this part as tall too: there a vacancy or vacuum is seen.
LITTLE_NOISE, CERTAIN, CLEAR_PART = 0.35, 0.5, 0.4
OTHER_SCALES = (0.5, 0.25, 2.0)
SPACING_AGREES = 1.7


class Card(Protocol):
    """What the detector needs to know of an engine."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def card(self) -> Mapping[str, Any]:
        """All of the card."""

    @property
    def sha256(self) -> str:
        """Hash of the model file."""


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """Least height of a peak, following the frame: where dose is low, all peaks of the map are.

    Attributes
    ----------
    typical, least : tuple of float
        Knots: the `quantile` of the frame's peak heights, ascending, and the threshold there; straight lines between.
    quantile : float
        Of the peaks above `FLOOR`.
    """

    typical: tuple[float, ...]
    least: tuple[float, ...]
    quantile: float = 0.75

    def at(self, height: FloatArray) -> float:
        """Threshold for a frame with peaks of these heights."""
        if not len(height):
            return self.least[0]
        return float(np.interp(np.quantile(height, self.quantile), self.typical, self.least))


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What the network saw in a frame.

    Attributes
    ----------
    prepared, scale : Prepared, Scale
        The frame with bright columns, and what its pixels say of the scale.
    column_sigma_px, spacing_px : float
        Width of a column in pixels of the frame as finally taken, and the network's mean spacing.
    yx_px, height : ndarray, shapes (N, 2), (N,)
        Peaks of the map in pixels of the frame, highest first, and their heights (0 to 1).
    significance : ndarray, shape (N,)
        Band-passed image there in standard deviations of its noise; infinite in a lattice, where it is not asked.
    """

    prepared: Prepared
    scale: Scale
    column_sigma_px: float
    spacing_px: float
    yx_px: FloatArray = field(repr=False)
    height: FloatArray = field(repr=False)
    significance: FloatArray = field(repr=False)


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
    significance: FloatArray


def scores(height: FloatArray, least: float) -> FloatArray:
    """Heights (0 to 1) as scores (0 to 1) that keep their order, with 0.5 at the threshold."""
    return np.asarray(np.interp(height, [0.0, least, 1.0], [0.0, 0.5, 1.0]))


def padded(image: Image, multiple: int = SIDE_MULTIPLE) -> Image:
    """Image with zeros below and to the right, sides multiples of `multiple`; zero is the local mean."""
    rows, cols = (-(-n // multiple) * multiple for n in image.shape)
    out = np.zeros((rows, cols), np.float32)
    out[: image.shape[0], : image.shape[1]] = image
    return out


def map_peaks(maps: Maps, shape: tuple[int, int], sigma_px: float) -> tuple[FloatArray, FloatArray]:
    """Peaks of a confidence map, highest first: positions (N, 2) in pixels of the image of `shape`, and heights (N,)."""
    stride = maps.stride
    inner = np.ascontiguousarray(maps.confidence[: -(-shape[0] // stride), : -(-shape[1] // stride)])
    yx, height = find_peaks(inner, FLOOR, RADIUS_SIGMA * sigma_px / stride)
    return stride * parabola(inner, yx) + 0.5 * (stride - 1), height


def significance(contrast: Image, yx_px: FloatArray, sigma_px: float) -> FloatArray:
    """Band-passed image at positions (N, 2), in standard deviations of its noise, shape (N,).

    Single atoms stand on speckle that a network trained on lattices too is easily fond of; the matched filter is not.
    """
    response = band_pass(contrast, sigma_px)
    index = np.clip(np.rint(yx_px).astype(np.int64), 0, np.array(response.shape) - 1)
    return np.asarray(response[index[:, 0], index[:, 1]] / sparse_noise(response, contrast, sigma_px), np.float64)


def with_company(look: Look, sure: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Columns of a lattice: the sure peaks, and low ones as bright as columns that stand among columns, shape (N,).

    Contamination and noise lower the peaks of a part of the columns; what tells them from chance is that they are half as
    tall as the bright ones on the raw pixels and have two columns within 1.7 spacings.
    """
    chosen = sure.copy()
    if not sure.any():
        return chosen
    shy = sure & (look.height < CERTAIN) if look.scale.noise_fraction < LITTLE_NOISE else np.zeros_like(sure)
    doubtful = ~sure & (look.height > LOW)
    tested = np.flatnonzero(shy | doubtful)
    if not len(tested):
        return chosen
    known = np.flatnonzero(sure & ~shy) if (sure & ~shy).any() else np.flatnonzero(sure)
    known = known[:: max(1, len(known) // REFERENCES)]
    height = _raw_height(look, np.concatenate([known, tested]))
    tall = height[len(known) :] / max(float(np.quantile(height[: len(known)], BRIGHT_QUANTILE)), 1e-30)
    chosen[tested[shy[tested] & (tall < CLEAR_PART)]] = False
    open_ = tested[doubtful[tested] & (tall > DOUBTFUL_PART)]
    reach = SUPPORT_SPACINGS * float(np.fmax(look.scale.spacing_px, look.scale.plane_px))
    for _ in range(COMPANY_ROUNDS):
        if not len(open_) or np.count_nonzero(chosen) < SUPPORTERS or not np.isfinite(reach):
            break
        distance = cKDTree(look.yx_px[chosen]).query(look.yx_px[open_], k=SUPPORTERS)[0][:, -1]
        chosen[open_[distance <= reach]] = True
        open_ = open_[distance > reach]
    return chosen


def _raw_height(look: Look, which: NDArray[np.int64]) -> FloatArray:
    """Height of a Gaussian of the column's width on a constant, fitted to the raw pixels at some peaks."""
    return quick_fit(look.prepared.image, look.yx_px[which], look.column_sigma_px)[:, 2]


def _agree(spacing_px: float, learned_px: float) -> bool:
    """Whether the columns are as far apart as the network expected; a missing number contradicts nothing."""
    ratio = spacing_px / learned_px if learned_px > 0 else NAN
    return not np.isfinite(ratio) or 1.0 / SPACING_AGREES < ratio < SPACING_AGREES


class UnetDetector:
    """Network detector on a processor (protocols.Detector).

    Parameters
    ----------
    network : Network
        Opened; the caller closes it.
    engine : Card
        The engine it came from.
    detect, frame : DetectSettings, FrameSettings
        `threshold`, `min_separation` and `polarity` are heeded.
    """

    def __init__(
        self, network: Network, engine: Card, detect: DetectSettings | None = None, frame: FrameSettings | None = None
    ) -> None:
        self._network = network
        self._engine = engine
        self._detect = detect or DetectSettings()
        self._dog = DogDetector(detect, frame)
        rules = engine.card["threshold"]
        self._rules = {
            kind: ThresholdRule(tuple(rules[f"{kind}_typical"]), tuple(rules[f"{kind}_least"]), float(rules["quantile"]))
            for kind in ("lattice", "sparse")
        }
        self._significance = float(rules["sparse_significance"])

    @property
    def name(self) -> str:
        """Back end and model."""
        return self._network.name

    @property
    def card(self) -> dict[str, object]:
        """What the session file records of the model."""
        return {"engine": self._engine.name, "sha256": self._engine.sha256}

    def detect(self, frame: Frame) -> Detections:
        """Find the columns of a frame; nothing found is an empty answer with the reason among its flags."""
        look = self.look(frame.pixels)
        if look is None:
            constant = prepare(frame.pixels).frame_flags
            return Detections.empty(int(Flag.EMPTY | Flag.NO_SCALE) | constant)
        score = scores(look.height, self._rules[look.scale.kind].at(look.height))
        keep = self._chosen(look, score)
        least = None
        if self._detect.min_separation is not None:
            spacing = look.scale.spacing_px if np.isfinite(look.scale.spacing_px) else look.spacing_px
            least = separation_px(self._detect.min_separation, spacing, frame.pixel_size_yx_nm)
        found = collect(
            look.prepared,
            look.yx_px[keep],
            # what company has brought in counts as found
            np.maximum(score[keep], 0.5) if self._detect.threshold is None else score[keep],
            look.column_sigma_px,
            least_px=least,
            plane_px=look.scale.plane_px,
            faintest_part=FAINTEST_PART if look.scale.kind == "lattice" and self._detect.threshold is None else 0.0,
            fit_width=look.scale.noise_fraction < CLEAN_FRACTION,
        )
        odd = look.scale.kind == "lattice" and not _agree(found.spacing_px, look.spacing_px)
        return replace(found, frame_flags=found.frame_flags | int(Flag.SPACING_ODD)) if odd else found

    def _chosen(self, look: Look, score: FloatArray) -> NDArray[np.bool_]:
        """Which peaks are columns: by their score alone where a threshold was asked for, else as the kind of scene wants it."""
        if self._detect.threshold is not None:
            return np.asarray(score >= self._detect.threshold)
        if look.scale.kind == "sparse":
            return np.asarray((score >= 0.5) & (look.significance >= self._significance))
        return with_company(look, score >= 0.5)

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
        sight = self._settle(prepared.image, scale.column_sigma_px, scale.kind)
        if scale.kind == "lattice" and sight.merit < WEAK:
            sizes = [part * scale.column_sigma_px for part in OTHER_SCALES]
            others = [self._settle(prepared.image, size, scale.kind) for size in sizes if size >= SMALLEST_SIGMA_PX]
            best = max(others, key=lambda other: other.merit, default=sight)
            sight = best if best.merit > CONVINCING else sight
        return Look(
            prepared, scale, sight.column_sigma_px, sight.spacing_px, sight.yx_px, sight.height, sight.significance
        )  # fmt: skip

    def _settle(self, image: Image, sigma_px: float, kind: str) -> _Sight:
        """Run the network at a scale, and at the one that it finds there as long as it then sees no less."""
        sight = self._see(image, sigma_px, kind)
        for _ in range(SECOND_LOOKS):
            if not np.isfinite(sight.ratio) or NARROWER < sight.ratio < WIDER or (sight.whole and sight.ratio < 1.0):
                break
            other = self._see(image, sight.column_sigma_px * min(max(sight.ratio, 0.5), 2.0), kind)
            if other.merit < sight.merit - (SLACK if kind == "lattice" else 0.0):
                break
            sight = other
        return sight

    def _see(self, image: Image, sigma_px: float, kind: str) -> _Sight:
        """Run the network at one scale."""
        canonical = to_canonical(image, sigma_px)
        factor = sqrt(canonical.factor_yx[0] * canonical.factor_yx[1])
        contrast = local_contrast(canonical.image)
        maps = self._network.infer(padded(contrast))
        yx, height = map_peaks(maps, contrast.shape, sigma_px * factor)
        clear = np.full(len(yx), np.inf) if kind == "lattice" else significance(contrast, yx, sigma_px * factor)
        counted = height if kind == "lattice" else height[clear >= self._significance]
        merit = float(np.quantile(counted, 0.75 if kind == "lattice" else 0.5)) if len(counted) else 0.0
        ratio = maps.column_sigma_px / (sigma_px * factor)
        return _Sight(
            sigma_px, ratio, factor == 1.0, merit, maps.spacing_px / factor, canonical.to_frame(yx), height, clear
        )  # fmt: skip

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Compile the kernels and the network for frames of this shape."""
        self._dog.warm_up(shape)
        rows, cols = (-(-n // SIDE_MULTIPLE) * SIDE_MULTIPLE for n in shape)
        self._network.infer(np.zeros((rows, cols), np.float32))
