"""Annotated frames, drawn and written behind the session's back by one thread with a short queue."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from queue import Full, Queue
from threading import Thread

from atomid_live.session_file.durable import write_new

log = logging.getLogger(__name__)

Draw = Callable[[], bytes]
_QUEUE = 4


class PictureWriter:
    """Writes pictures under new names, each whole or not at all.

    Parameters
    ----------
    lossless : bool
        With a full queue wait (a folder is being worked through) instead of leaving the picture out (a live stream).

    Attributes
    ----------
    written, skipped, failed : int
        Pictures on the disk, left out because the queue was full, and lost to an error.
    problem : str
        Why the last picture could not be written, "" when it could.
    """

    def __init__(self, *, lossless: bool = False, queue: int = _QUEUE) -> None:
        self.written = self.skipped = self.failed = 0
        self.problem = ""
        self._lossless = lossless
        self._queue: Queue[tuple[Path, Draw] | None] = Queue(queue)
        self._thread = Thread(target=self._work, name="pictures", daemon=True)
        self._thread.start()

    def submit(self, path: Path, draw: Draw) -> bool:
        """Hand over a picture; False when it was left out."""
        try:
            self._queue.put((path, draw), block=self._lossless)
        except Full:
            self.skipped += 1
            return False
        return True

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            path, draw = job
            try:
                write_new(path, draw())
            except Exception as error:  # a picture is never worth the session, whatever is wrong with it
                self.failed += 1
                self.problem = f"picture {path.name}: {error}"
                log.exception("picture %s not written", path)
            else:
                self.written += 1
                self.problem = ""
            finally:
                self._queue.task_done()

    def wait(self) -> None:
        """Return when everything handed over so far is done."""
        self._queue.join()

    def close(self) -> None:
        """Write what is queued and stop; may be called twice."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
