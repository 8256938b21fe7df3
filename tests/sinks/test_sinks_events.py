"""Events on the way out: a picture each, written behind the loop; words on lines; annotated frames by events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from recorded_results import make_frame

from atomid_live.session_file import SessionFolder, SessionInfo
from atomid_live.sinks.event_pictures import event_picture
from atomid_live.sinks.event_words import event_words
from atomid_live.sinks.plain import json_line
from atomid_live.sinks.recorder import Recorder, wanted
from atomid_live.sinks.view import FramePoint
from atomid_live.types import Event, Frame, Origin, Reading, Result, Tracks

Make = Callable[..., Result]
EVENT = Event("vacancy appears", 4, 2, 1, 9.0, 7, (20.0, 31.0), (12.0, 25.0), (12.0, 25.0), -0.97, 0.05, "1", 19.4)


def with_events(result: Result, *events: Event) -> Result:
    return replace(result, flags=0, reading=Reading(), tracks=Tracks(np.arange(len(result.detections)), events=events))


@pytest.fixture
def folder(tmp_path: Path) -> SessionFolder:
    return SessionFolder.create(tmp_path, SessionInfo("/data"))


def test_annotating_events_means_frames_in_which_something_happened(result: Make) -> None:
    assert wanted("events", with_events(result(4), EVENT))
    assert not wanted("events", with_events(result(4)))


def test_each_event_gets_a_picture_even_without_annotated_frames(folder: SessionFolder, result: Make) -> None:
    recorder = Recorder(folder, annotate="none")
    for number in range(6):
        made = result(number)
        recorder.write(make_frame(made), with_events(made, *(EVENT, replace(EVENT, track_id=-1)) if number == 4 else ()))
    summary = recorder.finish("clean", "done")
    recorder.close()
    assert sorted(path.name for path in (folder.path / "events").iterdir()) == ["000004-0.png", "000004-1.png"]
    assert summary["run"]["event_pictures_written"] == 2 and summary["run"]["event_pictures_skipped"] == 0
    assert cv2.imread(str(folder.path / "events/000004-0.png")).shape == (268, 454, 3)
    assert list((folder.path / "annotated").iterdir()) == []


def test_a_burst_of_events_is_bounded_and_a_full_disk_gets_none(folder: SessionFolder, result: Make) -> None:
    recorder = Recorder(folder, annotate="none")
    recorder.write(make_frame(result(4)), with_events(result(4), *[EVENT] * 40))
    assert recorder.finish("clean", "done")["run"]["event_pictures_skipped"] >= 24
    recorder.close()
    full = Recorder(SessionFolder.create(folder.path.parent, SessionInfo("/x")), annotate="none", min_free_bytes=10**18)
    full.write(make_frame(result(4)), with_events(result(4), EVENT))
    assert full.finish("clean", "done")["run"]["event_pictures_written"] == 0
    full.close()


def test_the_picture_shows_the_place_before_and_now() -> None:
    """A bright spot at the place before, none now; both halves are drawn about the place of their own frame."""
    before, now = np.full((90, 120), 10, np.uint16), np.full((90, 120), 10, np.uint16)
    before[40, 50], now[70, 100] = 250, 250
    frames = [Frame(k, pixels, 0.0, Origin("")) for k, pixels in ((1, before), (4, now))]
    event = replace(EVENT, before_yx_px=(40.0, 50.0), yx_px=(50.0, 80.0))
    picture = event_picture(event, frames[0], frames[1], 6.0)
    half = 224 // 2
    assert picture[half - 2 : half + 3, half - 2 : half + 3].max() > 200
    assert picture[half - 2 : half + 3, 230 + half - 2 : 230 + half + 3].max() < 100
    lost = event_picture(event, None, frames[1], 6.0)
    assert lost[:224, :224].max() == 0


def test_a_place_at_the_border_is_drawn_all_the_same() -> None:
    frame = Frame(4, np.full((40, 60), 7, np.uint8), 0.0, Origin(""))
    event = replace(EVENT, yx_px=(0.0, 59.0), before_yx_px=(-30.0, 200.0))
    assert event_picture(event, frame, frame, 8.0).shape == (268, 454, 3)


def test_words_name_place_size_and_error() -> None:
    assert event_words(EVENT) == "vacancy appears at 31, 20 px -97 +- 5 % (frame 2)"
    grain = Event("grain change", 4, 2, 1, 9.0, unit="deg")
    assert event_words(grain) == "grain change (frame 2)"


def test_json_lines_carry_events_without_nan(result: Make) -> None:
    line = json_line(FramePoint.of_result(with_events(result(4), EVENT, Event("grain change", 4, 2, 1, 9.0, unit="deg"))))
    assert '"kind":"vacancy appears"' in line and '"track_id":null' in line and "NaN" not in line
