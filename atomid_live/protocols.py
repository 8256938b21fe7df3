"""The seams of the house on one page: what a source, a detector, a network, a sink and a clock must offer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atomid_live.types import Arrival, Detections, Frame, FrameState, Result, SourceStatus


class Source(Protocol):
    """Whole frames in order, from a folder, a stream, files or a simulator; threads it needs are closed behind it."""

    def frames(self, numbers: Iterator[int], stop: Event) -> Iterator[Arrival]:
        """Yield arrivals until `stop` is set or nothing more can come; each takes the next of `numbers`.

        Raises `InputGoneError` when the input vanished for good.
        """

    def acknowledge(self, arrival: Arrival, state: FrameState) -> None:
        """Hear that the arrival's line is safely in the session file, so that a restart need not take it again."""

    def status(self) -> SourceStatus:
        """Tell the state of the source, from any thread, without blocking."""

    def close(self) -> None:
        """Stop threads and release handles; may be called twice."""


class Detector(Protocol):
    """Frame to columns: pure, the same answer for the same frame, safe to call from one thread at a time."""

    @property
    def name(self) -> str:
        """Name shown to the user and written to the session."""

    def detect(self, frame: Frame) -> Detections:
        """Find the columns of a frame; nothing found is `Detections.empty()`, never an exception."""

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Compile and allocate for frames of this shape, so that the first frame is not slow."""


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """What a network returns for one image.

    Attributes
    ----------
    confidence : ndarray, shape (rows / stride, cols / stride), float32
        Probability-like map with a peak on every column.
    stride : int
        Pixels of the input per pixel of the map.
    spacing_px : float
        The network's own estimate of the mean spacing in input pixels; NaN where it has none.
    column_sigma_px : float
        Its estimate of the width of a column in input pixels; NaN where it has none.
    """

    confidence: NDArray[np.float32] = field(repr=False)
    stride: int = 1
    spacing_px: float = float("nan")
    column_sigma_px: float = float("nan")


class Network(Protocol):
    """Normalised image to maps, on some device; opened in a `with` block by whoever owns it."""

    @property
    def name(self) -> str:
        """Back end and model, e.g. "openvino:unet-s4"."""

    def infer(self, image: NDArray[np.float32]) -> Maps:
        """Run one image of shape (rows, cols), both multiples of 16; the maps may be overwritten by the next call."""

    def close(self) -> None:
        """Release the device."""


class Sink(Protocol):
    """A place where results go, in the loop, in order."""

    def write(self, frame: Frame, result: Result) -> None:
        """Take one result; a sink that records raises `RecordingError` when it cannot."""

    def close(self) -> None:
        """Finish what was begun; may be called twice."""


class Clock(Protocol):
    """Time as a parameter, so that tests need not sleep."""

    def time_ns(self) -> int:
        """Wall clock in ns since 1970 UTC."""

    def monotonic(self) -> float:
        """Seconds that never jump."""
