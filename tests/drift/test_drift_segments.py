"""When segments begin, and in which words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drift_scenes import frame_of

from atomid_live.drift.segments import SegmentKeeper
from atomid_live.settings import DriftSettings
from atomid_live.types import UNCALIBRATED, Frame

FIRST = frame_of(np.zeros((6, 8), np.uint16), 0)


def _next(**changes: object) -> Frame:
    return replace(frame_of(np.zeros((6, 8), np.uint16), 1), **changes)


def test_first_frame_says_so_and_quiet_frames_say_nothing() -> None:
    keeper = SegmentKeeper(DriftSettings())
    assert keeper.check(FIRST) == (0, "first frame")
    assert keeper.check(FIRST) == (0, "first frame"), "asking twice must not hide the reason"
    assert keeper.check(_next()) == (0, "")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (_next(pixels=np.zeros((8, 6), np.uint16)), "size changed from 8 x 6 to 6 x 8 px"),
        (_next(pixel_size_yx_nm=(0.02, 0.02)), "pixel size changed"),
        (_next(pixel_size_yx_nm=UNCALIBRATED), "no longer known"),
        (_next(display_scaled=True), "grey values made for the eye"),
        (_next(meta=replace(FIRST.meta, scan_rotation_rad=0.1)), "rotation changed from 0.00 to 5.73 degrees"),
        (_next(meta=replace(FIRST.meta, detector="BF")), "detector changed from HAADF to BF"),
        (_next(time_s=FIRST.time_s + 3601), "gap of 3601 s"),
    ],
)
def test_each_change_begins_a_segment_with_its_reason(changed: Frame, words: str) -> None:
    keeper = SegmentKeeper(DriftSettings())
    keeper.check(FIRST)
    segment, reason = keeper.check(changed)
    assert segment == 1
    assert words in reason


@pytest.mark.parametrize(
    "same",
    [
        _next(time_s=FIRST.time_s - 100),
        _next(time_s=float("nan")),
        _next(meta=replace(FIRST.meta, scan_rotation_rad=2 * np.pi)),
        _next(meta=replace(FIRST.meta, scan_rotation_rad=float("nan"))),
        _next(pixel_size_yx_nm=(0.0248 * (1 + 1e-6), 0.0248)),
    ],
)
def test_what_is_no_change_begins_nothing(same: Frame) -> None:
    keeper = SegmentKeeper(DriftSettings())
    keeper.check(FIRST)
    assert keeper.check(same) == (0, "")


def test_unknown_rotation_on_both_frames_is_no_change() -> None:
    keeper = SegmentKeeper(DriftSettings())
    meta = replace(FIRST.meta, scan_rotation_rad=float("nan"))
    keeper.check(replace(FIRST, meta=meta))
    assert keeper.check(_next(meta=meta)) == (0, "")
