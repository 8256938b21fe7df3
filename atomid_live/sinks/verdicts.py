"""The four answers wanted within a second: do frames come, does the specimen drift, does it strain, do columns vanish.

Each is a word with a level and a sentence, from a snapshot alone. A level is shown as a colour, but never without its word.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Literal

from atomid_live.flags import MEANING, Flag
from atomid_live.sinks.view import FramePoint, Snapshot
from atomid_live.sinks.wording import duration, size

Level = Literal["good", "watch", "bad", "unknown"]

FIELD_FRACTION = 0.25
FAST_MIN, SLOW_MIN = 2.0, 15.0
FEWER, FAR_FEWER, MORE = 0.9, 0.7, 1.2
DISK_LOW, DISK_OUT = 2_000_000_000, 500_000_000
SILENT_S = 10.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One word for a glance, its level, and the sentence behind it."""

    level: Level
    word: str
    detail: str = ""


def of_frames(snapshot: Snapshot) -> Verdict:
    """Judge whether frames arrive, are recorded and are worth looking at now."""
    status = snapshot.status
    if not status.recording:
        return Verdict("bad", "UNSAVED", status.last_problem or "results are not being written")
    if not status.running:
        return Verdict("unknown", "ended", status.source.ended)
    if status.source.problem:
        return Verdict("bad", "NO INPUT", status.source.problem)
    if 0 <= status.disk_free_bytes < DISK_OUT:
        return Verdict("bad", "DISK FULL", f"{size(status.disk_free_bytes)} left; free some space")
    if snapshot.latest is None:
        return Verdict("unknown", "waiting", "no frame yet")
    if status.source.behind > 5:
        return Verdict("watch", f"{status.source.behind} behind", "frames arrive faster than they are analysed")
    interval = 1 / status.frames_per_s if status.frames_per_s > 0 else math.nan
    if status.age_s > max(SILENT_S, 5 * interval if math.isfinite(interval) else 0.0):
        return Verdict("watch", "stale", f"no new frame; the last one arrived {duration(status.age_s)} ago")
    if 0 <= status.disk_free_bytes < DISK_LOW:
        return Verdict("watch", "disk low", f"{size(status.disk_free_bytes)} left")
    return Verdict("good", "live")


def minutes_in_view(point: FramePoint) -> float:
    """Time in which the specimen moves by a quarter of the field, in minutes; NaN when the velocity is unknown."""
    rows, cols = point.shape
    pixel_y, pixel_x = point.pixel_size_yx_nm
    vy, vx = point.drift.velocity_yx_nm_min
    vy, vx = vy / pixel_y, vx / pixel_x
    if not math.isfinite(vy + vx):
        vy, vx = (60 * value for value in point.drift.velocity_yx_px_s)
    field_per_min = max(abs(vy) / max(rows, 1), abs(vx) / max(cols, 1))
    if not math.isfinite(field_per_min):
        return math.nan
    return FIELD_FRACTION / field_per_min if field_per_min > 0 else math.inf


def _minutes_at(point: FramePoint, speed_nm_min: float) -> float:
    """Time in which that speed moves a quarter of the field's shorter side, in minutes."""
    field_nm = min(side * pixel for side, pixel in zip(point.shape, point.pixel_size_yx_nm, strict=True))
    return FIELD_FRACTION * field_nm / speed_nm_min if speed_nm_min > 0 else math.inf


_DRIFT_FLAGS: tuple[tuple[Flag, Level, str], ...] = (
    (Flag.DRIFT_LOST, "bad", "LOST"),
    (Flag.DRIFT_JUMP, "bad", "JUMPED"),
    (Flag.MODULO_LATTICE, "watch", "ambiguous"),
    (Flag.DRIFT_POOR, "watch", "unsure"),
)


