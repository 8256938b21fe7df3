"""The recorder: lines in the loop, pictures behind it, and what happens when the disk fills."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import cv2
import pytest
from recorded_results import make_frame

from atomid_live.errors import RecordingError
from atomid_live.flags import Flag
from atomid_live.session_file import SessionFolder, SessionInfo, read_session
from atomid_live.sinks.pictures import PictureWriter
from atomid_live.sinks.recorder import Recorder, wanted
from atomid_live.types import FrameState, Reading, Refused, Result

Make = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> SessionFolder:
    return SessionFolder.create(tmp_path, SessionInfo("/data"))


def test_a_session_from_first_to_last(folder: SessionFolder, result: Make, refused: Callable[..., Refused]) -> None:
    recorder = Recorder(folder, annotate="2", lossless=True)
    recorder.warm_up(make_frame(result(0)))
    for number in range(5):
        recorder.write(make_frame(result(number)), result(number))
    recorder.refuse(refused(5, FrameState.SKIPPED))
    summary = recorder.finish("clean", "done", {"latency_p50_ms": 30.0})
    recorder.close()
    recorder.close()
    assert sorted(path.name for path in (folder.path / "annotated").iterdir()) == ["000000.png", "000002.png", "000004.png"]
    picture = cv2.imread(str(folder.path / "annotated/000002.png"))
    assert picture.shape[1] == 60 * 9
    assert summary["counts"]["received"] == 6 and summary["run"]["pictures_written"] == 3
    assert read_session(folder.path).counts["skipped"] == 1
    assert recorder.problem == "" and recorder.pictures_skipped == 0


def test_which_frames_get_a_picture(result: Make) -> None:
    plain = replace(result(4), flags=int(Flag.UNCALIBRATED), reading=Reading())
    assert wanted("all", plain) and not wanted("none", plain) and not wanted("events", plain)
    assert wanted("2", plain) and not wanted("3", plain)
    assert wanted("events", replace(plain, flags=int(Flag.DRIFT_JUMP)))
    assert wanted("events", replace(plain, reading=Reading(alarm="exx")))


def test_pictures_never_overwrite(folder: SessionFolder, result: Make) -> None:
    (folder.path / "annotated/000000.png").write_bytes(b"older")
    recorder = Recorder(folder, annotate="all", lossless=True)
    recorder.write(make_frame(result(0)), result(0))
    recorder.close()
    assert (folder.path / "annotated/000000.png").read_bytes() == b"older"
    assert (folder.path / "annotated/000000-2.png").stat().st_size > 100


def test_a_nearly_full_disk_leaves_the_lines(folder: SessionFolder, result: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atomid_live.sinks.recorder._DISK_EVERY_S", 0.0)
    free = [1000]
    recorder = Recorder(folder, annotate="all", min_free_bytes=500, lossless=True, disk_free=lambda _: free[0])
    for number, left in enumerate((1000, 100, 100, 1000)):
        free[0] = left
        recorder.write(make_frame(result(number)), result(number))
        assert ("disk nearly full" in recorder.problem) == (left < 500)
    recorder.close()
    session = read_session(folder.path)
    assert [frame["atoms"] is not None for frame in session.frames] == [True, False, False, True]
    assert "disk nearly full" in session.frames[1]["not_saved"]
    assert recorder.pictures_skipped == 2
    assert len(list((folder.path / "annotated").iterdir())) == 2
    # with room again the tables catch up from the lines
    assert [row.split(",")[0] for row in (folder.path / "drift.csv").read_text().splitlines()[1:]] == ["0", "1", "2", "3"]


def test_a_line_that_cannot_be_written_is_loud(folder: SessionFolder, result: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(folder, annotate="none")
    recorder.write(make_frame(result(0)), result(0))
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        real(descriptor, bytes(data[:10]))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(RecordingError, match=r"frame 1 could not be written.*free disk space"):
            recorder.write(make_frame(result(1)), result(1))
    recorder.write(make_frame(result(2)), result(2))
    recorder.close()
    assert [frame["sequence"] for frame in read_session(folder.path).frames] == [0, 2]


def test_a_busy_writer_skips_and_counts_on_a_live_stream(tmp_path: Path) -> None:
    going, let_go = Event(), Event()

    def slow() -> bytes:
        going.set()
        assert let_go.wait(10)
        return b"picture"

    writer = PictureWriter(lossless=False, queue=2)
    assert writer.submit(tmp_path / "0", slow)
    assert going.wait(10)
    taken = [writer.submit(tmp_path / str(number), lambda: b"x") for number in range(1, 6)]
    assert taken == [True, True, False, False, False] and writer.skipped == 3
    let_go.set()
    writer.close()
    writer.close()
    assert writer.written == 3 and sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


def test_a_lossless_writer_waits(tmp_path: Path) -> None:
    writer = PictureWriter(lossless=True, queue=1)
    assert all(writer.submit(tmp_path / str(number), lambda: b"x") for number in range(20))
    writer.close()
    assert (writer.written, writer.skipped) == (20, 0)


def test_a_picture_that_fails_is_counted_and_the_next_is_written(tmp_path: Path) -> None:
    def broken() -> bytes:
        raise ValueError("no such font")

    writer = PictureWriter(lossless=True)
    writer.submit(tmp_path / "a.png", broken)
    writer.close()
    assert (writer.failed, writer.written) == (1, 0) and "no such font" in writer.problem
    assert list(tmp_path.iterdir()) == []
