"""The network as a detector: scale and refinement as `dog`; the map is learned, and so is which of its peaks are columns."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Protocol

import numpy as np

from atomid_live.detect.columns import assemble
from atomid_live.detect.dog import DogDetector, separation_px
from atomid_live.detect.judge import Judge, chosen, features
from atomid_live.detect.limits import out_of_range
from atomid_live.detect.look import Look, Looker
from atomid_live.detect.normalise import prepare
from atomid_live.detect.scale import Scale
from atomid_live.errors import ModelError
from atomid_live.flags import Flag
from atomid_live.protocols import Network
from atomid_live.settings import DetectSettings, FrameSettings
from atomid_live.types import NAN, Detections, Frame

JUDGE_FILE = "judge.npz"
SPACING_AGREES = 1.7
LEAST_OF_LATTICE = 12


class Card(Protocol):
    """What the detector needs of an engine."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def sha256(self) -> str:
        """Hash of the model file."""

    def read(self, name: str) -> bytes:
        """Content of one of its files, checked against its hash."""


def read_judge(engine: Card) -> Judge:
    """Judge of an engine; `ModelError` when it has none or another kind."""
    with np.load(io.BytesIO(engine.read(JUDGE_FILE)), allow_pickle=False) as arrays:
        try:
            return Judge.from_arrays({name: arrays[name] for name in arrays.files})
        except (KeyError, ValueError) as error:
            raise ModelError(f"engine {engine.name!r}: {JUDGE_FILE} is not this program's: {error}; train it anew") from error


def agree(spacing_px: float, learned_px: float) -> bool:
    """Whether the columns are as far apart as the network expected; a missing number contradicts nothing."""
    ratio = spacing_px / learned_px if learned_px > 0 else NAN
    return not np.isfinite(ratio) or 1.0 / SPACING_AGREES < ratio < SPACING_AGREES


def sees_nothing(scale: Scale, columns: int) -> bool:
    """Whether a network has found hardly a column of a lattice whose Bragg spots are there."""
    return scale.kind == "lattice" and columns < LEAST_OF_LATTICE


def flagged(found: Detections, frame_flags: int) -> Detections:
    """The same answer with more bits that concern the frame."""
    return replace(found, frame_flags=found.frame_flags | frame_flags) if frame_flags else found


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
        self._looker = Looker(network, detect, frame)
        self._classical = DogDetector(detect, frame)
        self._judge = read_judge(engine)

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
        look = self._looker.look(frame.pixels)
        if look is None:
            constant = prepare(frame.pixels).frame_flags
            return Detections.empty(int(Flag.EMPTY | Flag.NO_SCALE) | constant)
        settled = replace(look.scale, column_sigma_px=look.peaks.column_sigma_px)
        beyond = out_of_range(settled, frame.shape, look.peaks.height)
        outside = int(Flag.MODEL_OUT_OF_RANGE) if beyond.worst > 1.0 else 0
        # at low dose the network is the better of the two even where it has seen no lower one
        if max(beyond.scale, beyond.texture) > 1.0 and self._detect.threshold is None:
            return flagged(self._classical.detect(frame), outside)
        peaks = look.peaks
        seen = features(peaks)
        score = self._judge.probability(seen)
        keep = chosen(score, seen) if self._detect.threshold is None else score >= self._detect.threshold
        if self._detect.threshold is None and sees_nothing(look.scale, int(np.count_nonzero(keep))):
            return flagged(self._classical.detect(frame), int(Flag.MODEL_OUT_OF_RANGE))
        found = assemble(
            look.prepared,
            look.refined.take(keep),
            score[keep],
            least_px=self._least_separation_px(look, frame.pixel_size_yx_nm),
            plane_px=look.scale.plane_px,
        )
        odd = look.scale.kind == "lattice" and not agree(found.spacing_px, look.spacing_px)
        return flagged(found, outside | (int(Flag.SPACING_ODD) if odd else 0))

    def _least_separation_px(self, look: Look, pixel_size_yx_nm: tuple[float, float]) -> float | None:
        if self._detect.min_separation is None:
            return None
        spacing = look.scale.spacing_px if np.isfinite(look.scale.spacing_px) else look.spacing_px
        return separation_px(self._detect.min_separation, spacing, pixel_size_yx_nm)

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Compile the kernels and the network for frames of this shape."""
        self._looker.warm_up(shape)
