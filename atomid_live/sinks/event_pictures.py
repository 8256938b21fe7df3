"""A picture per event: the place before it began beside the place now, drawn and written behind the session's back."""

from __future__ import annotations

import math
from collections import deque

import cv2
import numpy as np

from atomid_live.session_file import SessionFolder, picture_name
from atomid_live.sinks.annotate import Picture, encode_png, grey
from atomid_live.sinks.pictures import PictureWriter
from atomid_live.sinks.rings import stamp
from atomid_live.types import Event, Frame, Result

_KEPT_BYTES, _KEPT_FRAMES = 256_000_000, 16
_QUEUE, _MOST_PER_FRAME = 32, 16
_HALF_SPACINGS, _LEAST_HALF_PX = 5.0, 12
_SIDE_PX, _GAP_PX, _STRIP_PX = 224, 6, 22
_RING_SPACINGS = 0.45
_RING_RGB, _INK = (255, 184, 56), (235, 235, 235)


def _half(spacing_px: float, shape: tuple[int, int]) -> int:
    half = _HALF_SPACINGS * spacing_px if math.isfinite(spacing_px) else max(shape)
    return int(min(max(half, _LEAST_HALF_PX), max(shape)))


def _crop(frame: Frame, yx_px: tuple[float, float], half: int, ring_px: float) -> Picture:
    """Square part of a frame around a place, black beyond the border, `_SIDE_PX` wide, with a ring on the place."""
    centre = [round(value) for value in yx_px]
    low = [max(0, c - half) for c in centre]
    high = [max(0, min(n, c + half + 1)) for c, n in zip(centre, frame.shape, strict=True)]
    square = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    part = frame.pixels[low[0] : high[0], low[1] : high[1]]
    if part.size:
        top, left = low[0] - centre[0] + half, low[1] - centre[1] + half
        square[top : top + part.shape[0], left : left + part.shape[1]] = grey(part)
    image = np.asarray(cv2.resize(square, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA if half > _SIDE_PX // 2 else 0))
    rgb = np.ascontiguousarray(np.repeat(image[:, :, None], 3, axis=2))
    scale = _SIDE_PX / (2 * half + 1)
    if ring_px > 0:
        place = (np.array([yx_px]) - centre + half + 0.5) * scale - 0.5
        stamp(rgb, place, np.array([_RING_RGB], np.uint8), ring_px * scale)
    return rgb


def _words(picture: Picture, text: str) -> Picture:
    strip = np.zeros((_STRIP_PX, picture.shape[1], 3), np.uint8)
    cv2.putText(strip, text, (4, _STRIP_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)
    return np.vstack([picture, strip])


def event_picture(event: Event, before: Frame | None, now: Frame, spacing_px: float) -> Picture:
    """Draw an event: left the frame before it began (black where it is no longer at hand), right the confirming frame.

    Returns
    -------
    ndarray, shape (268, 454, 3), uint8
        RGB, with a strip of words under it.
    """
    single = event.track_id >= 0
    half = _half(spacing_px if single else math.nan, now.shape)
    ring = _RING_SPACINGS * spacing_px if single else 0.0
    right = _words(_crop(now, event.yx_px, half, ring), f"frame {now.sequence}")
    if before is None:
        left = _words(np.zeros((_SIDE_PX, _SIDE_PX, 3), np.uint8), "frame before: not kept")
    else:
        left = _words(_crop(before, event.before_yx_px, half, ring), f"frame {before.sequence}")
    pair = np.hstack([left, np.zeros((left.shape[0], _GAP_PX, 3), np.uint8), right])
    return _words(pair, f"{event.kind}, first seen in frame {event.onset_sequence}")


class EventPictures:
    """Keeps the last frames, as many as 256 MB hold, and hands pictures of events to a writer of their own.

    Parameters
    ----------
    folder : SessionFolder
        Whose `events/` receives them.
    """

    def __init__(self, folder: SessionFolder) -> None:
        self._folder = folder
        self._frames: deque[Frame] = deque(maxlen=_KEPT_FRAMES)
        self._writer: PictureWriter | None = None
        self._left_out = 0

    @property
    def skipped(self) -> int:
        """Pictures left out: too many at once, the writer was busy, the disk nearly full, or the picture failed."""
        return self._left_out + (self._writer.skipped + self._writer.failed if self._writer else 0)

    @property
    def written(self) -> int:
        """Pictures on the disk."""
        return self._writer.written if self._writer else 0

    def write(self, frame: Frame, result: Result, *, room: bool = True) -> None:
        """Take the next frame; without `room` on the disk pictures are left out."""
        if not self._frames or self._frames[-1].sequence != frame.sequence:
            self._frames.append(frame)
        while len(self._frames) > 2 and sum(f.pixels.nbytes for f in self._frames) > _KEPT_BYTES:
            self._frames.popleft()
        for place, event in enumerate(result.tracks.events):
            if place >= _MOST_PER_FRAME or not room:
                self._left_out += 1
            else:
                self._submit(place, event, frame, result.detections.spacing_px)

    def _submit(self, place: int, event: Event, frame: Frame, spacing_px: float) -> None:
        before = next((kept for kept in self._frames if kept.sequence == event.before_sequence), None)
        self._writer = self._writer or PictureWriter(queue=_QUEUE)
        path = self._folder.event_picture_path(picture_name(event.sequence, place))
        self._writer.submit(path, lambda: encode_png(event_picture(event, before, frame, spacing_px)))

    def close(self) -> None:
        """Write what is queued and stop; may be called twice."""
        if self._writer:
            self._writer.close()
