"""Replay: every frame of the files named, in natural order, at the pace asked for."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from atomid_live.errors import UsageError
from atomid_live.settings import FrameSettings, SourceSettings
from atomid_live.sources.replay import ReplaySource, expand
from atomid_live.types import Arrival, Frame, FrameState, Refused


def play(*paths: str | Path, **given: Any) -> list[Arrival]:
    source = ReplaySource(paths, SourceSettings(**given), FrameSettings())
    return list(source.frames(itertools.count(), threading.Event()))


def test_folders_files_and_patterns_in_natural_order(tmp_path: Path, frames: Any) -> None:
    for k in (1, 10, 2):
        tifffile.imwrite(tmp_path / f"run{k}.tif", frames(k))
    (tmp_path / "notes.txt").write_text("not a frame")
    assert [path.name for path in expand([tmp_path])] == ["run1.tif", "run2.tif", "run10.tif"]
    assert [path.name for path in expand([str(tmp_path / "run1*.tif"), tmp_path])] == ["run1.tif", "run10.tif", "run2.tif"]
    with pytest.raises(UsageError, match="stands for no file"):
        expand([tmp_path / "none*.tif"])


def test_stacks_and_bad_files_each_end_in_one_state(tmp_path: Path, frames: Any, velox_stack: Any) -> None:
    velox_stack(tmp_path / "a.emd", [frames(k) for k in range(6)])
    (tmp_path / "b.tif").write_bytes(b"II*\0" + bytes(10))
    velox_stack(tmp_path / "c.emd", [frames(1)], detector="BF")
    np.save(tmp_path / "d.npy", np.zeros((20, 30)))
    got = play(tmp_path)
    assert [arrival.sequence for arrival in got] == list(range(9))
    assert [a.state for a in got if isinstance(a, Refused)] == [FrameState.FAILED, FrameState.SKIPPED]
    assert all(a.reason for a in got if isinstance(a, Refused))
    for k in range(6):
        frame = got[k]
        assert isinstance(frame, Frame) and frame.origin.item_index == k
        np.testing.assert_array_equal(frame.pixels, frames(k))


def test_copies_are_frames_in_a_replay(tmp_path: Path, frames: Any) -> None:
    for k in range(3):
        tifffile.imwrite(tmp_path / f"{k}.tif", frames(0))
    assert all(isinstance(arrival, Frame) for arrival in play(tmp_path))


def test_max_frames_ends_it(tmp_path: Path, frames: Any) -> None:
    np.save(tmp_path / "a.npy", np.stack([frames(k) for k in range(5)]))
    assert len(play(tmp_path, max_frames=3)) == 3


class SlowClock:
    """A clock that moves only when a wait is asked for."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False

    def is_set(self) -> bool:
        return False


@pytest.mark.parametrize(("pace", "waits"), [(None, []), (0.25, [0.25, 0.25]), ("original", [2.5, 2.5])])
def test_pace(tmp_path: Path, frames: Any, velox_stack: Any, pace: Any, waits: list[float]) -> None:
    velox_stack(tmp_path / "a.emd", [frames(k) for k in range(3)])
    clock = SlowClock()
    source = ReplaySource([tmp_path], SourceSettings(), FrameSettings(), pace, clock)
    assert len(list(source.frames(itertools.count(), clock))) == 3  # type: ignore[arg-type]
    assert clock.waits == pytest.approx(waits)
    with pytest.raises(UsageError, match="pace"):
        ReplaySource([tmp_path], SourceSettings(), FrameSettings(), "fast")


def test_a_stop_while_waiting_takes_no_number(tmp_path: Path, frames: Any) -> None:
    np.save(tmp_path / "a.npy", np.stack([frames(k) for k in range(3)]))
    stop, numbers = threading.Event(), itertools.count()
    source = ReplaySource([tmp_path], SourceSettings(), FrameSettings(), 30.0)
    playing = source.frames(numbers, stop)
    next(playing)
    threading.Timer(0.05, stop.set).start()
    assert list(playing) == []
    assert next(numbers) == 1
