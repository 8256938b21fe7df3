"""Frames straight from a simulated microscope, without files or sockets: for tests, benchmarks and trials."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from threading import Event

import numpy as np

from atomid_live.simulate.acquire import FrameTruth, Session, SimulatedFrame
from atomid_live.simulate.publish import as_frame
from atomid_live.simulate.scenario import Scenario
from atomid_live.types import Arrival, Frame, FrameState, SourceStatus


def _hashed(frame: Frame) -> Frame:
    digest = hashlib.sha256(f"{frame.pixels.shape}{frame.pixels.dtype.str}".encode())
    digest.update(np.ascontiguousarray(frame.pixels).data)
    return replace(frame, origin=replace(frame.origin, content_sha256=digest.hexdigest()))


class SimulatedSource:
    """A `Source` that yields the frames of a scenario in order.

    Parameters
    ----------
    scenario : Scenario
        What is simulated.
    pace_s : float
        Seconds from one frame to the next; 0 waits for nobody.
    """

    def __init__(self, scenario: Scenario, pace_s: float = 0.0) -> None:
        self.session = Session(scenario)
        self.truths: dict[int, FrameTruth] = {}
        self._pace_s = pace_s
        self._closing = Event()
        self._taken, self._acknowledged, self._ended = 0, 0, ""

    def frames(self, numbers: Iterator[int], stop: Event) -> Iterator[Arrival]:
        """Yield every frame until stopped or closed; the truth of each is kept in `truths` under its sequence."""
        due = time.monotonic()
        for index in range(self._taken, len(self.session)):
            wait = max(0.0, due - time.monotonic())
            if self._closing.is_set() or (stop.wait(wait) if wait else stop.is_set()):
                self._ended = "stopped"
                return
            due += self._pace_s
            yield self._arrival(self.session.frame(index), next(numbers))
        self._ended = f"all {len(self.session)} frames taken"

    def _arrival(self, simulated: SimulatedFrame, sequence: int) -> Frame:
        self._taken = simulated.index + 1
        self.truths[sequence] = simulated.truth
        return _hashed(as_frame(self.session.scenario, simulated, sequence))

    def acknowledge(self, arrival: Arrival, state: FrameState) -> None:
        """Count what was recorded."""
        self._acknowledged += 1

    def status(self) -> SourceStatus:
        """Tell how many frames are still to come."""
        scenario = self.session.scenario
        left = 0 if self._ended else len(self.session) - self._taken
        return SourceStatus(name=f"simulated {scenario.crystal}", behind=left, mode="simulated", ended=self._ended)

    def close(self) -> None:
        """Yield nothing more."""
        self._closing.set()
