"""The simulated source yields numbered frames with truth; the publisher's messages decode to the same frames."""

import itertools
import threading

import numpy as np
import pytest
import zmq

from atomid_live.protocols import Source
from atomid_live.simulate.acquire import Session
from atomid_live.simulate.publish import as_frame, publish_session
from atomid_live.simulate.scenario import Scenario
from atomid_live.sources.simulated import SimulatedSource
from atomid_live.types import Frame, FrameState
from atomid_live.wire import decode_frame, encode_frame

SMALL = Scenario(shape=(64, 96), pixel_size_nm=0.02, frames=4, seed=3, drift_px_per_frame=(0.5, -1.0))


def test_frames_carry_numbers_times_scale_and_truth() -> None:
    source: Source = SimulatedSource(SMALL)
    assert isinstance(source, SimulatedSource)
    frames = list(source.frames(itertools.count(10), threading.Event()))
    assert [frame.sequence for frame in frames] == [10, 11, 12, 13]
    assert all(isinstance(frame, Frame) for frame in frames)
    first = frames[0]
    assert isinstance(first, Frame)
    assert first.shape == (64, 96)
    assert first.pixel_size_yx_nm == (0.02, 0.02)
    assert not first.pixels.flags.writeable
    assert frames[1].time_s - frames[0].time_s == pytest.approx(SMALL.interval_s)
    assert len({frame.origin.content_sha256 for frame in frames}) == 4
    assert source.truths[12].total_yx_px == pytest.approx((1.0, -2.0))
    assert source.status().ended == "all 4 frames taken"
    source.acknowledge(first, FrameState.PROCESSED)


def test_stop_and_close_end_it() -> None:
    source = SimulatedSource(SMALL)
    stop = threading.Event()
    arrivals = source.frames(itertools.count(), stop)
    next(arrivals)
    assert source.status().behind == 3
    stop.set()
    assert list(arrivals) == []
    assert source.status().ended == "stopped"
    closed = SimulatedSource(SMALL)
    closed.close()
    closed.close()
    assert list(closed.frames(itertools.count(), threading.Event())) == []


def test_a_pace_is_kept_and_interrupted_by_stop() -> None:
    source, stop = SimulatedSource(SMALL, pace_s=60.0), threading.Event()
    arrivals = source.frames(itertools.count(), stop)
    next(arrivals)
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    assert list(arrivals) == []
    timer.join()


def test_wire_round_trip() -> None:
    simulated = Session(SMALL).frame(2)
    frame = as_frame(SMALL, simulated, 7)
    wire = decode_frame(encode_frame(frame, "s"))
    np.testing.assert_array_equal(wire.pixels, simulated.pixels)
    assert wire.index == 2
    assert wire.pixel_size_yx_nm == pytest.approx((0.02, 0.02))
    assert wire.sender_time_s == pytest.approx(simulated.middle_s)
    assert wire.meta.detector == "HAADF"


def test_publisher_sends_every_frame_to_a_subscriber() -> None:
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.set(zmq.LINGER, 0)
    socket.subscribe(b"")
    with zmq.Context() as probe, probe.socket(zmq.PUB) as free:
        port = free.bind_to_random_port("tcp://127.0.0.1")
    address = f"tcp://127.0.0.1:{port}"
    socket.connect(address)
    sent: list[int] = []
    thread = threading.Thread(target=lambda: sent.append(publish_session(address, SMALL, pace_s=0.3)))
    thread.start()
    try:
        seen = []
        while len(seen) < SMALL.frames and socket.poll(5000):
            seen.append(decode_frame(socket.recv_multipart()))
        thread.join(10)
        assert sent == [4]
        assert [wire.index for wire in seen] == [0, 1, 2, 3]
        np.testing.assert_array_equal(seen[3].pixels, Session(SMALL).frame(3).pixels)
    finally:
        socket.close()
        context.term()
