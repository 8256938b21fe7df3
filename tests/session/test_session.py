"""The session loop: every arrival ends in one state, whatever breaks, and displays only ever pull."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from atomid_live.detect.dog import DogDetector
from atomid_live.errors import InputGoneError, RecordingError
from atomid_live.pipeline import Pipeline
from atomid_live.session import Session
from atomid_live.session_file import SessionFolder, SessionInfo, read_session
from atomid_live.settings import Settings
from atomid_live.simulate.scenario import Scenario
from atomid_live.sinks.recorder import Recorder
from atomid_live.sources.simulated import SimulatedSource
from atomid_live.types import Arrival, Detections, Frame, FrameState, Origin, Refused, Result, SourceStatus

SCENARIO = Scenario(crystal="mos2", shape=(160, 192), frames=4, seed=3, drift_px_per_frame=(0.7, -1.1), contamination_e=0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[SessionFolder]:
    """An open session folder."""
    made = SessionFolder.create(tmp_path / "out", SessionInfo("simulated"))
    yield made
    made.close()


def session_over(source: SimulatedSource, folder: SessionFolder, pipeline: Pipeline | None = None) -> tuple[Session, Recorder]:
    """A real session without pictures."""
    recorder = Recorder(folder, annotate="none")
    pipeline = pipeline or Pipeline(DogDetector(), Settings())
    return Session(source, pipeline, recorder, folder.path, itertools.count(folder.next_sequence)), recorder


def test_frames_become_lines_and_the_counts_add_up(folder: SessionFolder) -> None:
    """Each frame has a line, is acknowledged, and is in the snapshot."""
    source = SimulatedSource(SCENARIO)
    session, recorder = session_over(source, folder)
    outcome = session.run(Event())
    recorder.finish("clean", outcome.reason)
    assert outcome.clean and "4 frames" in outcome.reason
    assert session.counts == {"processed": 4, "dropped": 0, "skipped": 0, "failed": 0, "quarantined": 0}
    assert source._acknowledged == 4
    record = read_session(folder.path)
    assert [line["sequence"] for line in record.frames] == [0, 1, 2, 3]
    snapshot = session.snapshot(preview=True)
    assert snapshot.status.received == 4 and not snapshot.status.running
    assert snapshot.latest is not None and snapshot.latest.sequence == 3 and snapshot.preview is not None
    assert np.isfinite(snapshot.status.latency_p50_ms)


def test_drift_has_the_sign_of_the_contract(folder: SessionFolder) -> None:
    """A feature at p in the first frame is found at p + total."""
    source = SimulatedSource(SCENARIO)
    session, _ = session_over(source, folder)
    session.run(Event())
    latest = session.snapshot().latest
    assert latest is not None
    assert latest.drift.total_yx_px == pytest.approx(source.truths[3].total_yx_px, abs=0.3)


class _BreaksOnce:
    """A detector that fails on one frame, as a bug would."""

    name = "breaks once"

    def __init__(self, at: int) -> None:
        self.at, self.inner = at, DogDetector()

    def detect(self, frame: Frame) -> Detections:
        if frame.sequence == self.at:
            raise ZeroDivisionError("a bug")
        return self.inner.detect(frame)

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Nothing to do."""


def test_a_frame_that_breaks_the_analysis_is_failed_and_the_rest_goes_on(folder: SessionFolder) -> None:
    """One bug costs one frame, with the reason in its line."""
    session, _ = session_over(SimulatedSource(SCENARIO), folder, Pipeline(_BreaksOnce(1), Settings()))
    assert session.run(Event()).clean
    assert session.counts["processed"] == 3 and session.counts["failed"] == 1
    line = read_session(folder.path).frames[1]
    assert line["state"] == "failed" and "ZeroDivisionError" in line["reason"]
    assert "a bug" in session.status().last_problem


class _FullDisk(Recorder):
    """A recorder whose line for one frame does not reach the disk."""

    def write(self, frame: Frame, result: Result) -> None:
        if frame.sequence == 1:
            raise RecordingError("disk full")
        super().write(frame, result)


def test_an_unrecorded_frame_is_loud_and_not_acknowledged(folder: SessionFolder) -> None:
    """A restart must take that frame again, and the session does not end clean."""
    source = SimulatedSource(SCENARIO)
    pipeline = Pipeline(DogDetector(), Settings())
    session = Session(source, pipeline, _FullDisk(folder, annotate="none"), folder.path, itertools.count())
    outcome = session.run(Event())
    assert not outcome.clean and isinstance(outcome.error, RecordingError)
    assert source._acknowledged == 3 and session.counts["failed"] == 1
    assert not session.status().recording


class _Vanishes(SimulatedSource):
    """A source whose input goes away after two frames, with a refusal between."""

    def frames(self, numbers: Iterator[int], stop: Event) -> Iterator[Arrival]:
        yield from itertools.islice(super().frames(numbers, stop), 1)
        yield Refused(next(numbers), FrameState.QUARANTINED, "torn", Origin("x.emd"), 0.0)
        raise InputGoneError("the share is gone; connect it again")

    def status(self) -> SourceStatus:
        return replace(super().status(), ended="")


def test_input_gone_ends_the_session_with_its_error(folder: SessionFolder) -> None:
    """Exit code 3 comes from the error; what came before is recorded."""
    session, _ = session_over(_Vanishes(SCENARIO), folder)
    outcome = session.run(Event())
    assert outcome.error is not None and outcome.error.exit_code == 3
    assert session.counts["processed"] == 1 and session.counts["quarantined"] == 1
    assert [line["state"] for line in read_session(folder.path).frames] == ["processed", "quarantined"]


def test_stop_ends_after_the_frame_in_hand(folder: SessionFolder) -> None:
    """Nothing half done."""
    stop = Event()

    class Stopping(SimulatedSource):
        def acknowledge(self, arrival: Arrival, state: FrameState) -> None:
            super().acknowledge(arrival, state)
            stop.set()

    session, _ = session_over(Stopping(SCENARIO), folder)
    outcome = session.run(stop)
    assert outcome.clean and outcome.reason == "stopped by the user" and session.counts["processed"] == 1


def test_a_failing_courtesy_does_not_touch_the_session(folder: SessionFolder) -> None:
    """A publisher that raises is logged; the frames are recorded."""

    class Rude:
        def write(self, frame: Frame, result: Result) -> None:
            raise OSError("nobody listens")

        def close(self) -> None:
            """Nothing to do."""

    pipeline = Pipeline(DogDetector(), Settings())
    recorder = Recorder(folder, annotate="none")
    session = Session(SimulatedSource(SCENARIO), pipeline, recorder, folder.path, itertools.count(), [Rude()])
    assert session.run(Event()).clean and session.counts["processed"] == 4
