"""Events in words, for lines and screens."""

from __future__ import annotations

import math
from typing import Any

from atomid_live.sinks.view import FramePoint, Snapshot
from atomid_live.types import Event

SHOWN = 3


def event_words(event: Event) -> str:
    """One event on one line: what, where (x, y of the frame), how much with its error."""
    place = f" at {event.yx_px[1]:.0f}, {event.yx_px[0]:.0f} px" if event.track_id >= 0 else ""
    size = ""
    if math.isfinite(event.size):
        factor, unit = (100.0, "%") if event.unit == "1" else (1.0, event.unit)
        size = f" {factor * event.size:+.3g} +- {factor * event.size_sigma:.2g} {unit}"
    return f"{event.kind}{place}{size} (frame {event.onset_sequence})"


def recent_events(snapshot: Snapshot) -> str:
    """The last three events that the history still holds, newest first; "" when nothing happened."""
    every = [event for point in snapshot.history for event in point.events]
    shown = "; ".join(event_words(event) for event in reversed(every[-SHOWN:]))
    more = f"; {len(every) - SHOWN} before" if len(every) > SHOWN else ""
    return f"events: {shown}{more}" if every else ""


def event_records(point: FramePoint) -> list[dict[str, Any]]:
    """Events of a frame as JSON-ready objects, unknown numbers null."""

    def plain(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return [
        {
            "kind": event.kind, "first_frame": event.onset_sequence,
            "track_id": event.track_id if event.track_id >= 0 else None,
            "x_px": plain(event.yx_px[1]), "y_px": plain(event.yx_px[0]), "size": plain(event.size),
            "size_sigma": plain(event.size_sigma), "unit": event.unit, "significance": plain(event.significance),
            "note": event.note,
        }
        for event in point.events
    ]  # fmt: skip
