"""Frames on the wire: a ZMQ publisher of array-1.0 messages, as a camera server beside the microscope would send them."""

from __future__ import annotations

import time
from threading import Event

from atomid_live.simulate.acquire import Session, SimulatedFrame
from atomid_live.simulate.scenario import Scenario
from atomid_live.types import Frame, FrameMeta, Origin, frozen
from atomid_live.wire import encode_frame


def as_frame(scenario: Scenario, frame: SimulatedFrame, sequence: int, source: str = "simulated") -> Frame:
    """Frame of the project's own type, numbered `sequence`, with the middle of its exposure as time."""
    return Frame(
        sequence=sequence,
        pixels=frozen(frame.pixels),
        time_s=frame.middle_s,
        origin=Origin(source, scenario.crystal, frame.index),
        time_source="sender",
        time_sigma_s=0.0,
        index=frame.index,
        pixel_size_yx_nm=scenario.pixel_size_yx_nm,
        scale_source="file",
        received_ns=time.time_ns(),
        received_monotonic_s=time.monotonic(),
        meta=FrameMeta(
            detector="HAADF",
            dwell_s=scenario.dwell_us * 1e-6,
            line_time_s=scenario.line_time_s,
            frame_time_s=scenario.exposure_s,
            scan_rotation_rad=0.0,
            beam_energy_ev=300e3,
            beam_current_a=scenario.current_pa * 1e-12,
            field_of_view_m=scenario.shape[1] * scenario.pixel_size_nm * 1e-9,
            software="atomid-live simulate",
        ),
    )


def publish_session(address: str, scenario: Scenario, *, pace_s: float = 1.0, stop: Event | None = None) -> int:
    """Bind a publisher to `address` and send every frame of the scenario; returns how many were sent.

    The first frame waits one pace, so that a subscriber that is already connecting does not miss it.
    """
    import zmq

    halt = stop or Event()
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.set(zmq.LINGER, 1000)
    socket.set(zmq.SNDHWM, 4)
    sent, due = 0, time.monotonic() + pace_s
    try:
        socket.bind(address)
        for frame in Session(scenario):
            if halt.wait(max(0.0, due - time.monotonic())):
                break
            due = max(due + pace_s, time.monotonic())
            socket.send_multipart(encode_frame(as_frame(scenario, frame, frame.index, address), f"seed-{scenario.seed}"))
            sent += 1
    finally:
        socket.close()
        context.term()
    return sent
