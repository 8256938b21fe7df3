"""The folder source with its real observer and threads, and what a killed process leaves behind."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile

from atomid_live.errors import InputGoneError, UsageError
from atomid_live.settings import FrameSettings, SourceSettings
from atomid_live.sources import events
from atomid_live.sources.folder import FolderSource
from atomid_live.sources.ledger import Ledger
from atomid_live.types import Arrival, Frame, FrameState, Refused


def settings(**given: Any) -> SourceSettings:
    return SourceSettings(**({"existing": "process", "settle_s": 0.02, "scan_interval_s": 0.1, "until_idle_s": 0.5} | given))


def run(source: FolderSource, **_: Any) -> list[Arrival]:
    got = []
    for arrival in source.frames(itertools.count(), threading.Event()):
        source.acknowledge(arrival, FrameState.PROCESSED if isinstance(arrival, Frame) else arrival.state)
        got.append(arrival)
    source.close()
    return got


def save(path: Path, pixels: Any) -> None:
    tifffile.imwrite(path.with_suffix(".tmp"), pixels)
    path.with_suffix(".tmp").replace(path)


@pytest.mark.parametrize("polling", ["on", "off"])
def test_frames_written_meanwhile_arrive_in_order(tmp_path: Path, frames: Any, polling: str) -> None:
    source = FolderSource(tmp_path, settings(polling=polling, max_frames=5), FrameSettings())

    def write() -> None:
        for k in range(5):
            save(tmp_path / f"f{k}.tif", frames(k))
            time.sleep(0.03)

    writer = threading.Thread(target=write)
    writer.start()
    got = run(source)
    writer.join()
    assert [arrival.sequence for arrival in got] == [0, 1, 2, 3, 4]
    for k, arrival in enumerate(got):
        assert isinstance(arrival, Frame)
        np.testing.assert_array_equal(arrival.pixels, frames(k))
        assert arrival.received_ns > 0 and arrival.time_source == "arrival"
    assert source.status().mode == ("polling" if polling == "on" else "events")
    assert "5 frames" in source.status().ended


def test_events_are_heard_long_before_the_next_listing(tmp_path: Path, frames: Any) -> None:
    if sys.platform != "linux":
        pytest.skip("closing of files is reported on Linux alone")
    source = FolderSource(tmp_path, settings(scan_interval_s=30, settle_s=2, max_frames=1, until_idle_s=20), FrameSettings())
    timer = threading.Timer(0.3, lambda: save(tmp_path / "a.tif", frames(1)))
    timer.start()
    begun = time.monotonic()
    assert len(run(source)) == 1
    assert time.monotonic() - begun < 1.9


def test_copies_are_said_to_be_copies_and_touched_files_are_not_taken_again(tmp_path: Path, frames: Any) -> None:
    save(tmp_path / "a.tif", frames(1))
    shutil.copy(tmp_path / "a.tif", tmp_path / "b.tif")
    ledger = Ledger()
    first, second = run(FolderSource(tmp_path, settings(), FrameSettings(), ledger))
    assert isinstance(first, Frame) and isinstance(second, Refused)
    assert (second.state, second.reason) == (FrameState.SKIPPED, "same pixels as 0 (a.tif)")
    os.utime(tmp_path / "a.tif", (1, 1))
    assert run(FolderSource(tmp_path, settings(), FrameSettings(), ledger)) == []
    ledger.close()


def test_a_frame_that_failed_does_not_count_for_max_frames(tmp_path: Path, frames: Any) -> None:
    for k in range(4):
        save(tmp_path / f"f{k}.tif", frames(k))
    source = FolderSource(tmp_path, settings(max_frames=2), FrameSettings())
    got = []
    for arrival in source.frames(itertools.count(), threading.Event()):
        got.append(arrival)
        source.acknowledge(arrival, FrameState.FAILED if len(got) == 1 else FrameState.PROCESSED)
    source.close()
    assert len(got) == 3


def test_the_watched_folder_is_never_touched(tmp_path: Path, frames: Any) -> None:
    save(tmp_path / "a.tif", frames(1))
    before = sorted((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.iterdir())
    tmp_path.chmod(0o555)
    try:
        assert len(run(FolderSource(tmp_path, settings(), FrameSettings()))) == 1
    finally:
        tmp_path.chmod(0o755)
    assert before == sorted((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.iterdir())


def test_a_missing_folder_or_a_file_is_refused_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(InputGoneError, match="check the name"):
        FolderSource(tmp_path / "none", settings(), FrameSettings())
    (tmp_path / "a.tif").touch()
    with pytest.raises(UsageError, match="replay"):
        FolderSource(tmp_path / "a.tif", settings(), FrameSettings())


def test_a_folder_away_for_long_ends_the_source(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    source = FolderSource(folder, settings(until_idle_s=None), FrameSettings(), outage_s=0.4)
    threading.Timer(0.1, folder.rmdir).start()
    with pytest.raises(InputGoneError):
        list(source.frames(itertools.count(), threading.Event()))
    assert "cannot be listed" in source.status().problem
    source.close()


def test_the_observer_is_begun_again_when_its_folder_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    heard = events.Events(folder, recursive=False)
    now = 0.0
    assert heard.heed(now)
    folder.rmdir()
    until = time.monotonic() + 3
    while heard.heed(now) and time.monotonic() < until:
        time.sleep(0.02)
    assert not heard.heed(now)
    folder.mkdir()
    assert heard.heed(now + 5)
    (folder / "a.tif").write_bytes(b"x")
    until = time.monotonic() + 3
    hints: list[Any] = []
    while not hints and time.monotonic() < until:
        hints = heard.drain()
        time.sleep(0.02)
    assert hints and hints[0][0] == folder / "a.tif"
    heard.close()
    heard.close()


def test_the_handler_only_puts_hints_and_survives_anything() -> None:
    import queue

    hints: queue.Queue[Any] = queue.Queue(1)
    moved = SimpleNamespace(event_type="moved", is_directory=False, src_path="/w/a.tmp", dest_path=b"/w/a.tif")
    events._put(hints, moved)
    assert hints.get_nowait() == (Path("/w/a.tif"), True)
    events._put(hints, SimpleNamespace(event_type="created", is_directory=False, src_path="/w/a.txt", dest_path=""))
    events._put(hints, SimpleNamespace(event_type="created", is_directory=True, src_path="/w/a.tif", dest_path=""))
    assert hints.empty()


HARNESS = """
import itertools, json, os, sys, threading
from pathlib import Path
from atomid_live.settings import FrameSettings, SourceSettings
from atomid_live.sources.folder import FolderSource
from atomid_live.sources.ledger import Ledger
from atomid_live.types import Frame, FrameState
folder, out, die_at, step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
ledger = Ledger(out / "ledger.sqlite")
path = out / "frames.jsonl"
lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
ledger.reconcile(lines)
source = FolderSource(folder, SourceSettings(existing="process", settle_s=0.01, scan_interval_s=0.05, until_idle_s=0.3),
                      FrameSettings(), ledger)
