"""The duty: every frame's line in the loop, its failure loud; tables while the disk has room; pictures behind the loop."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from atomid_live.flags import Flag
from atomid_live.session_file import SessionFolder, atoms_csv
from atomid_live.session_file.lines import Record
from atomid_live.sinks.event_pictures import EventPictures
from atomid_live.sinks.pictures import PictureWriter
from atomid_live.types import Detections, Frame, Origin, Refused, Result

log = logging.getLogger(__name__)

EVENTS = (
    Flag.EMPTY | Flag.CONSTANT | Flag.SPACING_ODD | Flag.SEGMENT_START | Flag.DRIFT_JUMP | Flag.DRIFT_LOST | Flag.CLOCK_STEP
    | Flag.GPA_DISAGREES | Flag.PIXEL_SIZE_ODD
)  # fmt: skip
_DISK_EVERY_S = 1.0


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk that holds `folder`, in bytes."""
    return shutil.disk_usage(folder).free


def wanted(rule: str, result: Result) -> bool:
    """Whether a frame gets a picture under the `annotate` setting: all, none, events, or every N-th."""
    if rule == "events":
        return bool(result.flags & EVENTS) or bool(result.reading.alarm) or bool(result.tracks.events)
    if rule in ("all", "none"):
        return rule == "all"
    return result.sequence % int(rule) == 0


class Recorder:
    """Writes a session to its folder (`protocols.Sink`, and `refuse` for frames that were not processed).

    Parameters
    ----------
    folder : SessionFolder
        Open for writing; closed here.
    annotate : str
        Which frames get a picture: "all", "none", "events", or every N-th as "N".
    min_free_bytes : int
        Below this much free disk only the lines are written, and `problem` says so.
    lossless : bool
        Wait for the picture writer (a folder) rather than leave pictures out (a live stream).
    disk_free : callable
        Folder to free bytes.
    """

    def __init__(
        self,
        folder: SessionFolder,
        *,
        annotate: str = "all",
        min_free_bytes: int = 0,
        lossless: bool = False,
        disk_free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self.folder = folder
        self._rule, self._min_free, self._disk_free = annotate, min_free_bytes, disk_free
        self._pictures = None if annotate == "none" else PictureWriter(lossless=lossless)
        self._events = EventPictures(folder)
        self._left_out = 0
        self._low_disk, self._looked_at = "", -1e9

    @property
    def problem(self) -> str:
        """What keeps tables or pictures from being saved, "" when nothing does."""
        return self.folder.problem or self._low_disk or (self._pictures.problem if self._pictures else "")

    @property
    def pictures_skipped(self) -> int:
        """Annotated frames left out: the writer was busy, the disk nearly full, or the picture failed."""
        return self._left_out + (self._pictures.skipped + self._pictures.failed if self._pictures else 0)

    def warm_up(self, frame: Frame | None = None) -> None:
        """Compile and load what the first frame needs; with a frame also the drawing for its kind of pixels."""
        nothing = Result(0, (1, 1), 0.0, "arrival", Origin(""), Detections.empty())
        atoms_csv(nothing)
        if self._pictures and frame is not None:
            _png(frame, nothing)

    def write(self, frame: Frame, result: Result) -> None:
        """Record a processed frame; raises `RecordingError` when its line cannot be written."""
        self._look_at_disk()
        self.folder.record(result, without_tables=self._low_disk)
        self._events.write(frame, result, room=not self._low_disk)
        if self._pictures is None or not wanted(self._rule, result):
            return
        if self._low_disk:
            self._left_out += 1
            return
        self._pictures.submit(self.folder.picture_path(result.sequence), lambda: _png(frame, result))

    def wait_for_pictures(self) -> None:
        """Return when no picture is being drawn: what a frame finds that arrives at a live pace."""
        if self._pictures:
            self._pictures.wait()

    def refuse(self, refused: Refused) -> None:
        """Record a frame that was not processed; raises `RecordingError` when its line cannot be written."""
        self.folder.refuse(refused)

    def finish(self, outcome: str, reason: str, numbers: Mapping[str, Any] | None = None) -> Record:
        """Finish the pictures, end the session on disk, and return what `summary.json` holds.

        `outcome` is "clean" or "failure"; `numbers` is what only the running program knows. Raises `RecordingError`.
        """
        self._finish_pictures()
        written = self._pictures.written if self._pictures else 0
        own = {"pictures_written": written, "pictures_skipped": self.pictures_skipped, "problem": self.problem}
        own |= {"event_pictures_written": self._events.written, "event_pictures_skipped": self._events.skipped}
        return self.folder.finish(outcome, reason, {**own, **(numbers or {})})

    def close(self) -> None:
        """Finish the pictures and release the folder; may be called twice. Without `finish` it counts as cut off."""
        self._finish_pictures()
        self.folder.close()

    def _finish_pictures(self) -> None:
        self._events.close()
        if self._pictures:
            self._pictures.close()

    def _look_at_disk(self) -> None:
        now = time.monotonic()
        if not self._min_free or now - self._looked_at < _DISK_EVERY_S:
            return
        self._looked_at = now
        try:
            free = self._disk_free(self.folder.path)
        except OSError as error:
            log.warning("free disk space is not known: %s", error)
            return
        before = self._low_disk
        low = free < self._min_free
        self._low_disk = (
            f"disk nearly full: {free / 1e6:.0f} MB free, tables and pictures need {self._min_free / 1e6:.0f} MB" if low else ""
        )
        if bool(before) != low:
            log.warning(self._low_disk or "disk has room again: tables and pictures are written")


def _png(frame: Frame, result: Result) -> bytes:
    from atomid_live.sinks.annotate import annotate, encode_png

    return encode_png(annotate(frame, result))