def of_drift(point: FramePoint | None) -> Verdict:
    """Judge the motion: by what the registration says of itself, then by the time in which a quarter of the view is new."""
    if point is None:
        return Verdict("unknown", "waiting")
    drift = point.drift
    for flag, level, word in _DRIFT_FLAGS:
        if drift.flags & flag:
            return Verdict(level, word, drift.note or MEANING[flag])
    minutes = minutes_in_view(point)
    if math.isnan(minutes):
        return Verdict("unknown", "measuring", drift.note or "a velocity needs a few more frames")
    speed, sigma = math.hypot(*drift.velocity_yx_nm_min), drift.sigma_velocity_nm_min
    detail = f"1/4 of the view new in {duration(minutes * 60)}" if minutes < 600 else "the view stays"
    if speed <= 2 * sigma:
        uncertain = _minutes_at(point, sigma) < SLOW_MIN / 2
        return Verdict("unknown", "measuring", "too few frames to tell") if uncertain else Verdict("good", "steady", detail)
    if minutes < FAST_MIN:
        return Verdict("bad", "FAST", detail)
    return Verdict("watch", "drifting", detail) if minutes < SLOW_MIN else Verdict("good", "steady", detail)


def of_strain(point: FramePoint | None) -> Verdict:
    """Judge the strain: an alarm, a reason not to believe it, or quiet."""
    if point is None:
        return Verdict("unknown", "waiting")
    reading = point.reading
    flags = point.flags | reading.flags
    if reading.alarm:
        return Verdict("bad", "ALARM", reading.alarm)
    if flags & Flag.REFERENCE_PENDING:
        return Verdict("unknown", "reference", reading.reason or MEANING[Flag.REFERENCE_PENDING])
    if not reading.valid:
        return Verdict("watch", "not valid", reading.reason or MEANING[Flag.STRAIN_INVALID])
    if flags & Flag.DRIFT_EXPLAINS:
        return Verdict("watch", "drift?", MEANING[Flag.DRIFT_EXPLAINS])
    if flags & Flag.GPA_DISAGREES:
        return Verdict("watch", "unsure", MEANING[Flag.GPA_DISAGREES])
    return Verdict("good", "quiet")


def of_columns(snapshot: Snapshot) -> Verdict:
    """Judge the specimen's life: the last three frames' column count against the segment's median before them."""
    newest = snapshot.newest
    if newest is None:
        return Verdict("unknown", "waiting")
    if newest.columns == 0:
        reason = MEANING[Flag.CONSTANT] if newest.flags & Flag.CONSTANT else MEANING[Flag.EMPTY]
        return Verdict("bad", "NONE", reason)
    counts = [point.columns for point in snapshot.segment_history]
    if len(counts) < 6:
        return Verdict("unknown", "counting", "a trend needs six frames of a segment")
    before, now = median(counts[:-3]), median(counts[-3:])
    ratio = now / before if before else math.inf
    change = f"{100 * (ratio - 1):+.0f} % against the segment's median" if math.isfinite(ratio) else ""
    if ratio < FAR_FEWER:
        return Verdict("bad", "VANISHING", change)
    if ratio < FEWER:
        return Verdict("watch", "fewer", change)
    if ratio > MORE:
        return Verdict("watch", "more", change)
    return Verdict("good", "steady", change)


def all_four(snapshot: Snapshot) -> dict[str, Verdict]:
    """Return the verdicts by the title they stand under."""
    newest = snapshot.newest
    return {
        "FRAMES": of_frames(snapshot),
        "DRIFT": of_drift(newest),
        "STRAIN": of_strain(newest),
        "COLUMNS": of_columns(snapshot),
    }


def remarks(point: FramePoint | None) -> list[str]:
    """Explain each frame-level flag of a frame in plain words, and say what drift and strain say of themselves."""
    if point is None:
        return []
    value = point.flags | point.drift.flags | point.reading.flags
    words = [meaning for flag, meaning in MEANING.items() if value & flag and flag >= Flag.EMPTY]
    if point.segment_reason:
        words.insert(0, f"new segment {point.segment}: {point.segment_reason}")
    if point.drift.note:
        words.append(f"drift: {point.drift.note}")
    if point.reading.reason and not point.reading.valid:
        words.append(f"strain: {point.reading.reason}")
    if point.reading.valid and not point.reading.correction.startswith("corrected for drift"):
        words.append(f"strain: {point.reading.correction}")
    if point.track_note:
        words.append(f"tracks: {point.track_note}")
    return words
