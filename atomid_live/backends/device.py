"""The detector whose frame goes to the GPU as raw pixels and comes back as columns (protocols.Detector).

The host decides the scale from the pixels, as `UnetDetector` does; all else, from normalisation to refined positions, runs on
one stream, is captured as one CUDA graph per shape, and is waited for once. In noisy lattices the host sees the map before.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atomid_live.backends.device_chain import Chain, Seen
from atomid_live.backends.engine import Engine
from atomid_live.detect.columns import _odd
from atomid_live.detect.dog import CLEAN_FRACTION, DogDetector, separation_px
from atomid_live.detect.limits import out_of_range
from atomid_live.detect.look import (
    CONVINCING,
    FLOOR,
    INPUT_SIGMA_PX,
    NARROWER,
    NOISY,
    OTHER_SCALES,
    RADIUS_SIGMA,
    SECOND_LOOKS,
    SIDE_MULTIPLE,
    SLACK,
    WEAK,
    WIDER,
)
from atomid_live.detect.normalise import Prepared, prepare
from atomid_live.detect.refine import FAILED_SIGMA, LOW_DOSE, MOST_LOW_DOSE, _common
from atomid_live.detect.spacing import SMALLEST_SIGMA_PX, Scale
from atomid_live.detect.support import translations
from atomid_live.detect.unet import agree, flagged, read_judge, sees_nothing
from atomid_live.flags import Flag
from atomid_live.kernels.frame_params import MapRule, canonical_shape, fill
from atomid_live.kernels.judge import DeviceJudge
from atomid_live.kernels.launch import Launcher
from atomid_live.kernels.layout import Answer
from atomid_live.kernels.reference_fit import round_window
from atomid_live.kernels.stages import RAW_TYPES
from atomid_live.settings import DetectSettings, FrameSettings
from atomid_live.types import NAN, Detections, FloatArray, Frame

CHAINS_KEPT = 6
ROOM = 16384
HELD_FRAMES = 50


class DeviceNetwork(Protocol):
    """A network on the device of a launcher; opened by whoever closes it."""

    @property
    def name(self) -> str:
        """Back end and model, e.g. "tensorrt:unet-fp16"."""

    @property
    def stride(self) -> int:
        """Input pixels per pixel of the map."""

    @property
    def capturable(self) -> bool:
        """Whether its run may become part of a CUDA graph."""

    def bind(self, image: Any) -> Any:
        """Return a function without arguments that runs the network on the current stream.

        It reads `image`, a tensor (1, 1, rows, cols) that stays where it is, and returns the map (rows / stride, cols / stride)
        and a tensor of (spacing in px, column width in px), NaN where the network has no opinion.
        """

    def close(self) -> None:
        """Release the device."""


@dataclass(frozen=True, slots=True)
class _Oriented:
    """A frame's scale and which way up its columns are."""

    scale: Scale
    inverted: bool


