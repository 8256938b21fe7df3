"""A watched folder as a source: whole frames in order, none twice, none lost, and the folder never touched.

Events are hints and the periodic listing is the truth; what to take and when is decided in `scanner`, without a thread.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

from atomid_live.errors import InputGoneError, UsageError
from atomid_live.settings import FrameSettings, SourceSettings
from atomid_live.sources.arrivals import Numbering, refused
from atomid_live.sources.events import Events, is_remote
from atomid_live.sources.files import Loaded, options_from
from atomid_live.sources.ledger import Ledger
from atomid_live.sources.listing import Where
from atomid_live.sources.scanner import FolderScanner, Found
from atomid_live.types import Arrival, Frame, FrameState, Origin, SourceStatus

_SLICE_S = 0.02
_REMOTE_SCAN_S = 2.0
_UNHERALDED = 3


class FolderSource:
    """Frames of a folder as another program writes them.

    Parameters
    ----------
    folder : Path
        The folder to watch; it must be there at the start.
    source : SourceSettings
        Times, limits, and what to do with files that are there already.
    frame : FrameSettings
        Detector and pixel size.
    ledger : Ledger or None
        What was taken before; without one nothing is remembered beyond this object. The caller closes it.
    leave_out : tuple of Path
        Folders or files inside the folder to pass over, such as the output folder.
    outage_s : float
        How long the folder may be away before `InputGoneError`.

    Raises
    ------
    InputGoneError
        There is no such folder.
    UsageError
        The path is not a folder.
    """

    def __init__(
        self,
        folder: Path,
        source: SourceSettings,
        frame: FrameSettings,
        ledger: Ledger | None = None,
        *,
        leave_out: tuple[Path, ...] = (),
        outage_s: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = _checked(folder)
        self._remote = source.polling == "auto" and is_remote(self._folder)
        if self._remote:
            source = source.model_copy(update={"scan_interval_s": max(source.scan_interval_s, _REMOTE_SCAN_S)})
        self._settings, self._clock = source, clock
        self._owns_ledger = ledger is None
        self._closed = False
        self._ledger = ledger if ledger is not None else Ledger()
        where = Where(self._folder, source.recursive, tuple(path.absolute() for path in leave_out))
        self._scanner = FolderScanner(where, source, options_from(frame, source), self._ledger, outage_s)
        self._numbering = Numbering(frame, self._ledger)
        self._answers: queue.SimpleQueue[tuple[Origin, FrameState, bool]] = queue.SimpleQueue()
        self._events = None if source.polling == "on" or self._remote else Events(self._folder, source.recursive)
        self._counted = 0
        self._ended = ""
        self._status = SourceStatus(name=str(self._folder), mode="starting")

    def frames(self, numbers: Iterator[int], stop: Event) -> Iterator[Arrival]:
        """Yield arrivals until `stop` is set, `max_frames` were taken or nothing came for `until_idle_s`."""
        try:
            while not stop.is_set() and not self._ended:
                found = self._poll()
                for one in found:
                    yield from self._arrive(one, numbers)
                    if self._is_full():
                        self._ended = f"{self._settings.max_frames} frames were taken"
                        return
                    if stop.is_set():
                        return
                if not found and self._is_idle():
                    for one in self._scanner.finish(self._clock()):
                        yield from self._arrive(one, numbers)
                    self._end_idle()
                elif not found:
                    self._rest(stop)
        finally:
            self._tell()
            if self._events is not None:
                self._events.close()

    def acknowledge(self, arrival: Arrival, state: FrameState) -> None:
        """Write the frame into the ledger: its line is safe."""
        self._numbering.acknowledge(arrival, state)
        self._answers.put((arrival.origin, state, isinstance(arrival, Frame)))

    def status(self) -> SourceStatus:
        """Tell how many frames are behind, which files wait and why, and how changes are heard of."""
        return self._status

    def close(self) -> None:
        """Stop the observer and note which files are finished; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._hear_answers()
        if self._events is not None:
            self._events.close()
        if self._owns_ledger:
            self._ledger.close()

    def _poll(self) -> list[Found]:
        now = self._clock()
        self._hear_answers()
        if self._events is not None and self._events.heed(now):
            for path, closed in self._events.drain():
                self._scanner.hint(path, closed, now)
        found = self._scanner.poll(now)
        self._judge_events()
        self._tell()
        return found

    def _hear_answers(self) -> None:
        while True:
            try:
                origin, state, was_frame = self._answers.get_nowait()
            except queue.Empty:
                return
            self._counted -= was_frame and state is not FrameState.PROCESSED
            self._scanner.answered(origin)

    def _judge_events(self) -> None:
        """Give up events that never come, as on some shares that do not look like one."""
        deaf = self._events is not None and not self._events.received and self._scanner.unheralded >= _UNHERALDED
        if deaf and self._events is not None and self._settings.polling == "auto" and self._scanner.is_idle():
            self._events.close()
            self._events = None

    def _arrive(self, one: Found, numbers: Iterator[int]) -> Iterator[Arrival]:
        if isinstance(one, Loaded):
            arrival = self._numbering.arrival(one, numbers)
            if arrival is None:
                self._scanner.answered(one.origin)
                return
            self._counted += isinstance(arrival, Frame)
        else:
            arrival = refused(one, next(numbers))
        self._tell()
        yield arrival

    def _is_full(self) -> bool:
        limit = self._settings.max_frames
        return limit is not None and self._counted >= limit

    def _is_idle(self) -> bool:
        limit = self._settings.until_idle_s
        if limit is None or self._scanner.problem or not self._scanner.is_idle():
            return False
        return self._clock() - self._scanner.last_news_s >= limit

    def _end_idle(self) -> None:
        left = ", ".join(f"{name} ({reason})" for name, reason in self._scanner.waiting())
        self._ended = f"nothing new for {self._settings.until_idle_s:g} s" + (f"; still waiting: {left}" if left else "")

    def _rest(self, stop: Event) -> None:
        """Wait until something is due or a hint came, in slices short enough to stop and hear at once."""
        until = min(self._scanner.next_due(), self._clock() + 1.0)
        while not stop.wait(_SLICE_S) and self._clock() < until:
            if self._events is not None and self._events.has_news():
                return

    def _tell(self) -> None:
        alive = self._events is not None
        self._status = SourceStatus(
            name=str(self._folder),
            behind=self._scanner.behind(),
            waiting=self._scanner.waiting(),
            mode="events" if alive else "polling",
            problem=self._scanner.problem,
            ended=self._ended,
        )


def _checked(folder: Path) -> Path:
    folder = Path(folder).absolute()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UsageError(f"{folder} is a file, and watch wants a folder; to analyse files use `atomid-live replay {folder}`")
    raise InputGoneError(f"there is no folder {folder}; check the name and whether the drive or share is connected")
