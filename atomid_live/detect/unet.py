"""The network as a detector: same scale, resampling, peaks and refinement as `dog`; only the map is learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atomid_live.detect.columns import collect
from atomid_live.detect.dog import DogDetector, separation_px
from atomid_live.detect.local_contrast import local_contrast
from atomid_live.detect.normalise import prepare
from atomid_live.detect.peaks import find_peaks, parabola
from atomid_live.detect.resample import to_canonical
from atomid_live.detect.spacing import Scale
from atomid_live.flags import Flag
from atomid_live.protocols import Maps, Network
from atomid_live.settings import DetectSettings, FrameSettings
from atomid_live.types import Detections, FloatArray, Frame

Image = NDArray[np.float32]

# Sides are rounded up to this, so that frames of a session share few compiled shapes.
SIDE_MULTIPLE = 64
FLOOR = 0.03
RADIUS_SIGMA = 2.0


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
        table = engine.card["threshold"]
        self._rules = {
            kind: ThresholdRule(tuple(rule["typical"]), tuple(rule["least"]), float(rule["quantile"]))
            for kind, rule in table.items()
        }

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
        prepared = prepare(frame.pixels)
        if prepared.frame_flags & Flag.CONSTANT:
            return Detections.empty(int(Flag.EMPTY | Flag.NO_SCALE) | prepared.frame_flags)
        prepared, scale = self._dog._oriented(prepared)
        if not scale.found:
            return Detections.empty(int(Flag.EMPTY | Flag.NO_SCALE) | prepared.frame_flags)
        canonical = to_canonical(prepared.image, scale.column_sigma_px)
        factor = sqrt(canonical.factor_yx[0] * canonical.factor_yx[1])
        yx, score = self.candidates(canonical.image, scale.column_sigma_px * factor, scale)
        least = None
        if self._detect.min_separation is not None:
            least = separation_px(self._detect.min_separation, scale.spacing_px, frame.pixel_size_yx_nm)
        places = canonical.to_frame(yx)
        return collect(prepared, places, score, scale.column_sigma_px, least_px=least, plane_px=scale.plane_px)

    def candidates(self, image: Image, sigma_px: float, scale: Scale) -> tuple[FloatArray, FloatArray]:
        """Columns of a canonical image: positions (N, 2) in its pixels and scores (N,)."""
        maps = self._network.infer(padded(local_contrast(image)))
        yx, height = map_peaks(maps, image.shape, sigma_px)
        score = scores(height, self._rules[scale.kind].at(height))
        keep = score >= (0.5 if self._detect.threshold is None else self._detect.threshold)
        return yx[keep], score[keep]

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Compile the kernels and the network for frames of this shape."""
        self._dog.warm_up(shape)
        side = tuple(-(-n // SIDE_MULTIPLE) * SIDE_MULTIPLE for n in shape)
        self._network.infer(np.zeros(side, np.float32))
