"""From what was found in a file to an arrival with its number; pixels met before are said to be so, or passed over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from atomid_live.settings import FrameSettings
from atomid_live.sources.files import Loaded, to_frame
from atomid_live.sources.ledger import Ledger, Seen
from atomid_live.types import Arrival, FrameState, Origin, Refused


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file, or an image of one, that gives no frame, and why."""

    origin: Origin
    state: FrameState
    reason: str
    time_s: float


def refused(refusal: Refusal, sequence: int) -> Refused:
    """Number a refusal and stamp it with the present time."""
    return Refused(sequence, refusal.state, refusal.reason, refusal.origin, refusal.time_s, received_ns=time.time_ns())


class Numbering:
    """Gives arrivals their numbers and remembers pixels, here until they are acknowledged and in the ledger after."""

    def __init__(self, settings: FrameSettings, ledger: Ledger) -> None:
        self._settings, self._ledger = settings, ledger
        self._pending: dict[str, Seen] = {}
        self._lock = threading.Lock()

    def arrival(self, loaded: Loaded, numbers: Iterator[int]) -> Arrival | None:
        """Return the arrival, or None when the very same frame of the same file was taken before."""
        origin = loaded.origin
        if loaded.raw is None:
            return refused(Refusal(origin, FrameState.SKIPPED, loaded.reason, time.time()), next(numbers))
        seen = self._seen(origin.content_sha256)
        if seen is not None:
            if (seen.source, seen.item, seen.item_index) == (origin.source, origin.item, origin.item_index):
                return None
            reason = f"same pixels as {seen.sequence} ({Path(seen.source).name})"
            return refused(Refusal(origin, FrameState.SKIPPED, reason, loaded.raw.time_s), next(numbers))
        sequence = next(numbers)
        with self._lock:
            self._pending[origin.content_sha256] = Seen(sequence, origin.source, origin.item, origin.item_index)
        return to_frame(loaded, sequence, self._settings)

    def _seen(self, content_sha256: str) -> Seen | None:
        with self._lock:
            pending = self._pending.get(content_sha256)
        return pending or self._ledger.seen_content(content_sha256)

    def acknowledge(self, arrival: Arrival, state: FrameState) -> None:
        """Write the ledger's row; only then forget what was pending."""
        self._ledger.record(arrival.origin, arrival.sequence, state)
        with self._lock:
            pending = self._pending.get(arrival.origin.content_sha256)
            if pending is not None and pending.sequence == arrival.sequence:
                del self._pending[arrival.origin.content_sha256]
