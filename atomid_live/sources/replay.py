"""Files given by name as a source: every frame in natural order, at full speed or at a pace, and then the end."""

from __future__ import annotations

import glob
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock

from atomid_live.errors import AtomidError, NotAFrameError, UsageError
from atomid_live.settings import FrameSettings, SourceSettings
from atomid_live.sources.arrivals import Refusal, refused
from atomid_live.sources.files import Loaded, every_frame, natural_key, options_from, to_frame
from atomid_live.sources.listing import Where, list_files
from atomid_live.types import Arrival, Frame, FrameState, Origin, SourceStatus

_LONGEST_PAUSE_S = 60.0


def expand(paths: Sequence[str | Path], recursive: bool = False) -> list[Path]:
    """Return the files that paths, folders and patterns stand for, in natural order and each once.

    Raises
    ------
    UsageError
        A path or pattern stands for nothing.
    """
    files: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found = list(list_files(Where(path, recursive)))
        elif path.exists():
            found = [path]
        else:
            found = [Path(name) for name in glob.iglob(str(given), recursive=True) if Path(name).is_file()]  # noqa: PTH207
        if not found:
            raise UsageError(
                f"{given} stands for no file that can be read; give files, folders or patterns such as 'run/*.emd'"
            )
        files.update(dict.fromkeys(sorted(found, key=lambda p: natural_key(str(p)))))
    return list(files)


class ReplaySource:
    """Recorded files, played again.

    Parameters
    ----------
    paths : sequence of str or Path
        Files, folders and patterns.
    source, frame : SourceSettings, FrameSettings
        Limits, detector and pixel size.
    pace : float, "original" or None
        Seconds between frames; "original" keeps the distances of their times (a minute at most); None does not wait.
    clock : callable
        Monotonic seconds.

    Raises
    ------
    UsageError
        A path stands for nothing.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        source: SourceSettings,
        frame: FrameSettings,
        pace: float | str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(pace, str) and pace != "original":
            raise UsageError(f"pace {pace!r} is not known; give seconds between frames or 'original'")
        self._files = expand(paths, source.recursive)
        self._frame, self._limit, self._pace, self._clock = frame, source.max_frames, pace, clock
        self._options = replace(options_from(frame, source), accept_zero_tail=True)
        self._lock = Lock()
        self._left, self._counted, self._ended = len(self._files), 0, ""
        self._last: tuple[float, float] | None = None

    def frames(self, numbers: Iterator[int], stop: Event) -> Iterator[Arrival]:
        """Yield every frame of the files, and a refusal for each file that holds none."""
        for path in self._files:
            for found in self._of_file(path):
                if isinstance(found, Loaded) and found.raw is not None:
                    self._wait_turn(found.raw.time_s, stop)
                if stop.is_set():
                    return
                arrival = self._arrival(found, next(numbers))
                with self._lock:
                    self._counted += isinstance(arrival, Frame)
                yield arrival
                if self._limit is not None and self._counted >= self._limit:
                    self._ended = f"{self._limit} frames were taken"
                    return
            with self._lock:
                self._left -= 1
        self._ended = "all files were played"

    def _of_file(self, path: Path) -> Iterator[Loaded | Refusal]:
        try:
            yield from every_frame(path, self._options)
        except NotAFrameError as error:
            yield Refusal(Origin(str(path)), FrameState.SKIPPED, str(error), math.nan)
        except AtomidError as error:
            yield Refusal(Origin(str(path)), FrameState.FAILED, str(error), math.nan)

    def _arrival(self, found: Loaded | Refusal, sequence: int) -> Arrival:
        if isinstance(found, Refusal):
            return refused(found, sequence)
        if found.raw is None:
            return refused(Refusal(found.origin, FrameState.SKIPPED, found.reason, math.nan), sequence)
        return to_frame(found, sequence, self._frame)

    def _wait_turn(self, time_s: float, stop: Event) -> None:
        if self._pace is None:
            return
        now = self._clock()
        if self._last is not None:
            apart = time_s - self._last[1] if isinstance(self._pace, str) else self._pace
            pause = self._last[0] + min(max(apart, 0.0), _LONGEST_PAUSE_S) - now if math.isfinite(apart) else 0.0
            if pause > 0:
                stop.wait(pause)
        self._last = (self._clock(), time_s)

    def acknowledge(self, arrival: Arrival, state: FrameState) -> None:
        """Do nothing: a replay begins anew each time. A frame that was not processed does not count for `max_frames`."""
        with self._lock:
            self._counted -= isinstance(arrival, Frame) and state is not FrameState.PROCESSED

    def status(self) -> SourceStatus:
        """Tell how many files are left."""
        name = str(self._files[0]) if len(self._files) == 1 else f"{len(self._files)} files"
        return SourceStatus(name=name, behind=max(0, self._left), mode="replay", ended=self._ended)

    def close(self) -> None:
        """Do nothing: files are open only while they are read."""
