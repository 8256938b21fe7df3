"""One glance: the right word at the right level."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from display_scenes import columns, history, reading, result, snapshot, status

from atomid_live.flags import Flag
from atomid_live.sinks import verdicts
from atomid_live.sinks.view import FramePoint, History
from atomid_live.types import NAN, Detections, DriftEstimate, Reading, SourceStatus


def point(**drift: object) -> FramePoint:
    one = FramePoint.of_result(result(30))
    return replace(one, drift=replace(one.drift, **drift))  # type: ignore[arg-type]


def test_minutes_in_view_by_hand():
    # 1200 columns of 0.0124 nm are 14.88 nm; a quarter at 0.5 nm/min takes 7.44 min
    assert verdicts.minutes_in_view(point(velocity_yx_nm_min=(0.0, 0.5))) == pytest.approx(7.44)
    # 900 rows of 0.0124 nm are 11.16 nm; down at the same speed the shorter side counts
    assert verdicts.minutes_in_view(point(velocity_yx_nm_min=(0.5, 0.0))) == pytest.approx(5.58)


def test_minutes_in_view_uncalibrated_comes_from_pixels():
    nan = (NAN, NAN)
    slow = replace(point(velocity_yx_nm_min=nan, velocity_yx_px_s=(0.0, 1.0)), pixel_size_yx_nm=nan)
    assert verdicts.minutes_in_view(slow) == pytest.approx(300 / 60)
    assert math.isnan(verdicts.minutes_in_view(replace(slow, drift=DriftEstimate())))


@pytest.mark.parametrize(
    ("drift", "level", "word"),
    [
        ({"velocity_yx_nm_min": (0.0, 5.0)}, "bad", "FAST"),
        ({"velocity_yx_nm_min": (0.3, 0.3)}, "watch", "drifting"),
        ({"velocity_yx_nm_min": (0.0, 0.12)}, "good", "steady"),
        ({"velocity_yx_nm_min": (0.0, 0.02)}, "good", "steady"),
        ({"velocity_yx_nm_min": (0.5, 0.5), "sigma_velocity_nm_min": 2.0}, "unknown", "measuring"),
        ({"velocity_yx_nm_min": (0.0, 0.0), "sigma_velocity_nm_min": 0.0}, "good", "steady"),
        ({"flags": int(Flag.DRIFT_LOST)}, "bad", "LOST"),
        ({"flags": int(Flag.DRIFT_JUMP)}, "bad", "JUMPED"),
        ({"flags": int(Flag.MODULO_LATTICE)}, "watch", "ambiguous"),
        ({"flags": int(Flag.DRIFT_POOR)}, "watch", "unsure"),
    ],
)
def test_drift_verdict(drift, level, word):
    verdict = verdicts.of_drift(point(**drift))
    assert (verdict.level, verdict.word) == (level, word)


def test_drift_before_a_velocity_is_known():
    one = replace(FramePoint.of_result(result(0)), drift=DriftEstimate())
    assert verdicts.of_drift(one).word == "measuring" and verdicts.of_drift(None).word == "waiting"


@pytest.mark.parametrize(
    ("changes", "level", "word"),
    [
        ({}, "good", "quiet"),
        ({"alarm": "+0.4 %"}, "bad", "ALARM"),
        ({"valid": False, "reason": "no lattice"}, "watch", "not valid"),
        ({"flags": int(Flag.REFERENCE_PENDING), "valid": False}, "unknown", "reference"),
        ({"flags": int(Flag.DRIFT_EXPLAINS)}, "watch", "drift?"),
        ({"flags": int(Flag.GPA_DISAGREES)}, "watch", "unsure"),
    ],
)
def test_strain_verdict(changes, level, word):
    one = replace(FramePoint.of_result(result(30)), reading=replace(reading(0.001, 30), **changes))
    verdict = verdicts.of_strain(one)
    assert (verdict.level, verdict.word) == (level, word)
    if "reason" in changes:
        assert verdict.detail == "no lattice"


@pytest.mark.parametrize(
    ("kept", "level", "word"),
    [(1.0, "good", "steady"), (0.85, "watch", "fewer"), (0.5, "bad", "VANISHING"), (0.0, "bad", "NONE")],
)
def test_columns_verdict(kept, level, word):
    memory = history(12)
    whole, _ = columns()
    n = int(kept * len(whole))
    few = Detections(whole.yx_px[:n], whole.score[:n], whole.sigma_yx_px[:n], whole.amplitude[:n], whole.flags[:n], 25.6)
    for frame in range(12, 15):
        memory.add(replace(result(frame, found=few), reading=Reading()))
    verdict = verdicts.of_columns(memory.snapshot(status(15)))
    assert (verdict.level, verdict.word) == (level, word)


def test_columns_need_six_frames_of_one_segment():
    assert verdicts.of_columns(snapshot(5)).word == "counting"
    assert verdicts.of_columns(History().snapshot(status(0))).word == "waiting"


@pytest.mark.parametrize(
    ("changes", "level", "word"),
    [
        ({}, "good", "live"),
        ({"recording": False, "last_problem": "disk"}, "bad", "UNSAVED"),
        ({"running": False}, "unknown", "ended"),
        ({"source": SourceStatus(problem="gone")}, "bad", "NO INPUT"),
        ({"source": SourceStatus(behind=9)}, "watch", "9 behind"),
        ({"disk_free_bytes": 100}, "bad", "DISK FULL"),
        ({"disk_free_bytes": 1_000_000_000}, "watch", "disk low"),
        ({"disk_free_bytes": -1}, "good", "live"),
        ({"age_s": 30.0, "frames_per_s": 1.0}, "watch", "stale"),
        ({"age_s": 30.0, "frames_per_s": 0.05}, "good", "live"),
    ],
)
def test_frames_verdict(changes, level, word):
    verdict = verdicts.of_frames(replace(snapshot(8), status=status(8, **changes)))
    assert (verdict.level, verdict.word) == (level, word)


def test_remarks_explain_flags_of_all_parts_in_words():
    one = replace(
        point(flags=int(Flag.MODULO_LATTICE), note="three vectors fit"),
        flags=int(Flag.UNCALIBRATED | Flag.EDGE),
        segment=2,
        segment_reason="size changed",
    )
    words = verdicts.remarks(one)
    assert words[0] == "new segment 2: size changed" and len(words) == 5 and words[-2] == "drift: three vectors fit"
    assert words[-1] == "strain: not corrected: not measured"
    assert any("pixel size" in word for word in words) and any("lattice vector" in word for word in words)
    assert verdicts.remarks(None) == []
