"""The pipeline itself: live equals batch, and warming up leaves no trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atomid_live import lanes
from atomid_live.detect.dog import DogDetector
from atomid_live.pipeline import Pipeline
from atomid_live.settings import Settings
from atomid_live.simulate.acquire import Session
from atomid_live.simulate.publish import as_frame
from atomid_live.simulate.scenario import Scenario
from atomid_live.types import Detections, Frame, Result

SCENARIO = Scenario(crystal="ws2", shape=(320, 384), pixel_size_nm=0.016, frames=8, seed=4, drift_px_per_frame=(1.3, -0.8))


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """Eight frames of a drifting lattice."""
    session = Session(SCENARIO)
    return [as_frame(SCENARIO, session.frame(k), k) for k in range(SCENARIO.frames)]


def numbers(result: Result) -> list[float]:
    """What a session would record of a result."""
    drift, reading = result.drift, result.reading
    means = [summary.mean for part in (reading.strain, reading.gpa) for summary in part.values()]
    return [len(result.detections), *drift.total_yx_px, *drift.sigma_yx_px, drift.quality, *means, result.flags]


def test_measuring_first_and_tracking_later_gives_the_live_answer(frames: list[Frame]) -> None:
    """Online equals batch at every frame: measured in any order, tracked in sequence."""
    live, batch = Pipeline(DogDetector(), Settings()), Pipeline(DogDetector(), Settings())
    measured = {frame.sequence: batch.measure(frame) for frame in reversed(frames)}
    for frame in frames:
        one, other = live.process(frame), batch.track(frame, measured[frame.sequence])
        np.testing.assert_array_equal(numbers(one), numbers(other))
        np.testing.assert_array_equal(one.strain.exx, other.strain.exx)
        np.testing.assert_array_equal(one.tracks.track_id, other.tracks.track_id)
        assert one.tracks.events == other.tracks.events and one.tracks.damage == other.tracks.damage


def test_two_lanes_give_the_answer_of_one(frames: list[Frame]) -> None:
    """To the last bit, through a change of frame size that makes what was prepared ahead worthless."""
    small = [replace(frame, sequence=8 + k, pixels=frame.pixels[:256].copy()) for k, frame in enumerate(frames[:3])]
    one, two = Pipeline(DogDetector(), Settings()), Pipeline(DogDetector(), Settings())
    for frame in [*frames, *small]:
        alone = one.process(frame)
        lanes.use(2)
        beside = two.process(frame)
        lanes.use(1)
        np.testing.assert_array_equal(numbers(alone), numbers(beside))
        for name in ("exx", "eyy", "exy", "rotation_mrad"):
            np.testing.assert_array_equal(getattr(alone.strain, name), getattr(beside.strain, name))
            np.testing.assert_array_equal(getattr(alone.gpa, name), getattr(beside.gpa, name))
        assert list(alone.timings_ms) == list(beside.timings_ms)


def test_a_detector_that_fails_leaves_the_second_lane_in_order(frames: list[Frame]) -> None:
    """The frame's error comes through, and the next frame is measured as if the failed one had not been."""

    class Failing(DogDetector):
        def detect(self, frame: Frame) -> Detections:
            if frame.sequence == 3:
                raise RuntimeError("no memory")
            return super().detect(frame)

    lanes.use(2)
    broken, whole = Pipeline(Failing(), Settings()), Pipeline(DogDetector(), Settings())
    for frame in frames:
        if frame.sequence == 3:
            with pytest.raises(RuntimeError, match="no memory"):
                broken.process(frame)
        else:
            np.testing.assert_array_equal(numbers(broken.process(frame)), numbers(whole.process(frame)))
    lanes.use(1)


def test_warming_up_leaves_no_trace(frames: list[Frame]) -> None:
    """The first real frame is still the reference of drift and the start of a segment."""
    warm, cold = Pipeline(DogDetector(), Settings()), Pipeline(DogDetector(), Settings())
    warm.warm_up(SCENARIO.shape)
    for frame in frames[:3]:
        np.testing.assert_array_equal(numbers(warm.process(frame)), numbers(cold.process(frame)))


def test_every_stage_is_timed(frames: list[Frame]) -> None:
    """By name, in ms."""
    result = Pipeline(DogDetector(), Settings()).process(frames[0])
    assert set(result.timings_ms) == {"detect", "lattice", "gpa", "drift", "strain", "tracks"}
    assert all(value >= 0 for value in result.timings_ms.values())
