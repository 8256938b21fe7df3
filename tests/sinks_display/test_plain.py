"""Lines and JSON where output is no terminal."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from threading import Event

import pytest
from display_scenes import FixedClock, ScriptedSource, history, refused, result, status

from atomid_live.flags import Flag
from atomid_live.sinks import plain
from atomid_live.sinks.view import FramePoint, History
from atomid_live.sinks.wording import Script
from atomid_live.types import NAN, DriftEstimate, Reading, SourceStatus

UTF8 = Script()


class Stream(io.StringIO):
    encoding = "utf-8"


def test_line_of_a_frame_has_all_numbers_in_x_y_order():
    line = plain.line(FramePoint.of_result(result(12), 31.4), UTF8)
    assert line.startswith(
        "frame 12  processed  1599 columns  spacing 25.60 px (0.317 nm)  drift +23.8,-9.6 px 0.68 ± 0.05 nm/min"
    )
    assert "strain +0.13 ± 0.03 %" in line and "31 ms" in line and "HAADF 0012.emd" in line


def test_line_of_a_refused_frame_says_why():
    line = plain.line(FramePoint.of_refused(refused(7, "truncated:\x1b[31m 1 of 2 MB")), UTF8)
    assert line == "frame 7  quarantined  bad 7.emd: truncated:\ufffd[31m 1 of 2 MB"


def test_line_without_scale_lattice_or_motion():
    bare = replace(
        result(3, calibrated=False), drift=DriftEstimate(flags=int(Flag.DRIFT_LOST)), reading=Reading(reason="no lattice")
    )
    line = plain.line(FramePoint.of_result(bare), Script(False, "ascii"))
    assert "(uncalibrated)" in line and "[LOST]" in line and "strain not valid: no lattice" in line and "nan" not in line
    assert line.isascii()


def test_line_shows_alarm_and_new_segment():
    one = result(20)
    one = replace(one, segment=3, segment_reason="pixel size changed", reading=replace(one.reading, alarm="+0.5 % in 20 s"))
    line = plain.line(FramePoint.of_result(one), UTF8)
    assert "ALARM: +0.5 % in 20 s" in line and "new segment 3 (pixel size changed)" in line


def test_json_record_reads_back_with_x_and_y_named():
    point = FramePoint.of_result(result(12), 31.4)
    told = json.loads(plain.json_line(point), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    y, x = result(12).drift.total_yx_px
    assert told["drift"]["total_px"] == {"x": pytest.approx(x, abs=1e-6), "y": pytest.approx(y, abs=1e-6)}
    assert told["frame"] == 12 and told["columns"] == 1599 and told["schema"] == 1 and told["state"] == "processed"
    assert told["strain"]["hydrostatic"]["sem"] == pytest.approx(3e-4) and told["strain"]["valid"] is True
    assert told["time_utc"] == "2025-11-22T20:15:24.000Z" and told["flags"] == []
    assert {"file", "spacing_px", "pixel_size_yx_nm", "timings_ms"} <= told.keys()


def test_json_of_unknown_numbers_is_null_and_flags_are_names():
    bare = replace(result(0, calibrated=False), time_s=NAN, drift=DriftEstimate(flags=int(Flag.SEGMENT_START)))
    told = json.loads(plain.json_line(FramePoint.of_result(bare)))
    assert told["pixel_size_yx_nm"] == [None, None] and told["latency_ms"] is None and told["time_utc"] is None
    assert told["drift"]["total_px"] == {"x": None, "y": None}
    assert told["flags"] == ["uncalibrated", "segment_start", "reference_pending"]


def test_display_prints_each_frame_once_and_ends_with_the_counts():
    memory, stream = History(), Stream()
    snapshots = []
    for frame in range(4):
        memory.add(result(frame))
        if frame == 2:
            memory.refuse(refused(9))
        snapshots.append(memory.snapshot(status(frame + 1)))
    plain.PlainDisplay(ScriptedSource(snapshots), stream, FixedClock(), interval_s=0).run(Event())
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["0", "1", "2", "9", "3"]
    assert lines[-1] == "6 frames received: 4 processed, 1 skipped, 1 quarantined; results in /data/sessions/20261122T201501Z"


def test_json_display_writes_nothing_but_json():
    stream = Stream()
    plain.PlainDisplay(ScriptedSource([history(3).snapshot(status(3))]), stream, FixedClock(), True, 0).run(Event())
    assert [json.loads(line)["frame"] for line in stream.getvalue().splitlines()] == [0, 1, 2]


@pytest.mark.parametrize("as_json", [False, True])
def test_frames_that_left_the_log_unseen_are_counted(as_json):
    memory, stream = History(log=3), Stream()
    for frame in range(8):
        memory.add(result(frame))
    plain.PlainDisplay(ScriptedSource([]), stream, FixedClock(), as_json).show(memory.snapshot(status(8)))
    first, *rest = stream.getvalue().splitlines()
    assert len(rest) == 3
    assert json.loads(first)["not_shown"] == 5 if as_json else first.startswith("5 frames not shown")


def test_waiting_line_comes_after_half_a_minute_of_silence_and_not_in_json():
    clock, stream = FixedClock(), Stream()
    source = SourceStatus(name="folder /data", waiting=(("/data/a.emd", "growing"),), problem="")
    shown = History().snapshot(status(0, received=0, age_s=NAN, source=source))
    display = plain.PlainDisplay(ScriptedSource([shown]), stream, clock)
    display.show(shown)
    assert stream.getvalue() == ""
    clock.seconds += 31
    display.show(shown)
    display.show(shown)
    assert stream.getvalue() == "waiting on folder /data, 0 frames so far; a.emd: growing\n"
    silent = Stream()
    display = plain.PlainDisplay(ScriptedSource([shown]), silent, clock, as_json=True)
    clock.seconds += 31
    display.show(shown)
    assert silent.getvalue() == ""


def test_closed_pipe_ends_the_printing_but_waits_for_the_session():
    class Broken(Stream):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    memory = history(2)
    source = ScriptedSource([memory.snapshot(status(2))] * 4)
    plain.PlainDisplay(source, Broken(), FixedClock(), interval_s=0).run(Event())
    assert source.asked >= 4
