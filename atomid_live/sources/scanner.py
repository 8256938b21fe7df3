"""The core of the watched folder: `poll(now)` lists, settles, probes and reads, and never sleeps or waits."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from atomid_live.errors import FileNotReadyError, InputGoneError, NotAFrameError, UnreadableFileError
from atomid_live.settings import SourceSettings
from atomid_live.sources.arrivals import Refusal
from atomid_live.sources.files import Batch, Identity, Loaded, acquired_s, identify, natural_key, read_batch
from atomid_live.sources.ledger import Ledger
from atomid_live.sources.listing import Where, is_passed_over, list_files
from atomid_live.sources.readers.opening import LockedError
from atomid_live.sources.readers.raw import Key, ReadOptions, ZeroTailError
from atomid_live.sources.settle import Phase, Watched
from atomid_live.types import FrameState, Origin

log = logging.getLogger(__name__)

READ_AHEAD = 2
ZERO_TAIL_HOLD_S = 10.0
_ASKED_AT_ONCE = 50
_LONGEST_SCAN_S = 10.0
_LISTING_SHARE = 25
"""Listing a very full folder may take a twenty-fifth of the time, so that it stays a small load."""


Found = Loaded | Refusal


class FolderScanner:
    """Decides from one moment to the next what can be taken from a folder, in order.

    Parameters
    ----------
    where : Where
        The folder and what to leave out.
    settings : SourceSettings
        Times, policy for files that exist already, limits.
    options : ReadOptions
        How files are read.
    ledger : Ledger
        What was taken before.
    outage_s : float
        How long the folder may be away before `InputGoneError`.
    """

    def __init__(
        self, where: Where, settings: SourceSettings, options: ReadOptions, ledger: Ledger, outage_s: float = 300.0
    ) -> None:
        self.problem = ""
        self.last_news_s = math.nan
        self.unheralded = 0
        self._where, self._settings, self._options, self._ledger, self._outage_s = where, settings, options, ledger, outage_s
        self._files: dict[Path, Watched] = {}
        self._next_scan_s = -math.inf
        self._gone_since_s = math.nan
        self._started = False
        self._spare: list[Path] = []

    # what others tell us

    def hint(self, path: Path, closed: bool, now: float) -> None:
        """Hear from the system that a file changed; `closed` when its writer closed it or moved it into place."""
        if not self._started or is_passed_over(path, self._where):
            return
        watched = self._files.get(path)
        if watched is None:
            try:
                watched = self._meet(path, identify(path), now)
            except (OSError, UnreadableFileError):
                return
        self._look(watched, now)
        watched.closed = watched.closed or closed
        if closed and watched.phase is Phase.SETTLING and watched.attempts:
            watched.due_s = now

    def answered(self, origin: Origin) -> None:
        """Hear that one of our finds is safely recorded (or needs no record)."""
        watched = self._files.get(Path(origin.source))
        if watched is None:
            return
        watched.unanswered = max(0, watched.unanswered - 1)
        if watched.phase is Phase.DONE and watched.unanswered == 0 and str(watched.identity) == origin.identity:
            self._ledger.finish([(origin.source, origin.identity)])

    # what we tell others

    def behind(self) -> int:
        """Whole frames known but not taken."""
        return sum(max(1, w.left) for w in self._files.values() if w.phase is Phase.READY)

    def waiting(self) -> tuple[tuple[str, str], ...]:
        """Files seen but not whole, each with the reason."""
        held = [w for w in self._files.values() if w.phase is Phase.SETTLING]
        return tuple((w.path.name, w.reason or "still changing") for w in sorted(held, key=lambda w: natural_key(w.path.name)))

    def is_idle(self) -> bool:
        """Whether nothing is ready and every file was looked into."""
        return all(w.phase is Phase.DONE or (w.phase is Phase.SETTLING and w.attempts > 0) for w in self._files.values())

    def next_due(self) -> float:
        """When `poll` has something to do if nothing is heard before."""
        due = [self._next_scan_s]
        for watched in self._files.values():
            if watched.phase is Phase.READY:
                return -math.inf
            if watched.phase is Phase.SETTLING:
                due.append(watched.settled_at(self._settings.settle_s))
        return min(due)

    # the work

    def poll(self, now: float) -> list[Found]:
        """Return what can be taken now, in order: at most a few frames of one file, so that memory stays small.

        Raises
        ------
        InputGoneError
            The folder has been away for longer than `outage_s`.
        """
        if now >= self._next_scan_s:
            begun = time.perf_counter()
            self._rescan(now)
            cost_s = time.perf_counter() - begun
            self._next_scan_s = now + max(self._settings.scan_interval_s, min(_LISTING_SHARE * cost_s, _LONGEST_SCAN_S))
        for watched in [w for w in self._files.values() if w.phase is Phase.SETTLING]:
            if now >= watched.settled_at(self._settings.settle_s):
                self._look(watched, now)
                if watched.is_settled(now, self._settings.settle_s):
                    watched.phase = Phase.READY
        ready = [w for w in self._files.values() if w.phase is Phase.READY]
        if not ready or not self._ask_times(ready):
            return []
        return self._take(min(ready, key=self._order), now)

    def finish(self, now: float) -> list[Found]:
        """Settle what still waits when the watch ends by itself: dark frames are taken, unfinished files set aside."""
        found: list[Found] = []
        for watched in list(self._files.values()):
            if watched.phase is Phase.SETTLING and watched.attempts and watched.zero_tail:
                found += self._take(watched, now, accept_zero_tail=True)
            if watched.phase is Phase.SETTLING and watched.attempts and not watched.locked:
                reason = f"not whole when the watch ended: {watched.reason}"
                found.append(self._refuse(watched, FrameState.QUARANTINED, reason, now))
        return found

    def _rescan(self, now: float) -> None:
        try:
            listed = list_files(self._where)
        except OSError as error:
            self._away(f"{self._where.folder} cannot be listed ({error.strerror or error})", now)
            return
        self.problem, self._gone_since_s = "", math.nan
        if not self._started:
            self._started, self.last_news_s = True, now
            self._begin(listed, now)
        for path, identity in listed.items():
            watched = self._files.get(path)
            if watched is None:
                self.unheralded += self._meet(path, identity, now).phase is Phase.SETTLING
            elif watched.identity != identity:
                self._look(watched, now)
        for path in [p for p, w in self._files.items() if p not in listed and not w.unanswered]:
            del self._files[path]

    def _away(self, problem: str, now: float) -> None:
        if not self.problem:
            log.warning("%s; waiting for it to come back", problem)
        self.problem = problem
        self._gone_since_s = now if math.isnan(self._gone_since_s) else self._gone_since_s
        if now - self._gone_since_s >= self._outage_s:
            raise InputGoneError(f"{problem} for {self._outage_s:.0f} s; check the drive or share, then start again to resume")

    def _begin(self, listed: dict[Path, Identity], now: float) -> None:
        """Apply the policy for files that were there first, and remember it, so that a restart does not differ."""
        policy = self._settings.existing or ("last" if self._ledger.is_empty else "process")
        if policy == "process":
            return
        old = [p for p, i in listed.items() if not self._ledger.is_finished(str(p), str(i))]
        old.sort(key=lambda path: (listed[path].mtime_ns, natural_key(path.name)))
        newest = old.pop() if policy == "last" and old else None
        for path in old:
            self._files[path] = Watched(path, listed[path], changed_s=now, first_s=now, phase=Phase.DONE)
        if newest is None:
            self._leave_alone(old)
        else:
            self._spare = old

    def _leave_alone(self, paths: Iterable[Path]) -> None:
        self._ledger.finish((str(path), str(self._files[path].identity)) for path in paths if path in self._files)

    def _promote_spare(self, now: float) -> None:
        """The newest file that was there first gave no frame: try the next."""
        while self._spare:
            watched = self._files.get(self._spare.pop())
            if watched is not None and watched.phase is Phase.DONE:
                watched.phase, watched.changed_s, watched.first_s = Phase.SETTLING, now, now
                return

    def _meet(self, path: Path, identity: Identity, now: float) -> Watched:
        watched = self._files[path] = Watched(path, identity, changed_s=now, first_s=now)
        if self._ledger.is_finished(str(path), str(identity)):
            watched.phase = Phase.DONE
        else:
            self.last_news_s = now
        return watched

    def _look(self, watched: Watched, now: float) -> None:
        """Ask for the file's present state; one that cannot be asked is left to the next listing."""
        try:
            identity = identify(watched.path)
        except (OSError, UnreadableFileError):
            return
        if identity == watched.identity:
            watched.looks += 1
        else:
            watched.change(identity, now)
            self.last_news_s = now

    def _ask_times(self, ready: list[Watched]) -> bool:
        """Ask the files for their acquisition time where order is in question; False while some are still to be asked."""
        unknown = [w for w in ready if w.acquired_s is None]
        if len(ready) > 1:
            for watched in unknown[:_ASKED_AT_ONCE]:
                watched.acquired_s = acquired_s(watched.path, self._options)
            return len(unknown) <= _ASKED_AT_ONCE
        return True

    @staticmethod
    def _order(watched: Watched) -> tuple[float, tuple[tuple[int, int, str], ...], str]:
        known = watched.acquired_s is not None and math.isfinite(watched.acquired_s)
        return (watched.acquired_s or 0.0) if known else math.inf, natural_key(watched.path.name), str(watched.path)

    def _wanted(self, watched: Watched) -> Callable[[Key], bool]:
        source, identity = str(watched.path), str(watched.identity)

        def wanted(key: Key) -> bool:
            handed = watched.handed.get(key)
            if handed is not None and (key[0] or handed == identity):
                return False
            return not self._ledger.taken(source, identity, key[0], key[1])

        return wanted

    def _take(self, watched: Watched, now: float, accept_zero_tail: bool = False) -> list[Found]:
        dark = accept_zero_tail or (watched.zero_tail and watched.still_for(now) >= self._hold_s())
        options = replace(self._options, accept_zero_tail=dark)
        try:
            batch = read_batch(watched.path, options, self._wanted(watched), READ_AHEAD)
        except FileNotReadyError as error:
            return self._not_ready(watched, error, now)
        except NotAFrameError as error:
            return [self._refuse(watched, FrameState.SKIPPED, str(error), now)]
        except UnreadableFileError as error:
            return [self._refuse(watched, FrameState.QUARANTINED, str(error), now)]
        return self._hand_out(watched, batch, now)

    def _hold_s(self) -> float:
        return min(ZERO_TAIL_HOLD_S, self._settings.give_up_s)

    def _hand_out(self, watched: Watched, batch: Batch, now: float) -> list[Found]:
        for loaded in batch.loaded:
            watched.handed[loaded.origin.item, loaded.origin.item_index] = loaded.origin.identity
        watched.unanswered += len(batch.loaded)
        watched.left = batch.left
        if batch.loaded:
            self.last_news_s = now
        if any(loaded.raw is not None for loaded in batch.loaded):
            self._leave_alone(self._spare)
            self._spare = []
        elif not (batch.left or batch.waiting):
            self._promote_spare(now)
        if batch.waiting:
            return [*batch.loaded, *self._not_ready(watched, FileNotReadyError(batch.waiting), now)]
        if batch.left == 0:
            watched.phase, watched.reason = Phase.DONE, ""
            if not watched.unanswered:
                self._ledger.finish([(str(watched.path), str(watched.identity))])
        return list(batch.loaded)

    def _not_ready(self, watched: Watched, error: FileNotReadyError, now: float) -> list[Found]:
        watched.locked, watched.zero_tail = isinstance(error, LockedError), isinstance(error, ZeroTailError)
        watched.wait(str(error), now)
        if watched.zero_tail:
            watched.due_s = min(watched.due_s, watched.changed_s + self._hold_s())
        if watched.locked or watched.still_for(now) < self._settings.give_up_s:
            return []
        reason = f"{error}; unchanged for {watched.still_for(now):.0f} s, taken up again if it changes"
        return [self._refuse(watched, FrameState.QUARANTINED, reason, now)]

    def _refuse(self, watched: Watched, state: FrameState, reason: str, now: float) -> Refusal:
        watched.phase, watched.reason, watched.left = Phase.DONE, "", 0
        watched.unanswered += 1
        self.last_news_s = now
        self._promote_spare(now)
        origin = Origin(str(watched.path), identity=str(watched.identity))
        return Refusal(origin, state, reason, watched.identity.mtime_ns / 1e9)
