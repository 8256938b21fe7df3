"""One frame in, one result out: the same path for live, replay and batch; no thread, no file, no screen.

`measure` is pure and may run in any order; `track` keeps the past (drift, strain reference, monitor, column tracks) and must
see the frames strictly in sequence order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from types import MappingProxyType

import numpy as np

from atomid_live.calibration import calibrated, find_profile, read_profile
from atomid_live.detect.bright import bright_only
from atomid_live.detect.limits import pixel_size_contradiction
from atomid_live.drift.match import Seen
from atomid_live.drift.segments import SegmentKeeper
from atomid_live.drift.tracker import DriftTracker
from atomid_live.flags import Flag
from atomid_live.lanes import beside
from atomid_live.lattice import find_lattice
from atomid_live.protocols import Detector
from atomid_live.settings import Settings
from atomid_live.simulate.acquire import Session
from atomid_live.simulate.publish import as_frame
from atomid_live.simulate.scenario import Scenario
from atomid_live.strain import warm_up as warm_up_strain
from atomid_live.strain.gpa import gpa
from atomid_live.strain.tracker import StrainTracker
from atomid_live.tracks import TrackTracker
from atomid_live.types import Detections, Frame, GpaField, Lattice, Measurement, Result

log = logging.getLogger(__name__)

_WARM_UP_FRAMES = 3
STAGES = ("detect", "lattice", "gpa", "drift", "strain", "tracks")


def _rehearsal(shape: tuple[int, int]) -> Scenario:
    return Scenario(crystal="mos2", shape=shape, pixel_size_nm=0.02, frames=_WARM_UP_FRAMES, drift_px_per_frame=(0.7, -1.3))


class Stopwatch:
    """Milliseconds per named stage."""

    def __init__(self, before: Mapping[str, float] = MappingProxyType({}), clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self.ms: dict[str, float] = dict(before)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what runs inside the `with` block."""
        begun = self._clock()
        try:
            yield
        finally:
            self.ms[name] = (self._clock() - begun) * 1e3


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """What one frame alone tells; GPA and what the drift tracker has `seen` of it may still be on their way."""

    detections: Detections
    lattice: Lattice
    gpa: Callable[[], GpaField]
    seen: Callable[[], Seen | None]


def _frame_flags(frame: Frame, detections: Detections) -> int:
    flags = 0
    if not all(np.isfinite(frame.pixel_size_yx_nm)):
        flags |= Flag.UNCALIBRATED
    if frame.time_source == "estimated":
        flags |= Flag.TIME_ESTIMATED
    if frame.display_scaled:
        flags |= Flag.DISPLAY_SCALED
    if pixel_size_contradiction(detections, frame.pixel_size_yx_nm):
        flags |= Flag.PIXEL_SIZE_ODD
    return int(flags)