class DeviceDetector:
    """Network detector on a GPU.

    Parameters
    ----------
    engine : Engine
        Its judge says which peaks are columns.
    network : DeviceNetwork
        Opened; `close` closes it.
    run : Launcher
        Where the kernels run.
    detect, frame : DetectSettings, FrameSettings
        `threshold`, `min_separation` and `polarity` are heeded.
    hold_scale : bool
        Take the scale of an earlier frame of the same shape and pixel size (renewed every 50 frames and whenever the network
        disagrees). Faster, and then an answer depends on the frames before it.
    """

    def __init__(
        self,
        engine: Engine,
        network: DeviceNetwork,
        run: Launcher,
        detect: DetectSettings | None = None,
        frame: FrameSettings | None = None,
        *,
        hold_scale: bool = False,
    ) -> None:
        self._engine, self._network, self._run = engine, network, run
        self._detect = detect or DetectSettings()
        self._dog = DogDetector(detect, frame)
        self._judge = DeviceJudge.on(read_judge(engine), run.device)
        self._chains: OrderedDict[tuple[object, ...], Chain] = OrderedDict()
        self._hold, self._held = hold_scale, dict[tuple[object, ...], tuple[_Oriented, int]]()

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
        none = Detections.empty(int(Flag.EMPTY | Flag.NO_SCALE) | prepared.frame_flags)
        if prepared.frame_flags & Flag.CONSTANT:
            return none
        oriented = self._orient(prepared, frame)
        if not oriented.scale.found:
            return none
        seen, sigma = self._look(frame, prepared, oriented)
        settled = replace(oriented.scale, column_sigma_px=sigma)
        beyond = out_of_range(settled, frame.shape, seen.answer[:, Answer.HEIGHT])
        outside = int(Flag.MODEL_OUT_OF_RANGE) if beyond.worst > 1.0 else 0
        if max(beyond.scale, beyond.texture) > 1.0 and self._detect.threshold is None:
            return flagged(self._dog.detect(frame), outside)
        columns = int(np.count_nonzero(seen.answer[:, Answer.KEPT] > 0))
        if self._detect.threshold is None and sees_nothing(oriented.scale, columns):
            return flagged(self._dog.detect(frame), int(Flag.MODEL_OUT_OF_RANGE))
        return flagged(_detections(seen, prepared.frame_flags, oriented.scale, sigma), outside)

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Allocate, compile and capture for frames of this shape that need no reduction."""
        self._dog.warm_up(shape)
        rows, cols = (_up(n) for n in shape)
        self._chain(shape, "uint16", (rows, cols), ROOM)

    @property
    def last_chain(self) -> Chain:
        """The chain of the last frame, for those who measure it."""
        return next(reversed(self._chains.values()))

    def close(self) -> None:
        """Release graphs, buffers and the network."""
        self._chains.clear()
        self._network.close()

    def _orient(self, prepared: Prepared, frame: Frame) -> _Oriented:
        key = (frame.shape, frame.pixel_size_yx_nm if all(np.isfinite(frame.pixel_size_yx_nm)) else None)
        held = self._held.get(key)
        if self._hold and held is not None and held[1] > 0:
            self._held[key] = held[0], held[1] - 1
            return held[0]
        turned, scale = self._dog.oriented(prepared)
        oriented = _Oriented(scale, turned is not prepared)
        if self._hold and scale.found:
            self._held[key] = oriented, HELD_FRAMES
        return oriented

    def _least_px(self, frame: Frame, spacing_px: float) -> float | None:
        asked = self._detect.min_separation
        return None if asked is None else separation_px(asked, spacing_px, frame.pixel_size_yx_nm)

    def _look(self, frame: Frame, prepared: Prepared, oriented: _Oriented) -> tuple[Seen, float]:
        """Run the chain at the scale that the network agrees with (as `UnetDetector.look`)."""
        scale = oriented.scale
        sight = self._settle(frame, prepared, oriented, scale.column_sigma_px)
        if scale.kind == "lattice" and sight[0].merit < WEAK:
            sizes = [part * scale.column_sigma_px for part in OTHER_SCALES]
            others = [self._settle(frame, prepared, oriented, size) for size in sizes if size >= SMALLEST_SIGMA_PX]
            best = max(others, key=lambda other: other[0].merit, default=sight)
            sight = best if best[0].merit > CONVINCING else sight
        return sight

    def _settle(self, frame: Frame, prepared: Prepared, oriented: _Oriented, sigma_px: float) -> tuple[Seen, float]:
        """Run at a scale, and at the one that the network finds there as long as it then sees no less."""
        seen, sigma = self._see(frame, prepared, oriented, sigma_px), sigma_px
        for _ in range(SECOND_LOOKS):
            whole = canonical_shape(frame.shape, INPUT_SIGMA_PX / sigma) == frame.shape
            ratio = seen.column_sigma_px
            if not np.isfinite(ratio) or NARROWER < ratio < WIDER or (whole and ratio < 1.0):
                break
            self._held.clear()
            wider = sigma * min(max(ratio, 0.5), 2.0)
            other = self._see(frame, prepared, oriented, wider)
            if other.merit < seen.merit - (SLACK if oriented.scale.kind == "lattice" else 0.0):
                break
            seen, sigma = other, wider
        return seen, sigma

    def _see(self, frame: Frame, prepared: Prepared, oriented: _Oriented, sigma: float) -> Seen:
        """Run at one scale; the network's opinions come back in pixels of the frame, and as found over assumed width."""
        small = canonical_shape(frame.shape, INPUT_SIGMA_PX / sigma)
        factor = sqrt(small[0] / frame.shape[0] * small[1] / frame.shape[1])
        spacing = oriented.scale.spacing_px
        seen = self._once(frame, prepared, oriented, sigma, small, self._least_px(frame, spacing))
        if self._detect.min_separation is not None and np.isfinite(seen.spacing_px) and not np.isfinite(spacing):
            # only the network knows the spacing that the least distance is a part of
            seen = self._once(frame, prepared, oriented, sigma, small, self._least_px(frame, seen.spacing_px / factor))
        return replace(seen, spacing_px=seen.spacing_px / factor, column_sigma_px=seen.column_sigma_px / (sigma * factor))

    def _once(
        self,
        frame: Frame,
        prepared: Prepared,
        oriented: _Oriented,
        sigma: float,
        small: tuple[int, int],
        least_px: float | None,
    ) -> Seen:
        raw, base = frame.pixels, prepared
        if prepared.frame_flags & Flag.SANITISED or raw.dtype.name not in RAW_TYPES:
            raw, base = prepared.image, replace(prepared, offset=0.0)
        padded = _up(small[0]), _up(small[1])
        scale, factor = oriented.scale, sqrt(small[0] / frame.shape[0] * small[1] / frame.shape[1])
        rule = self._map_rule(scale, sigma * factor)
        kind = "noisy" if scale.kind == "lattice" and scale.noise_fraction > NOISY else scale.kind
        clean = scale.noise_fraction < CLEAN_FRACTION

        def params(rule: MapRule) -> FloatArray:
            turned = oriented.inverted
            return fill(base, sigma, small, padded, rule, inverted=turned, least_px=least_px, fit_width=clean)

        if kind == "noisy":
            rule = replace(rule, vectors=self._vectors(raw, params(rule), padded, small, rule))
        return self._seen(raw, params(rule), padded, kind=kind)

    def _vectors(
        self, raw: NDArray[Any], param: FloatArray, padded: tuple[int, int], small: tuple[int, int], rule: MapRule
    ) -> tuple[tuple[int, int], ...]:
        """Vectors by which the map repeats: in a noisy frame the host looks at the map once, before the judge is asked."""
        chain = self._chain((raw.shape[0], raw.shape[1]), raw.dtype.name, padded, ROOM, kind="noisy")
        stride = self._network.stride
        inner = chain.map(raw, param)[: -(-small[0] // stride), : -(-small[1] // stride)]
        found = translations(np.ascontiguousarray(inner), rule.radius_px)
        return tuple((int(y), int(x)) for y, x in found)

    def _map_rule(self, scale: Scale, sigma_px: float) -> MapRule:
        stride, asked = self._network.stride, self._detect.threshold
        lattice = scale.kind == "lattice"
        threshold = NAN if asked is None else asked
        return MapRule(stride, FLOOR, RADIUS_SIGMA * sigma_px / stride, threshold, lattice, scale.noise_fraction)

    def _seen(self, raw: NDArray[Any], param: FloatArray, padded: tuple[int, int], *, kind: str) -> Seen:
        room = ROOM
        while True:
            seen = self._chain((raw.shape[0], raw.shape[1]), raw.dtype.name, padded, room, kind=kind)(raw, param)
            if seen.found <= room:
                return seen
            # more peaks than there was room for: once more with enough, and so for later frames of this kind
            room = 1 << (seen.found - 1).bit_length()

    def _chain(self, shape: tuple[int, int], dtype: str, padded: tuple[int, int], room: int, *, kind: str = "lattice") -> Chain:
        key = (shape, dtype, padded, kind)
        chain = self._chains.get(key)
        if chain is None or chain.room < room:
            self._chains.pop(key, None)
            chain = Chain(self._run, self._network, shape, dtype, padded, room, judge=self._judge, kind=kind)
            self._chains[key] = chain
            if len(self._chains) > CHAINS_KEPT:
                self._chains.popitem(last=False)
        self._chains.move_to_end(key)
        return chain


def _up(length: int) -> int:
    """Next multiple of `SIDE_MULTIPLE`."""
    return -(-length // SIDE_MULTIPLE) * SIDE_MULTIPLE


def _errors(seen: Seen) -> FloatArray:
    """Standard errors (N, 2) from the fits' variances, as at the end of `detect.refine.refine`."""
    variance = seen.answer[:, [Answer.VAR_Y, Answer.VAR_X]]
    failed = (seen.answer[:, Answer.FLAGS].astype(np.int64) & int(Flag.FIT_FAILED)) > 0
    sigma = seen.fitted_sigma_px
    variance = variance * _common(seen.pool, 2 * round_window(sigma)[1] + 1)
    error = np.maximum(np.sqrt(variance * (1.0 + np.minimum(LOW_DOSE * variance / sigma**2, MOST_LOW_DOSE))), 1e-3)
    error[failed] = np.maximum(FAILED_SIGMA * sigma, 2.0 * np.median(error[~failed], axis=0) if not failed.all() else 0.0)
    return np.asarray(error)


def _detections(seen: Seen, frame_flags: int, scale: Scale, sigma_px: float) -> Detections:
    """Order the device's table by (y, x) and make it the frame's answer."""
    kept = seen.answer[:, Answer.KEPT] > 0
    rows, error = seen.answer[kept], _errors(seen)[kept] if kept.any() else np.empty((0, 2))
    if not len(rows):
        return Detections.empty(int(Flag.EMPTY) | frame_flags, sigma_px)
    order = np.lexsort((rows[:, Answer.X], rows[:, Answer.Y]))
    rows, error = rows[order], error[order]
    spacing = float(rows[:, Answer.NEAREST].mean()) if len(rows) > 1 else NAN
    disagrees = scale.kind == "lattice" and not agree(spacing, seen.spacing_px)
    odd = int(Flag.SPACING_ODD) if disagrees or _odd(spacing, scale.plane_px) else 0
    return Detections(
        rows[:, [Answer.Y, Answer.X]],
        rows[:, Answer.SCORE].copy(),
        error,
        rows[:, Answer.AMPLITUDE].copy(),
        rows[:, Answer.FLAGS].astype(np.int64),
        spacing,
        seen.fitted_sigma_px,
        frame_flags | odd,
    )
