"""The displays' memory: bounded, complete while it lasts, and honest about what it forgot."""

from __future__ import annotations

from threading import Event, Thread

import numpy as np
import pytest
from display_scenes import COLS, PIXEL_NM, ROWS, pixels, refused, result, status

from atomid_live.sinks.view import History, preview_of
from atomid_live.types import FrameState


def test_history_keeps_scalars_of_processed_and_log_of_all_states():
    memory = History()
    memory.add(result(0), latency_ms=30.0)
    memory.refuse(refused(1, "truncated"))
    memory.add(result(2), latency_ms=34.0)
    shown = memory.snapshot(status(2))
    assert [point.sequence for point in shown.history] == [0, 2]
    assert [(point.sequence, point.state) for point in shown.log] == [
        (0, FrameState.PROCESSED),
        (1, FrameState.QUARANTINED),
        (2, FrameState.PROCESSED),
    ]
    assert shown.log[1].reason == "truncated" and shown.log[1].columns == -1
    assert shown.newest is not None and shown.newest.drift.total_yx_px == result(2).drift.total_yx_px
    assert shown.latest is not None and shown.latest.sequence == 2 and shown.logged == 3


def test_memory_is_bounded_and_totals_are_not_forgotten():
    memory = History(frames=4, log=6)
    for frame in range(20):
        memory.add(result(frame), latency_ms=float(frame))
    shown = memory.snapshot(status(20))
    assert len(shown.history) == 4 and len(shown.log) == 6 and shown.logged == 20
    totals = shown.totals
    assert totals.frames == 20 and totals.segments == 1 and totals.slowest_ms == 19.0
    y, x = result(19).drift.total_yx_px
    assert totals.largest_drift_px == pytest.approx(np.hypot(y, x))
    assert totals.largest_drift_nm == pytest.approx(np.hypot(y, x) * PIXEL_NM)
    assert totals.strain_valid == 15 and totals.last_time_s - totals.first_time_s == 38.0


def test_segment_history_holds_only_frames_that_compare():
    from dataclasses import replace

    memory = History()
    for frame in range(6):
        memory.add(replace(result(frame), segment=frame // 4))
    shown = memory.snapshot(status(6))
    assert [point.sequence for point in shown.segment_history] == [4, 5]
    assert shown.totals.segments == 2


def test_snapshots_while_another_thread_adds():
    memory, stop = History(frames=8, log=8), Event()
    one = result(0)

    def fill() -> None:
        while not stop.is_set():
            memory.add(one)

    thread = Thread(target=fill)
    thread.start()
    try:
        logged = [memory.snapshot(status(1)).logged for _ in range(300)]
    finally:
        stop.set()
        thread.join()
    assert logged == sorted(logged)


def test_preview_only_when_asked_and_covers_the_frame():
    memory = History()
    newest = result(0)
    memory.add(newest, pixels(newest.detections))
    assert memory.snapshot(status(1)).preview is None
    preview = memory.snapshot(status(1), preview=True).preview
    assert preview is not None and preview.shape == (ROWS // 3, COLS // 3) and preview.dtype == np.uint8
    assert memory.snapshot(status(1), preview=True).preview is preview
    yx = (newest.detections.yx_px[700] // 3).astype(int)
    assert preview[yx[0], yx[1]] > 2 * np.median(preview)


@pytest.mark.parametrize(
    "frame",
    [
        np.full((30, 50), 7, np.uint16),
        np.full((30, 50), np.nan),
        np.zeros((1, 700), np.int16),
        np.where(np.eye(40, 60) > 0, np.inf, 1.0),
    ],
    ids=["constant", "nan", "one row", "infinite"],
)
def test_preview_of_odd_frames_is_a_picture(frame):
    picture = preview_of(frame)
    assert picture.dtype == np.uint8 and picture.size > 0
