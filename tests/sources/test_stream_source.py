"""The live stream against a real publisher on loopback."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from threading import Event

import numpy as np
import pytest
import zmq

from atomid_live.errors import UsageError
from atomid_live.settings import FrameSettings, SourceSettings
from atomid_live.sources.stream import StreamSource, check_address
from atomid_live.types import Frame, FrameState, Origin, Refused
from atomid_live.wire import encode_frame

SHAPE = (24, 32)


class Publisher:
    """A PUB socket on a free port, and what it needs to be heard from the first frame on."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.set(zmq.LINGER, 0)
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.address = f"tcp://127.0.0.1:{port}"

    def wait_for_subscriber(self) -> None:
        """XPUB hears each subscription, so nothing is sent into the void."""
        assert self.socket.poll(5000), "no subscriber came"
        self.socket.recv()

    def send(self, index: int, session: str = "s") -> None:
        """Publish a frame whose pixels all hold `index`."""
        pixels = np.full(SHAPE, index, np.uint16)
        frame = Frame(0, pixels, 1000.0 + index, Origin(""), index=index, pixel_size_yx_nm=(0.01, 0.02))
        self.socket.send_multipart(encode_frame(frame, session))

    def close(self) -> None:
        """Release the port."""
        self.socket.close()
        self.context.term()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    """A publisher that is closed afterwards."""
    made = Publisher()
    yield made
    made.close()


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for a condition of the other thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


def test_frames_keep_pixels_time_size_and_index(publisher: Publisher) -> None:
    """One frame sent is one frame taken, numbered by us, timed by the sender."""
    source = StreamSource(publisher.address, SourceSettings(max_frames=1), FrameSettings())
    publisher.wait_for_subscriber()
    publisher.send(7)
    (frame,) = source.frames(itertools.count(50), Event())
    source.close()
    assert isinstance(frame, Frame)
    assert frame.sequence == 50 and frame.index == 7 and np.all(frame.pixels == 7)
    assert (frame.time_s, frame.time_source) == (1007.0, "sender")
    assert frame.pixel_size_yx_nm == pytest.approx((0.01, 0.02)) and frame.scale_source == "file"


def test_a_slow_taker_gets_the_newest_and_every_drop_is_counted(publisher: Publisher) -> None:
    """Frames overtaken while nobody took them are refused as dropped, once each, before the newest."""
    source = StreamSource(publisher.address, SourceSettings(until_idle_s=0.3), FrameSettings())
    publisher.wait_for_subscriber()
    for index in range(10):
        publisher.send(index)
        until(lambda i=index: source._last_index >= i)  # drained, not taken
    arrivals = list(source.frames(itertools.count(), Event()))
    source.close()
    dropped = [a for a in arrivals if isinstance(a, Refused)]
    frames = [a for a in arrivals if isinstance(a, Frame)]
    assert [f.index for f in frames] == [9]
    assert len(dropped) == 9 and {d.state for d in dropped} == {FrameState.DROPPED}
    assert [a.sequence for a in arrivals] == list(range(10))


def test_gaps_are_seen_and_a_restarted_sender_is_no_gap(publisher: Publisher) -> None:
    """Numbers 0, 3 of one session lack two; a new session starts anew."""
    source = StreamSource(publisher.address, SourceSettings(), FrameSettings())
    publisher.wait_for_subscriber()
    for index, session in ((0, "a"), (3, "a"), (0, "b"), (1, "b")):
        publisher.send(index, session)
    until(lambda: source._session == "b" and source._last_index == 1)
    assert source.status().missing == 2
    source.close()


def test_garbage_is_a_failed_arrival_and_the_stream_goes_on(publisher: Publisher) -> None:
    """A message that breaks the protocol is counted with its reason."""
    source = StreamSource(publisher.address, SourceSettings(max_frames=1), FrameSettings())
    publisher.wait_for_subscriber()
    publisher.socket.send_multipart([b"{}", b"123"])
    publisher.socket.send(b"lonely")
    publisher.send(1)
    arrivals = list(source.frames(itertools.count(), Event()))
    source.close()
    assert [getattr(a, "state", "frame") for a in arrivals] == [FrameState.FAILED, FrameState.FAILED, "frame"]
    assert isinstance(arrivals[0], Refused) and "htype" in arrivals[0].reason


def test_stop_ends_a_silent_stream_at_once_and_silence_is_a_problem(publisher: Publisher) -> None:
    """Nothing ever came: the status says so, and stopping does not hang."""
    source = StreamSource(publisher.address, SourceSettings(gap_s=0.05), FrameSettings())
    stop = Event()
    until(lambda: "no message" in source.status().problem)
    stop.set()
    assert list(source.frames(itertools.count(), stop)) == []
    source.close()
    source.close()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:5555", "tcp://localhost:1", "tcp://[::1]:5555", "inproc://x"])
def test_local_addresses_are_allowed(address: str) -> None:
    """Loopback in all its spellings."""
    assert check_address(address) == address


@pytest.mark.parametrize(
    ("address", "words"), [("tcp://10.0.0.7:5555", "not on this machine"), ("5555", "looks like"), ("http://x:1", "looks like")]
)
def test_other_addresses_need_insecure(address: str, words: str) -> None:
    """A foreign sender must be asked for by name, and a wrong address shows a right one."""
    with pytest.raises(UsageError, match=words):
        check_address(address)
