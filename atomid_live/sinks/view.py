"""What displays pull: one frozen snapshot of a session, and the bounded memory the session fills for them.

A display asks a few times a second and may miss frames; nothing is ever pushed at it, so it cannot hold up the session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atomid_live.types import (
    NAN,
    UNCALIBRATED,
    DriftEstimate,
    Event,
    FrameState,
    Reading,
    Refused,
    Result,
    ScaleSource,
    SessionStatus,
    TimeSource,
    frozen,
)

HISTORY_FRAMES = 240
LOG_FRAMES = 1000
PREVIEW_PX = 512


@dataclass(frozen=True, slots=True)
class FramePoint:
    """The scalars of one frame, light enough to keep hundreds; a refused frame has a state, a reason and little else.

    Attributes
    ----------
    columns : int
        Number of columns, -1 for a frame that was not analysed.
    shape : (int, int)
        (rows, cols) in pixels.
    latency_ms : float
        From the frame taken from its source to its line written.
    """

    sequence: int
    state: FrameState
    time_s: float
    source: str = ""
    item: str = ""
    item_index: int = 0
    reason: str = ""
    time_source: TimeSource = "arrival"
    shape: tuple[int, int] = (0, 0)
    columns: int = -1
    spacing_px: float = NAN
    pixel_size_yx_nm: tuple[float, float] = UNCALIBRATED
    scale_source: ScaleSource = "unknown"
    segment: int = 0
    segment_reason: str = ""
    drift: DriftEstimate = field(default_factory=DriftEstimate)
    reading: Reading = field(default_factory=Reading)
    latency_ms: float = NAN
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    flags: int = 0
    events: tuple[Event, ...] = ()
    track_note: str = ""

    @property
    def pixel_nm(self) -> float:
        """Mean pixel size in nm; NaN when uncalibrated."""
        return (self.pixel_size_yx_nm[0] + self.pixel_size_yx_nm[1]) / 2

    @property
    def processed(self) -> bool:
        """Whether the frame was analysed."""
        return self.state is FrameState.PROCESSED

    @classmethod
    def of_result(cls, result: Result, latency_ms: float = NAN) -> FramePoint:
        """Keep the scalars of a result."""
        return cls(
            sequence=result.sequence,
            state=FrameState.PROCESSED,
            time_s=result.time_s,
            source=result.origin.source,
            item=result.origin.item,
            item_index=result.origin.item_index,
            time_source=result.time_source,
            shape=result.shape,
            columns=len(result.detections),
            spacing_px=result.detections.spacing_px,
            pixel_size_yx_nm=result.pixel_size_yx_nm,
            scale_source=result.scale_source,
            segment=result.segment,
            segment_reason=result.segment_reason,
            drift=result.drift,
            reading=result.reading,
            latency_ms=latency_ms,
            timings_ms=dict(result.timings_ms),
            flags=result.flags,
            events=result.tracks.events,
            track_note=result.tracks.note,
        )

    @classmethod
    def of_refused(cls, refused: Refused) -> FramePoint:
        """Keep what is known of a frame that was not analysed."""
        origin = refused.origin
        return cls(
            refused.sequence, refused.state, refused.time_s, origin.source, origin.item, origin.item_index, refused.reason
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """What the session amounts to so far, for the final summary.

    `largest_drift_px` is the greatest distance from a segment's reference frame; columns are counted per frame.
    """

    frames: int = 0
    segments: int = 0
    columns: int = 0
    columns_least: int = 0
    columns_most: int = 0
    largest_drift_px: float = NAN
    largest_drift_nm: float = NAN
    strain_valid: int = 0
    alarms: int = 0
    first_time_s: float = NAN
    last_time_s: float = NAN
    slowest_ms: float = NAN

    def after(self, point: FramePoint, new_segment: bool) -> Totals:
        """Return the totals with one more processed frame."""
        y, x = point.drift.total_yx_px
        first = self.frames == 0
        return Totals(
            frames=self.frames + 1,
            segments=self.segments + new_segment,
            columns=self.columns + point.columns,
            columns_least=point.columns if first else min(self.columns_least, point.columns),
            columns_most=max(self.columns_most, point.columns),
            largest_drift_px=float(np.fmax(self.largest_drift_px, np.hypot(y, x))),
            largest_drift_nm=float(
                np.fmax(self.largest_drift_nm, np.hypot(y * point.pixel_size_yx_nm[0], x * point.pixel_size_yx_nm[1]))
            ),
            strain_valid=self.strain_valid + point.reading.valid,
            alarms=self.alarms + bool(point.reading.alarm),
            first_time_s=point.time_s if first else self.first_time_s,
            last_time_s=point.time_s,
            slowest_ms=float(np.fmax(self.slowest_ms, point.latency_ms)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """All that a display may show at one moment.

    Attributes
    ----------
    status : SessionStatus
        Counts, latencies, source and recording.
    latest : Result or None
        The newest processed frame; None before the first.
    history : tuple of FramePoint
        The last processed frames, oldest first, at most `HISTORY_FRAMES`.
    log : tuple of FramePoint
        The last frames of any state, oldest first, at most `LOG_FRAMES`.
    logged : int
        Frames ever logged, so that a reader of `log` knows what is new to it and what it missed.
    preview : ndarray of uint8, shape (rows / k, cols / k), or None
        The newest frame as a small grey picture covering the whole frame; only when it was asked for.
    """

    status: SessionStatus
    latest: Result | None = None
    history: tuple[FramePoint, ...] = ()
    log: tuple[FramePoint, ...] = ()
    logged: int = 0
    totals: Totals = field(default_factory=Totals)
    preview: NDArray[np.uint8] | None = field(default=None, repr=False)

    @property
    def newest(self) -> FramePoint | None:
        """The scalars of the newest processed frame."""
        return self.history[-1] if self.history else None

    @property
    def segment_history(self) -> tuple[FramePoint, ...]:
        """The part of `history` that compares with the newest frame: its own segment."""
        return tuple(point for point in self.history if point.segment == self.history[-1].segment)


class SnapshotSource(Protocol):
    """What a session offers to displays."""

    def snapshot(self, *, preview: bool = False) -> Snapshot:
        """Tell how things stand, from any thread, without waiting for a frame; `preview` asks for the grey picture too."""


class History:
    """The displays' memory, filled by the session's thread and read by any other; bounded, whatever happens.

    Parameters
    ----------
    frames, log : int
        How many processed frames, and how many frames of any state, are kept.
    """

    def __init__(self, frames: int = HISTORY_FRAMES, log: int = LOG_FRAMES) -> None:
        self._lock = Lock()
        self._points: deque[FramePoint] = deque(maxlen=frames)
        self._log: deque[FramePoint] = deque(maxlen=log)
        self._logged = 0
        self._totals = Totals()
        self._latest: Result | None = None
        self._pixels: NDArray[Any] | None = None
        self._preview: tuple[int, NDArray[np.uint8]] | None = None

    def add(self, result: Result, pixels: NDArray[Any] | None = None, latency_ms: float = NAN) -> None:
        """Remember a processed frame; `pixels` is kept by reference until the next one, for the preview."""
        point = FramePoint.of_result(result, latency_ms)
        with self._lock:
            new_segment = not self._points or self._points[-1].segment != point.segment
            self._totals = self._totals.after(point, new_segment)
            self._points.append(point)
            self._note(point)
            self._latest, self._pixels = result, pixels

    def refuse(self, refused: Refused) -> None:
        """Remember a frame that was dropped, skipped, failed or quarantined."""
        with self._lock:
            self._note(FramePoint.of_refused(refused))

    def _note(self, point: FramePoint) -> None:
        self._log.append(point)
        self._logged += 1

    def snapshot(self, status: SessionStatus, preview: bool = False) -> Snapshot:
        """Join the memory with the session's status; the preview is made here, in the thread that asks for it."""
        with self._lock:
            latest, pixels = self._latest, self._pixels
            told = (tuple(self._points), tuple(self._log), self._logged, self._totals)
        picture = None
        if preview and latest is not None and pixels is not None:
            picture = self._picture(latest.sequence, pixels)
        return Snapshot(status, latest, *told, preview=picture)

    def _picture(self, sequence: int, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        kept = self._preview
        if kept is None or kept[0] != sequence:
            kept = self._preview = (sequence, preview_of(pixels))
        return kept[1]


def preview_of(pixels: NDArray[Any], limit: int = PREVIEW_PX) -> NDArray[np.uint8]:
    """Shrink a frame to a grey picture of at most `limit` pixels a side, stretched between its 1 % and 99.7 % values.

    Parameters
    ----------
    pixels : ndarray, shape (rows, cols), any real dtype
    limit : int
        Greatest number of rows and columns of the answer.

    Returns
    -------
    ndarray of uint8
        Means of k x k blocks (a remainder under k pixels at the lower and right border is left out); 0 for a constant frame.
    """
    step = max(1, -(-max(pixels.shape) // limit))
    rows, cols = pixels.shape[0] // step * step, pixels.shape[1] // step * step
    if rows == 0 or cols == 0:
        return frozen(np.zeros((max(1, pixels.shape[0]), max(1, pixels.shape[1])), np.uint8))
    blocks = np.zeros((rows // step, cols // step), np.float32)
    for dy in range(step):
        for dx in range(step):
            blocks += pixels[dy:rows:step, dx:cols:step]
    blocks = np.nan_to_num(blocks / step**2, copy=False)
    low, high = np.percentile(blocks, (1.0, 99.7))
    if high <= low:
        return frozen(np.zeros(blocks.shape, np.uint8))
    return frozen(np.clip((blocks - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8))
