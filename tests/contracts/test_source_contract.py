"""One suite for every source: add a factory to `SOURCES` and it is held to the same promises.

A factory takes an empty folder and the frames that are to come, and returns the source and a function that makes them
come (or None when they are there already). The frames are `FRAMES` small arrays, in order.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomid_live.protocols import Source
from atomid_live.settings import FrameSettings, SourceSettings
from atomid_live.simulate.scenario import Scenario
from atomid_live.sources.folder import FolderSource
from atomid_live.sources.replay import ReplaySource
from atomid_live.sources.simulated import SimulatedSource
from atomid_live.sources.stream import StreamSource
from atomid_live.types import Frame, FrameState, Origin, SourceStatus
from atomid_live.wire import encode_frame

FRAMES = 6
SOCKETS: list[Any] = []
SIMULATED = Scenario(crystal="mos2", shape=(24, 40), frames=FRAMES)
Made = tuple[Source, Any]


@pytest.fixture(autouse=True)
def no_socket_left() -> Iterator[None]:
    """Close what the publishers opened."""
    yield
    while SOCKETS:
        SOCKETS.pop().close(0)


def pictures() -> list[np.ndarray[Any, Any]]:
    return [np.random.default_rng(k).integers(1, 999, (24, 40)).astype(np.uint16) for k in range(FRAMES)]


def _quick(**given: Any) -> SourceSettings:
    return SourceSettings(**({"existing": "process", "settle_s": 0.01, "scan_interval_s": 0.05} | given))


def folder(where: Path, frames: list[np.ndarray[Any, Any]]) -> Made:
    """A watched folder that is filled meanwhile."""

    def come() -> None:
        for k, pixels in enumerate(frames):
            np.save(where / f"f{k}.npy", pixels)
            time.sleep(0.03)

    return FolderSource(where, _quick(max_frames=len(frames)), FrameSettings()), come


def folder_polled(where: Path, frames: list[np.ndarray[Any, Any]]) -> Made:
    """A folder without events, filled before."""
    np.save(where / "series.npy", np.stack(frames))
    return FolderSource(where, _quick(max_frames=len(frames), polling="on"), FrameSettings()), None


def replay(where: Path, frames: list[np.ndarray[Any, Any]]) -> Made:
    """Files given by name."""
    for k, pixels in enumerate(frames):
        np.save(where / f"f{k}.npy", pixels)
    return ReplaySource([where], SourceSettings(), FrameSettings()), None


def simulated(where: Path, frames: list[np.ndarray[Any, Any]]) -> Made:
    """The simulator, whose frames are its own."""
    source = SimulatedSource(SIMULATED)
    frames[:] = [source.session.frame(k).pixels for k in range(FRAMES)]
    return source, None


def stream(where: Path, frames: list[np.ndarray[Any, Any]]) -> Made:
    """A live publisher that sends the next frame when the last one was taken."""
    import zmq

    socket = zmq.Context.instance().socket(zmq.XPUB)
    SOCKETS.append(socket)
    address = f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
    source = StreamSource(address, SourceSettings(max_frames=len(frames), until_idle_s=20.0), FrameSettings())

    def come() -> None:
        socket.recv()  # the subscription
        for k, pixels in enumerate(frames):
            while source.status().behind and not source._closing.is_set():
                time.sleep(0.002)
            socket.send_multipart(encode_frame(Frame(0, pixels, 1.0, Origin(""), index=k)))
            while source._last_index < k and not source._closing.is_set():
                time.sleep(0.002)

    return source, come


SOURCES: dict[str, Callable[[Path, list[np.ndarray[Any, Any]]], Made]] = {
    "folder": folder,
    "folder, polled": folder_polled,
    "replay": replay,
    "stream": stream,
    "simulated": simulated,
}
ENDLESS = ("folder", "stream")
"""Sources that wait for more when nothing comes, and so have to hear the stop event."""


@pytest.fixture
def frames() -> list[np.ndarray[Any, Any]]:
    return pictures()


@pytest.fixture(params=list(SOURCES))
def made(request: pytest.FixtureRequest, tmp_path: Path, frames: list[np.ndarray[Any, Any]]) -> Iterator[Made]:
    """A source, with its frames coming from another thread meanwhile."""
    source, come = SOURCES[request.param](tmp_path, frames)
    writer = threading.Thread(target=come or (lambda: None))
    yield source, writer.start
    source.close()
    if writer.ident is not None:
        writer.join(10.0)
        assert not writer.is_alive()


def test_whole_frames_in_order_with_increasing_numbers_and_nothing_lost(made: Made, frames: list[Any]) -> None:
    source, come = made
    come()
    got = []
    for arrival in source.frames(itertools.count(40), threading.Event()):
        source.acknowledge(arrival, FrameState.PROCESSED if isinstance(arrival, Frame) else arrival.state)
        got.append(arrival)
    source.close()
    assert [arrival.sequence for arrival in got] == list(range(40, 40 + FRAMES))
    for pixels, frame in zip(frames, got, strict=True):
        assert isinstance(frame, Frame)
        np.testing.assert_array_equal(frame.pixels, pixels)
        assert not frame.pixels.flags.writeable and frame.pixels.dtype.isnative
        assert frame.origin.source and frame.received_ns > 0


def test_it_stops_promptly_in_the_middle(made: Made) -> None:
    source, come = made
    come()
    stop, numbers = threading.Event(), itertools.count()
    running = source.frames(numbers, stop)
    taken = [next(running), next(running)]
    stop.set()
    begun = time.monotonic()
    rest = list(running)
    assert time.monotonic() - begun < 1.0
    source.close()
    assert next(numbers) == len(taken) + len(rest)


@pytest.mark.parametrize("name", ENDLESS)
def test_it_stops_promptly_while_nothing_comes(name: str, tmp_path: Path) -> None:
    source, _ = SOURCES[name](tmp_path, pictures())
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    begun = time.monotonic()
    assert list(source.frames(itertools.count(), stop)) == []
    assert time.monotonic() - begun < 1.5
    source.close()


def test_status_answers_before_during_and_after_from_any_thread(made: Made) -> None:
    source, come = made
    told: list[SourceStatus] = [source.status()]
    come()
    for _ in source.frames(itertools.count(), threading.Event()):
        asking = threading.Thread(target=lambda: told.append(source.status()))
        asking.start()
        asking.join(1.0)
        assert not asking.is_alive()
    source.close()
    told.append(source.status())
    assert len(told) == FRAMES + 2
    assert all(isinstance(status, SourceStatus) and status.name for status in told)
    assert told[-1].ended


def test_it_closes_twice_and_without_having_run(made: Made) -> None:
    source, _ = made
    source.close()
    source.close()
