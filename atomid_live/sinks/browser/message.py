"""A snapshot as what the page draws: a JSON object of numbers and plain words, a JPEG, and the columns as 32-bit floats."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from atomid_live.sinks.verdicts import all_four, remarks
from atomid_live.sinks.view import FramePoint, Snapshot
from atomid_live.sinks.wording import Script, duration, file_name
from atomid_live.types import FloatArray, Summary

SCHEMA = 1
MOST_COLUMNS = 30_000
_JPEG_QUALITY = 85


def _known(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def _row(values: Iterable[float]) -> list[float | None]:
    return [_known(value) for value in values]


def state_json(snapshot: Snapshot) -> bytes:
    """What the page shows besides picture and columns; unknown numbers are null, lengths in nm where the scale is known."""
    script, status, point = Script(), snapshot.status, snapshot.newest
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "logged": snapshot.logged,
        "running": status.running,
        "recording": status.recording,
        "problem": script.clean(status.last_problem),
        "session": script.clean(status.session_dir),
        "model": script.clean(status.model),
        "received": status.received,
        "counts": dict(status.counts),
        "missing": status.source.missing,
        "behind": status.source.behind,
        "latency_ms": _row((status.latency_p50_ms, status.latency_p95_ms, status.latency_p99_ms)),
        "age": duration(status.age_s),
        "verdicts": [
            {"title": title, "word": verdict.word, "level": verdict.level, "detail": script.clean(verdict.detail)}
            for title, verdict in all_four(snapshot).items()
        ],
        "frame": None,
    }
    if point is not None and snapshot.latest is not None:
        told["frame"] = _frame(snapshot, point, script.clean)
        told["drift"] = _drift(snapshot.segment_history, script)
        told["strain"] = _strain(snapshot.segment_history, script.clean)
    return json.dumps(told, allow_nan=False, separators=(",", ":")).encode()


def _frame(snapshot: Snapshot, point: FramePoint, clean: Callable[[str], str]) -> dict[str, Any]:
    rows, cols = point.shape
    return {
        "sequence": point.sequence,
        "file": clean(file_name(point.source)),
        "width_px": cols,
        "height_px": rows,
        "columns": point.columns,
        "columns_sent": 0 if snapshot.latest is None else len(_shown(len(snapshot.latest.detections))),
        "spacing_px": _known(point.spacing_px),
        "pixel_x_nm": _known(point.pixel_size_yx_nm[1]),
        "remarks": [clean(words) for words in remarks(point)],
    }


def _drift(points: tuple[FramePoint, ...], script: Script) -> dict[str, Any]:
    """Path in nm, or in px without a pixel size; the newest place's standard error and speed."""
    last = points[-1]
    pixel = np.array(last.pixel_size_yx_nm)
    unit = "nm" if np.isfinite(pixel).all() else "px"
    scale = pixel if unit == "nm" else np.ones(2)
    y, x = (np.array([point.drift.total_yx_px for point in points]) * scale).T
    speed = math.hypot(*last.drift.velocity_yx_nm_min)
    told = script.measured(speed, last.drift.sigma_velocity_nm_min, "nm/min") if math.isfinite(speed) else "speed unknown"
    if not math.isfinite(speed) and math.isfinite(math.hypot(*last.drift.velocity_yx_px_s)):
        told = f"{60 * math.hypot(*last.drift.velocity_yx_px_s):.2f} px/min"
    sigma_y, sigma_x = np.array(last.drift.sigma_yx_px) * scale
    return {"unit": unit, "x": _row(x), "y": _row(y), "sigma_x": _known(sigma_x), "sigma_y": _known(sigma_y), "speed": told}


def _strain(points: tuple[FramePoint, ...], clean: Callable[[str], str]) -> dict[str, Any]:
    """History in % with its standard error; null where the frame's strain is not valid."""
    reading = points[-1].reading

    def part(name: str, what: str) -> list[float | None]:
        found = (point.reading.strain.get(name, Summary()) if point.reading.valid else Summary() for point in points)
        return _row(100 * getattr(one, what) for one in found)

    return {
        "valid": reading.valid,
        "reason": clean(reading.reason),
        "reference": clean(reading.reference),
        "alarm": clean(reading.alarm),
        "minutes": _row((point.time_s - points[0].time_s) / 60 for point in points),
        "hydrostatic": part("hydrostatic", "mean"),
        "sem": part("hydrostatic", "sem"),
        "exx": part("exx", "mean"),
        "eyy": part("eyy", "mean"),
        "alarms": [bool(point.reading.alarm) for point in points],
    }


def _shown(count: int) -> range:
    return range(0, count, max(1, -(-count // MOST_COLUMNS)))


def columns_bytes(snapshot: Snapshot) -> bytes:
    """Little-endian float32 (N, 4): x, y in pixels, score, hydrostatic strain in % (NaN where unknown or not valid)."""
    if snapshot.latest is None:
        return b""
    found, strain = snapshot.latest.detections, snapshot.latest.strain
    table: FloatArray = np.full((len(found), 4), np.nan)
    table[:, 0], table[:, 1], table[:, 2] = found.yx_px[:, 1], found.yx_px[:, 0], found.score
    if strain.valid and snapshot.latest.reading.valid and len(strain.exx) == len(found):
        table[:, 3] = 100 * strain.hydrostatic
    shown = _shown(len(found))
    return table[shown.start : shown.stop : shown.step].astype("<f4").tobytes()


def preview_jpeg(snapshot: Snapshot) -> bytes:
    """Encode the frame's preview; b"" where there is none."""
    import cv2

    if snapshot.preview is None:
        return b""
    done, data = cv2.imencode(".jpg", snapshot.preview, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return bytes(data) if done else b""
