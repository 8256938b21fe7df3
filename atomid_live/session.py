"""Source to pipeline to recorder, one frame after the other; counts, latencies and the snapshot that displays pull.

`run` is one thread's work. Every arrival ends in exactly one state, and the sum of the states is what was received.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Lock
from typing import Protocol

import numpy as np

from atomid_live.errors import AtomidError, InputGoneError, RecordingError
from atomid_live.pipeline import Pipeline
from atomid_live.protocols import Clock, Sink, Source
from atomid_live.sinks.view import History, Snapshot
from atomid_live.types import NAN, Arrival, Frame, FrameState, Refused, Result, SessionStatus

log = logging.getLogger(__name__)

_LATENCIES_KEPT = 2000
_DISK_EVERY_S = 2.0


class SystemClock:
    """The machine's own clocks (`protocols.Clock`)."""

    def time_ns(self) -> int:
        """Wall clock in ns since 1970 UTC."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()


class SessionRecorder(Protocol):
    """What the session needs of its recorder."""

    @property
    def pictures_skipped(self) -> int:
        """Annotated frames left out because the writer was busy or the disk nearly full."""

    @property
    def problem(self) -> str:
        """What keeps tables or pictures from being saved, "" when nothing does."""

    def write(self, frame: Frame, result: Result) -> None:
        """Record a processed frame, or raise `RecordingError`."""

    def refuse(self, refused: Refused) -> None:
        """Record a frame that was not processed, or raise `RecordingError`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended: `clean` for a normal end, and the reason in words."""

    clean: bool
    reason: str
    error: AtomidError | None = None


class Session:
    """One run over one source.

    Parameters
    ----------
    source, pipeline, recorder
        The three organs; none is closed here.
    folder : Path
        The session folder, shown to the user and watched for free space.
    numbers : iterator of int
        Sequence numbers, from the first free one.
    courtesies : sequence of Sink
        Publishers and the like: their errors are logged and forgotten.
    """

    def __init__(
        self,
        source: Source,
        pipeline: Pipeline,
        recorder: SessionRecorder,
        folder: Path,
        numbers: Iterator[int],
        courtesies: Sequence[Sink] = (),
        clock: Clock | None = None,
    ) -> None:
        self._source, self._pipeline, self._recorder = source, pipeline, recorder
        self._folder, self._numbers, self._courtesies = folder, numbers, list(courtesies)
        self._clock = clock or SystemClock()
        self._lock = Lock()
        self._counts: Counter[FrameState] = Counter()
        self._history = History()
        self._latencies: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._finished_at: deque[float] = deque(maxlen=20)
        self._last_problem, self._running, self._recording = "", True, True
        self._shown_since = NAN
        self._started_ns = self._clock.time_ns()
        self._disk: tuple[float, int] = (-1e9, -1)

    def run(self, stop: Event) -> Outcome:
        """Take arrivals until the source ends or `stop` is set; returns how it ended."""
        outcome = Outcome(True, "stopped by the user")
        try:
            for arrival in self._source.frames(self._numbers, stop):
                self._take(arrival)
                if stop.is_set():
                    break
            ended = self._source.status().ended
            if ended and not stop.is_set():
                outcome = Outcome(True, ended)
        except InputGoneError as error:
            outcome = Outcome(False, str(error), error)
        except AtomidError as error:
            log.error("session ended: %s", error)
            outcome = Outcome(False, str(error), error)
        finally:
            with self._lock:
                self._running = False
        if not self._recording and outcome.clean:
            unrecorded = RecordingError(f"recording failed: {self._last_problem}")
            outcome = Outcome(False, str(unrecorded), unrecorded)
        return outcome

    @property
    def counts(self) -> dict[str, int]:
        """Number of arrivals per state; their sum is what was received."""
        with self._lock:
            return {state.value: self._counts[state] for state in FrameState}

    def _take(self, arrival: Arrival) -> None:
        begun = self._clock.monotonic()
        if isinstance(arrival, Refused):
            self._record_refused(arrival, arrival)
            return
        try:
            result = self._pipeline.process(arrival)
        except Exception as error:  # a frame that breaks the analysis must not end the session
            log.exception("frame %d failed", arrival.sequence)
            reason = f"analysis failed: {type(error).__name__}: {error}"
            self._record_refused(arrival, self._refusal(arrival, reason))
            return
        self._record(arrival, result, begun)

    def _refusal(self, frame: Frame, reason: str) -> Refused:
        state = FrameState.FAILED
        return Refused(frame.sequence, state, reason, frame.origin, frame.time_s, frame.received_ns, frame.index)

    def _record(self, frame: Frame, result: Result, begun: float) -> None:
        taken_ms = (self._clock.monotonic() - begun) * 1e3
        result = replace(result, timings_ms={**result.timings_ms, "process": taken_ms})
        try:
            self._recorder.write(frame, result)
        except RecordingError as error:
            self._not_recorded(error)
            self._count(self._refusal(frame, f"not recorded: {error}"))
            return
        self._source.acknowledge(frame, FrameState.PROCESSED)
        now = self._clock.monotonic()
        latency = (now - begun) * 1e3
        self._history.add(result, frame.pixels, latency)
        with self._lock:
            self._counts[FrameState.PROCESSED] += 1
            self._latencies.append(latency)
            self._finished_at.append(now)
            self._shown_since = frame.received_monotonic_s if np.isfinite(frame.received_monotonic_s) else begun
        for sink in self._courtesies:
            try:
                sink.write(frame, result)
            except Exception:
                log.exception("a courtesy failed; the session goes on")

    def _record_refused(self, arrival: Arrival, refused: Refused) -> None:
        try:
            self._recorder.refuse(refused)
        except RecordingError as error:
            self._not_recorded(error)
        else:
            self._source.acknowledge(arrival, refused.state)
        self._count(refused)

    def _count(self, refused: Refused) -> None:
        self._history.refuse(refused)
        with self._lock:
            self._counts[refused.state] += 1
            if refused.state in (FrameState.FAILED, FrameState.QUARANTINED):
                self._last_problem = f"frame {refused.sequence}: {refused.reason}"

    def _not_recorded(self, error: RecordingError) -> None:
        log.error("NOT RECORDED: %s", error)
        with self._lock:
            self._recording, self._last_problem = False, str(error)

    def _disk_free(self, now: float) -> int:
        if now - self._disk[0] > _DISK_EVERY_S:
            try:
                self._disk = (now, shutil.disk_usage(self._folder).free)
            except OSError:
                self._disk = (now, -1)
        return self._disk[1]

    def status(self) -> SessionStatus:
        """Tell counts, latencies and health; from any thread."""
        now, source = self._clock.monotonic(), self._source.status()
        with self._lock:
            counts = {state.value: self._counts[state] for state in FrameState}
            latencies = np.array(self._latencies) if self._latencies else np.array([NAN])
            times, shown = list(self._finished_at), self._shown_since
            problem, running, recording = self._last_problem, self._running, self._recording
        p50, p95, p99 = (float(value) for value in np.percentile(latencies, (50, 95, 99)))
        span = times[-1] - times[0] if len(times) > 1 else NAN
        return SessionStatus(
            received=sum(counts.values()),
            counts=counts,
            source=source,
            latency_p50_ms=p50,
            latency_p95_ms=p95,
            latency_p99_ms=p99,
            age_s=now - shown,
            frames_per_s=(len(times) - 1) / span if span > 0 else NAN,
            recording=recording,
            pictures_skipped=self._recorder.pictures_skipped,
            disk_free_bytes=self._disk_free(now),
            session_dir=str(self._folder),
            model=self._pipeline.detector.name,
            last_problem=self._recorder.problem or problem,
            running=running,
            started_ns=self._started_ns,
        )

    def snapshot(self, *, preview: bool = False) -> Snapshot:
        """Tell how things stand (`sinks.view.SnapshotSource`)."""
        return self._history.snapshot(self.status(), preview)
