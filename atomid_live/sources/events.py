"""File-system events as hints: a supervised observer whose only act is to put a path into a bounded queue."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
from pathlib import Path
from typing import Any

from atomid_live.sources.listing import is_ours_or_unfinished
from atomid_live.sources.readers import is_candidate

log = logging.getLogger(__name__)

_KEPT = 10_000
_REMOTE = ("nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "9p", "afs", "fuse.sshfs", "ncpfs", "davfs", "fuse.davfs2")


def is_remote(folder: Path) -> bool:
    """Whether the folder lies on a network drive, where events do not come."""
    text = str(folder.absolute())
    if sys.platform == "win32":
        import ctypes

        remote_drive = 4
        return text.startswith("\\\\") or ctypes.windll.kernel32.GetDriveTypeW(Path(text).anchor) == remote_drive
    else:
        best, kind = "", ""
        with contextlib.suppress(OSError):
            for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
                _, place, name, *_ = [*line.split(), "", "", ""]
                place = place.replace("\\040", " ")
                if len(place) >= len(best) and (text + "/").startswith(place.rstrip("/") + "/"):
                    best, kind = place, name
        return kind in _REMOTE


class Events:
    """Hints from the operating system, begun again when the observer dies; their absence only costs a little time.

    Parameters
    ----------
    folder : Path
        The watched folder.
    recursive : bool
        Whether sub-folders count.
    """

    def __init__(self, folder: Path, recursive: bool) -> None:
        self.received = 0
        self._folder, self._recursive = folder, recursive
        self._queue: queue.Queue[tuple[Path, bool]] = queue.Queue(_KEPT)
        self._observer: Any = None
        self._retry_at = 0.0
        self._delay_s = 1.0

    def heed(self, now: float) -> bool:
        """Start or restart the observer if it is not alive; whether it is alive now."""
        if self._is_alive():
            return True
        self._end()
        if now >= self._retry_at:
            try:
                self._begin()
            except (OSError, RuntimeError) as error:
                log.info("no file-system events for %s (%s)", self._folder, error)
                self._end()
            self._retry_at = now + self._delay_s
            self._delay_s = min(2 * self._delay_s, 60.0)
        return self._is_alive()

    def has_news(self) -> bool:
        """Whether a hint waits to be drained."""
        return not self._queue.empty()

    def drain(self) -> list[tuple[Path, bool]]:
        """Return the hints since the last call: path, and whether its writer closed it or moved it into place."""
        hints: dict[Path, bool] = {}
        with contextlib.suppress(queue.Empty):
            while True:
                path, closed = self._queue.get_nowait()
                hints[path] = closed or hints.get(path, False)
        self.received += len(hints)
        return list(hints.items())

    def close(self) -> None:
        """Stop the observer; may be called twice."""
        self._end()

    def _is_alive(self) -> bool:
        seen = self._observer
        return seen is not None and seen.is_alive() and all(emitter.is_alive() for emitter in seen.emitters)

    def _begin(self) -> None:
        from watchdog.events import FileSystemEventHandler
        from watchdog.observers import Observer

        hints = self._queue

        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: Any) -> None:
                # An exception here would end the observer's thread for good.
                with contextlib.suppress(Exception):
                    _put(hints, event)

        self._observer = Observer()
        self._observer.schedule(Handler(), str(self._folder), recursive=self._recursive)
        self._observer.start()

    def _end(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            with contextlib.suppress(Exception):
                observer.unschedule_all()
                observer.stop()
                observer.join(2.0)


def _put(hints: queue.Queue[tuple[Path, bool]], event: Any) -> None:
    kind = event.event_type
    if event.is_directory or kind not in ("created", "modified", "closed", "moved"):
        return
    path = Path(os.fsdecode(event.dest_path if kind == "moved" else event.src_path))
    if is_candidate(path.name) and not is_ours_or_unfinished(path.name):
        hints.put_nowait((path, kind in ("closed", "moved")))
