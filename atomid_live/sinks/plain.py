"""Lines instead of a screen: one per frame, for people or as JSON, where output is no terminal.

The log of the snapshots is pulled, so a pipe that nobody reads holds up this thread alone; what it missed is said.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from threading import Event
from typing import Any, Protocol

from atomid_live import flags
from atomid_live.protocols import Clock
from atomid_live.sinks import verdicts
from atomid_live.sinks.console import still_running, stop_on_signal
from atomid_live.sinks.event_words import event_records, event_words
from atomid_live.sinks.view import FramePoint, Snapshot, SnapshotSource
from atomid_live.sinks.wording import Script, duration, file_name, outlook_words
from atomid_live.types import COMPONENTS, Summary

SCHEMA = 1
POLL_S = 0.2
WAITING_EVERY_S = 30.0


class TextStream(Protocol):
    """What is written to: standard output, or anything like it."""

    def write(self, text: str, /) -> int:
        """Take text."""

    def flush(self) -> None:
        """Hand it on at once."""


def _number(value: float) -> float | None:
    return round(float(value), 6) + 0.0 if math.isfinite(value) else None


def _xy(yx: tuple[float, float]) -> dict[str, float | None]:
    return {"x": _number(yx[1]), "y": _number(yx[0])}


def _numbers(given: dict[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in given.items()}


def time_utc(time_s: float) -> str | None:
    """Write seconds since 1970 UTC as ISO 8601 with milliseconds; None when unknown."""
    if not math.isfinite(time_s):
        return None
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _drift(point: FramePoint) -> dict[str, Any]:
    drift = point.drift
    vy, vx = drift.velocity_yx_nm_min
    return {
        "total_px": _xy(drift.total_yx_px),
        "sigma_px": _xy(drift.sigma_yx_px),
        "velocity_nm_min": {"x": _number(vx), "y": _number(vy), "sigma": _number(drift.sigma_velocity_nm_min)},
        "quality": _number(drift.quality),
        "reference_frame": drift.reference_sequence,
        "candidates_px": [_xy(candidate) for candidate in drift.candidates_yx_px],
    }


def _strain(point: FramePoint) -> dict[str, Any]:
    reading = point.reading
    told: dict[str, Any] = {
        name: {"mean": _number(found.mean), "std": _number(found.std), "sem": _number(found.sem)}
        for name, found in reading.strain.items()
        if name in COMPONENTS
    }
    corrected = {
        name: {"mean": _number(found.mean), "sem": _number(found.sem)} for name, found in reading.strain_corrected.items()
    }
    told["corrected"] = corrected
    state = {
        "correction": reading.correction,
        "valid": reading.valid,
        "reason": reading.reason,
        "alarm": reading.alarm,
        "reference": reading.reference,
    }
    return {**told, **state, "window_nm": _number(reading.window_nm)}


def record(point: FramePoint) -> dict[str, Any]:
    """Return the compact JSON object of a frame: x and y in named pairs, unknown numbers null, flags by name.

    A refused frame has `schema`, `frame`, `state`, `reason`, `file`, `item`, `item_index` and `time_utc` only.
    """
    common = {
        "schema": SCHEMA,
        "frame": point.sequence,
        "state": point.state.value,
        "file": point.source,
        "item": point.item,
        "item_index": point.item_index,
        "time_utc": time_utc(point.time_s),
    }
    if not point.processed:
        return {**common, "reason": point.reason}
    return {
        **common,
        "time_source": point.time_source,
        "segment": point.segment,
        "segment_reason": point.segment_reason,
        "columns": point.columns,
        "spacing_px": _number(point.spacing_px),
        "pixel_size_yx_nm": [_number(size) for size in point.pixel_size_yx_nm],
        "scale_source": point.scale_source,
        "drift": _drift(point),
        "strain": _strain(point),
        "events": event_records(point),
        "latency_ms": _number(point.latency_ms),
        "timings_ms": _numbers(dict(point.timings_ms)),
        "flags": flags.names(point.flags | point.drift.flags | point.reading.flags),
    }


def json_line(point: FramePoint) -> str:
    """Return `record` as one line of strict, pure-ASCII JSON."""
    return json.dumps(record(point), allow_nan=False, separators=(",", ":"))


def _spacing(point: FramePoint, script: Script) -> str:
    in_nm = point.spacing_px * point.pixel_nm
    nm = f" ({in_nm:.3f} nm)" if math.isfinite(in_nm) else " (uncalibrated)"
    return f"spacing {script.number(point.spacing_px)} px{nm}"


def drift_words(point: FramePoint, script: Script) -> str:
    """Return total drift (x, y), speed with its error, and the verdict where it is not a plain motion."""
    y, x = point.drift.total_yx_px
    speed = math.hypot(*point.drift.velocity_yx_nm_min)
    words = f"drift {script.number(x, 1, True)},{script.number(y, 1, True)} px"
    if math.isfinite(speed):
        words += " " + script.measured(speed, point.drift.sigma_velocity_nm_min, "nm/min")
    if outlook := outlook_words(point.drift, script):
        words += f" ({outlook})"
    verdict = verdicts.of_drift(point)
    return words if verdict.level == "good" else f"{words} [{verdict.word}]"


def strain_words(point: FramePoint, script: Script) -> str:
    """Return hydrostatic strain with its standard error in %, or why there is none, and the alarm."""
    reading = point.reading
    found = reading.strain.get("hydrostatic", Summary())
    if reading.valid:
        words = "strain " + script.measured(100 * found.mean, 100 * found.sem, "%", signed=True)
    else:
        words = f"strain not valid: {script.clean(reading.reason)}"
    return f"{words} ALARM: {script.clean(reading.alarm)}" if reading.alarm else words


def line(point: FramePoint, script: Script) -> str:
    """Return one line about one frame."""
    head = f"frame {point.sequence}  {point.state.value}"
    name = script.clean(file_name(point.source))
    if not point.processed:
        return f"{head}  {name}: {script.clean(point.reason)}"
    parts = [head, f"{point.columns} columns", _spacing(point, script), drift_words(point, script)]
    parts += [strain_words(point, script), f"{script.number(point.latency_ms, 0)} ms", name]
    parts += [f"EVENT {script.clean(event_words(event))}" for event in point.events[:3]]
    parts += [f"and {len(point.events) - 3} more events"] if len(point.events) > 3 else []
    if point.segment_reason:
        parts.insert(1, f"new segment {point.segment} ({script.clean(point.segment_reason)})")
    return "  ".join(parts)


def waiting_line(snapshot: Snapshot, script: Script) -> str:
    """Return a line about a session in which nothing new happened: for how long, what is waited for, what is wrong."""
    status = snapshot.status
    age = f", last frame {duration(status.age_s)} ago" if math.isfinite(status.age_s) else ""
    parts = [f"waiting on {script.clean(status.source.name) or 'the source'}{age}, {status.received} frames so far"]
    parts += [f"{script.clean(file_name(name))}: {script.clean(why)}" for name, why in status.source.waiting[:3]]
    if status.source.problem:
        parts.append(f"problem: {script.clean(status.source.problem)}")
    return "; ".join(parts)


def final_line(snapshot: Snapshot, script: Script) -> str:
    """Return the last line of a session: the counts, which add up, and where everything lies."""
    status = snapshot.status
    told = ", ".join(f"{count} {state}" for state, count in status.counts.items() if count) or "none"
    folder = f"; results in {script.clean(status.session_dir)}" if status.session_dir else ""
    return f"{status.received} frames received: {told}{folder}"


class PlainDisplay:
    """Prints what is new in the log, from the thread that calls `run`.

    Parameters
    ----------
    source : SnapshotSource
        The session.
    stream : TextStream
        Where lines go; with `as_json` each is one JSON object and nothing else is written.
    clock : Clock
        Tells when a waiting line is due.
    interval_s : float
        Seconds between pulls.
    seen : int
        How much of the log was already shown elsewhere.
    """

    def __init__(
        self,
        source: SnapshotSource,
        stream: TextStream,
        clock: Clock,
        as_json: bool = False,
        interval_s: float = POLL_S,
        seen: int = 0,
    ) -> None:
        self._source, self._stream, self._clock = source, stream, clock
        self._as_json, self._interval_s = as_json, interval_s
        self._script = Script.for_stream(stream)
        self._seen = seen
        self._quiet_since = clock.monotonic()

    def run(self, stop: Event) -> None:
        """Print until the session has ended; a signal sets `stop`, a second one raises `KeyboardInterrupt`.

        A closed pipe (`... | head`) ends the printing, not the session, whose end is then waited for.
        """
        with stop_on_signal(stop):
            try:
                for snapshot in still_running(self._source, stop, self._interval_s):
                    self.show(snapshot)
                if not self._as_json:
                    self._write([final_line(snapshot, self._script)])
            except (OSError, ValueError):
                for _ in still_running(self._source, stop, self._interval_s):
                    pass

    def show(self, snapshot: Snapshot) -> None:
        """Print what the log holds beyond what was printed before."""
        new = min(snapshot.logged - self._seen, len(snapshot.log))
        missed = snapshot.logged - self._seen - new
        self._seen = snapshot.logged
        told: Callable[[FramePoint], str] = json_line if self._as_json else lambda point: line(point, self._script)
        lines = [told(point) for point in snapshot.log[len(snapshot.log) - new :]]
        if missed:
            lines.insert(0, self._missed(missed))
        if lines:
            self._quiet_since = self._clock.monotonic()
        elif not self._as_json and self._clock.monotonic() - self._quiet_since >= WAITING_EVERY_S:
            self._quiet_since = self._clock.monotonic()
            lines.append(waiting_line(snapshot, self._script))
        self._write(lines)

    def _missed(self, count: int) -> str:
        if self._as_json:
            return json.dumps({"schema": SCHEMA, "not_shown": count})
        return f"{count} frames not shown here, because nobody read this output; frames.jsonl has them all"

    def _write(self, lines: Iterable[str]) -> None:
        text = "".join(f"{one}\n" for one in lines)
        if text:
            self._stream.write(text)
            self._stream.flush()