class Pipeline:
    """Detector, drift tracker and strain tracker in their order."""

    def __init__(self, detector: Detector, settings: Settings) -> None:
        self.detector = detector
        self._settings = settings
        self._segments = SegmentKeeper(settings.drift)
        self._drift = DriftTracker(settings.drift)
        self._strain = StrainTracker(settings.strain)
        self._tracks = TrackTracker(settings)
        named = settings.frame.calibration
        self._profile = read_profile(find_profile(named)) if named else None
        self._pixel_size_said = ""

    def _calibrated(self, frame: Frame) -> Frame:
        return calibrated(frame, self._profile) if self._profile is not None else frame

    def _say_pixel_size(self, frame: Frame, detections: Detections) -> None:
        """Tell once, not with every frame, that a pixel size cannot be right, and why."""
        reason = pixel_size_contradiction(detections, frame.pixel_size_yx_nm)
        if reason and not self._pixel_size_said:
            log.warning("pixel size %.4g nm (from %s): %s", frame.pixel_size_yx_nm[1], frame.scale_source, reason)
        self._pixel_size_said = reason

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Compile and allocate everything for frames of this shape, leaving no trace in the trackers.

        A few simulated frames go through a pipeline that is thrown away: code that only a second or third frame reaches
        (registration, a complete strain reference) is compiled too.
        """
        self.detector.warm_up(shape)
        warm_up_strain()
        changes = {
            "strain": self._settings.strain.model_copy(update={"reference": f"first:{_WARM_UP_FRAMES - 1}"}),
            "frame": self._settings.frame.model_copy(update={"calibration": None}),
        }
        settings = self._settings.model_copy(update=changes)
        rehearsal, frames = Pipeline(self.detector, settings), Session(_rehearsal(shape))
        rehearsal._drift.warm_up(shape)
        for frame in frames:
            rehearsal.process(as_frame(frames.scenario, frame, frame.index))

    def measure(self, frame: Frame) -> Measurement:
        """Find columns, lattice and GPA of one frame alone."""
        frame, watch = self._calibrated(frame), Stopwatch()
        detections, lattice = self._columns(frame, watch)
        phase = self._phase(frame, lattice, watch)
        return Measurement(detections, lattice, phase, MappingProxyType(watch.ms))

    def track(self, frame: Frame, measured: Measurement) -> Result:
        """Put a measurement into the history: drift, strain against the reference, monitor, column tracks."""
        parts = _Parts(measured.detections, measured.lattice, lambda: measured.gpa, lambda: None)
        return self._follow(self._calibrated(frame), parts, Stopwatch(measured.timings_ms))

    def process(self, frame: Frame) -> Result:
        """Measure and track one frame; with a second lane, what does not depend on each other runs at the same time."""
        frame, watch = self._calibrated(frame), Stopwatch()
        with beside(lambda: self._drift.look(frame)) as seen:
            detections, lattice = self._columns(frame, watch)
            with beside(lambda: self._phase(frame, lattice, watch)) as phase:
                return self._follow(frame, _Parts(detections, lattice, phase.result, seen.result), watch)

    def _columns(self, frame: Frame, watch: Stopwatch) -> tuple[Detections, Lattice]:
        with watch.stage("detect"):
            detections = self.detector.detect(frame)
            if self._settings.detect.columns == "bright":
                detections = bright_only(detections)
        with watch.stage("lattice"):
            return detections, find_lattice(detections, frame.shape)

    def _phase(self, frame: Frame, lattice: Lattice, watch: Stopwatch) -> GpaField:
        with watch.stage("gpa"):
            return gpa(frame, lattice, self._settings.strain)

    def _follow(self, frame: Frame, parts: _Parts, watch: Stopwatch) -> Result:
        detections, lattice = parts.detections, parts.lattice
        with watch.stage("drift"):
            seen = parts.seen()
            segment, segment_reason = self._segments.check(frame)
            if segment_reason:
                self._drift.reset(segment)
                self._strain.reset(segment_reason)
                self._tracks.reset(segment_reason)
            drift = self._drift.update(frame, detections, lattice, seen)
        phase = parts.gpa()
        with watch.stage("strain"):
            strain, reading = self._strain.update(frame, detections, lattice, drift, phase)
        with watch.stage("tracks"):
            tracks = self._tracks.update(frame, detections, lattice, drift, reading)
        flags = _frame_flags(frame, detections) | detections.frame_flags | lattice.flags | drift.flags | reading.flags
        self._say_pixel_size(frame, detections)
        if segment_reason:
            flags |= Flag.SEGMENT_START
        return Result(
            sequence=frame.sequence,
            shape=frame.shape,
            time_s=frame.time_s,
            time_source=frame.time_source,
            time_sigma_s=frame.time_sigma_s,
            origin=frame.origin,
            index=frame.index,
            detections=detections,
            pixel_size_yx_nm=frame.pixel_size_yx_nm,
            scale_source=frame.scale_source,
            segment=segment,
            segment_reason=segment_reason,
            drift=drift,
            lattice=lattice,
            strain=strain,
            gpa=phase,
            reading=reading,
            meta=frame.meta,
            received_ns=frame.received_ns,
            received_monotonic_s=frame.received_monotonic_s,
            timings_ms=MappingProxyType({name: watch.ms[name] for name in STAGES if name in watch.ms}),
            flags=int(flags),
            tracks=tracks,
            distortion=frame.distortion,
        )