def die(at):
    if at == step and arrival.sequence == die_at:
        os.kill(os.getpid(), 9)
with path.open("a") as log:
    for arrival in source.frames(itertools.count(len(lines)), threading.Event()):
        die("before the line")
        o = arrival.origin
        log.write(json.dumps(dict(source=o.source, item=o.item, item_index=o.item_index, identity=o.identity,
            content_sha256=o.content_sha256, sequence=arrival.sequence, state="processed")) + "\\n")
        log.flush(); os.fsync(log.fileno())
        die("after the line")
        source.acknowledge(arrival, FrameState.PROCESSED)
        die("after the ledger")
source.close(); ledger.close()
"""


@pytest.mark.parametrize("step", ["before the line", "after the line", "after the ledger"])
def test_a_killed_process_loses_nothing_and_doubles_nothing(tmp_path: Path, frames: Any, velox_stack: Any, step: str) -> None:
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("no kill -9 on this system")
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    velox_stack(folder / "stack.emd", [frames(k) for k in range(4)])
    for k in range(10, 13):
        save(folder / f"f{k}.tif", frames(k))
    for die_at, status in ((1, -9), (5, -9), (-1, 0)):
        command = [sys.executable, "-c", HARNESS, str(folder), str(out), str(die_at), step]
        assert subprocess.run(command, check=False, timeout=60).returncode == status
    lines = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    taken = sorted((Path(line["source"]).name, line["item_index"]) for line in lines)
    assert taken == [("f10.tif", 0), ("f11.tif", 0), ("f12.tif", 0), *(("stack.emd", k) for k in range(4))]
    assert [line["sequence"] for line in lines] == list(range(7))
