"""Live frames over ZeroMQ (SUB, array-1.0): a thread drains the socket, the newest frame is taken, every other is counted.

libzmq drops the newest when a queue is full, and conflating loses the header of a two-part message, so the socket is
drained here into a place for one frame. A frame that is overtaken there is a `Refused` with state dropped.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import zmq

from atomid_live.errors import UsageError, WireError
from atomid_live.settings import FrameSettings, SourceSettings
from atomid_live.types import Arrival, Frame, FrameState, Origin, Refused, SourceStatus
from atomid_live.wire import MAX_MESSAGE_BYTES, WireFrame, decode_frame

log = logging.getLogger(__name__)

_POLL_MS = 100
_KEPT_DROPS = 4096


def check_address(address: str, insecure: bool = False) -> str:
    """Return the address if a subscriber may connect to it, else raise `UsageError` with the rule."""
    parts = urlsplit(address)
    if parts.scheme in ("inproc", "ipc"):
        return address
    if parts.scheme != "tcp" or not parts.hostname or parts.port is None:
        raise UsageError(f"{address!r} is no stream address; it looks like tcp://127.0.0.1:5555")
    try:
        local = parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        local = False
    if not (local or insecure):
        raise UsageError(
            f"{address} is not on this machine, and the stream is neither encrypted nor authenticated; "
            "forward the port through SSH, or say --insecure if the network is yours"
        )
    return address


@dataclass(slots=True)
class _Mail:
    """A message that was taken from the socket, with the time of its arrival."""

    wire: WireFrame | None
    error: str
    received_ns: int
    monotonic_s: float


@dataclass(slots=True)
class _Box:
    """The place between the draining thread and the session: one newest frame, and what it overtook."""

    newest: _Mail | None = None
    overtaken: deque[_Mail] = field(default_factory=lambda: deque(maxlen=_KEPT_DROPS))
    changed: threading.Condition = field(default_factory=threading.Condition)

    def put(self, mail: _Mail) -> None:
        with self.changed:
            if mail.wire is None:
                self.overtaken.append(mail)
            else:
                if self.newest is not None:
                    self.newest.wire, self.newest.error = None, "a newer frame arrived before this one was taken"
                    self.overtaken.append(self.newest)
                self.newest = mail
            self.changed.notify()

    def take(self, timeout_s: float) -> list[_Mail]:
        with self.changed:
            if self.newest is None and not self.overtaken:
                self.changed.wait(timeout_s)
            mails = [*self.overtaken]
            self.overtaken.clear()
            if self.newest is not None:
                mails.append(self.newest)
                self.newest = None
            return mails


class StreamSource:
    """Live source: `frames` yields the newest frame whenever it is asked; see the module."""

    def __init__(self, address: str, source: SourceSettings, frame: FrameSettings, insecure: bool = False) -> None:
        self._address = check_address(address, insecure)
        self._settings, self._frame = source, frame
        self._box = _Box()
        self._closing = threading.Event()
        self._missing, self._last_index, self._session = 0, -1, ""
        self._problem, self._ended, self._heard = "", "", time.monotonic()
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="stream", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.SUB)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RCVHWM, 4)
        socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.subscribe(b"")
        try:
            socket.connect(self._address)
            self._connected.set()
            while not self._closing.is_set():
                if socket.poll(_POLL_MS):
                    self._box.put(self._open(socket.recv_multipart(copy=False)))
        except zmq.ZMQError as error:
            self._problem = f"stream {self._address}: {error}"
            log.error(self._problem)
        finally:
            self._connected.set()
            socket.close()
            context.term()

    def _open(self, parts: list[Any]) -> _Mail:
        now, monotonic = time.time_ns(), time.monotonic()
        self._heard = monotonic
        try:
            wire = decode_frame([part.buffer for part in parts])
        except WireError as error:
            return _Mail(None, f"message refused: {error}", now, monotonic)
        self._count_gap(wire)
        return _Mail(wire, "", now, monotonic)

    def _count_gap(self, wire: WireFrame) -> None:
        if wire.session != self._session:
            self._session, self._last_index = wire.session, -1
        if wire.index is None:
            return
        if self._last_index >= 0 and wire.index > self._last_index + 1:
            self._missing += wire.index - self._last_index - 1
        self._last_index = wire.index

    def frames(self, numbers: Iterator[int], stop: threading.Event) -> Iterator[Arrival]:
        """Yield frames and what they overtook until stopped, idle too long, or enough; see `protocols.Source`."""
        taken, last = 0, time.monotonic()
        while not (stop.is_set() or self._closing.is_set()):
            mails = self._box.take(_POLL_MS / 1e3)
            for mail in mails:
                yield self._arrival(mail, next(numbers))
                taken += mail.wire is not None
            if mails:
                last = time.monotonic()
            idle = self._settings.until_idle_s
            if idle is not None and time.monotonic() - last > idle:
                self._ended = f"no frame for {idle:g} s"
                return
            if self._settings.max_frames is not None and taken >= self._settings.max_frames:
                self._ended = f"{taken} frames taken"
                return

    def _arrival(self, mail: _Mail, number: int) -> Arrival:
        origin = Origin(self._address)
        if mail.wire is None:
            state = FrameState.DROPPED if mail.error.startswith("a newer") else FrameState.FAILED
            return Refused(number, state, mail.error, origin, mail.received_ns / 1e9, mail.received_ns)
        wire, size = mail.wire, self._frame.pixel_size_nm
        known = all(np.isfinite(wire.pixel_size_yx_nm))
        sent = np.isfinite(wire.sender_time_s)
        return Frame(
            sequence=number,
            pixels=wire.pixels,
            time_s=wire.sender_time_s if sent else mail.received_ns / 1e9,
            time_source="sender" if sent else "arrival",
            origin=Origin(self._address, wire.session, wire.index or 0),
            index=wire.index,
            pixel_size_yx_nm=(size[1], size[0]) if size else wire.pixel_size_yx_nm,
            scale_source="user" if size else "file" if known else "unknown",
            received_ns=mail.received_ns,
            received_monotonic_s=mail.monotonic_s,
            meta=wire.meta,
        )

    def acknowledge(self, arrival: Arrival, state: FrameState) -> None:
        """Nothing to remember: a live stream cannot be asked again."""

    def status(self) -> SourceStatus:
        """Tell missing numbers, and silence as a problem once it is longer than `gap_s`."""
        silent = time.monotonic() - self._heard
        problem = self._problem
        if not problem and silent > self._settings.gap_s:
            problem = f"no message for {silent:.0f} s; is the sender running?"
        behind = 1 if self._box.newest is not None else 0
        return SourceStatus(self._address, behind, (), self._missing, "live stream", problem, self._ended)

    def close(self) -> None:
        """Stop draining and release the socket."""
        self._closing.set()
        self._thread.join(timeout=5)
