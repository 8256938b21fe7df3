"""What the session folder keeps of column tracks: entries of a line, and the rows of `events.csv` and `damage.csv`.

Rows are made from the recorded line alone, like those of drift and strain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from atomid_live.calibration import is_calibrated, pair_nm, xy, yx
from atomid_live.flags import Flag
from atomid_live.session_file.cells import cell, csv_row, number, pair, time_cell
from atomid_live.session_file.lines import Record
from atomid_live.types import UNCALIBRATED, Damage, Event, FloatArray, IntArray, Result, Tracks

PICTURES_OF_EVENTS = "events"
NOT_MEASURED = Damage().reason

EVENT_COLUMNS = (
    "frame", "event", "kind", "first_frame", "time_s", "track_id", "x_px", "y_px", "sample_x_px", "sample_y_px",
    "sample_x_nm", "sample_y_nm", "size", "size_sigma", "unit", "significance", "segment", "picture", "note",
)  # fmt: skip
DAMAGE_COLUMNS = (
    "frame", "time_s", "dose_e_nm2", "cumulative_e_nm2", "cumulative_e_A2", "known_sites", "occupied_sites", "occupancy",
    "occupancy_sigma", "vacancies_appeared", "vacancies_healed", "loss_per_frame", "loss_per_frame_sigma",
    "loss_per_e_nm2", "loss_per_e_nm2_sigma", "segment", "reason",
)  # fmt: skip


def picture_name(sequence: int, place: int) -> str:
    """Where the picture of a frame's event number `place` is kept, relative to the session."""
    return f"{PICTURES_OF_EVENTS}/{sequence:06d}-{place}.png"


def _event(event: Event, place: int) -> Record:
    return {
        "event": place,
        "kind": event.kind,
        "first_sequence": event.onset_sequence,
        "before_sequence": event.before_sequence if event.before_sequence >= 0 else None,
        "time_s": event.time_s,
        "track_id": event.track_id if event.track_id >= 0 else None,
        "xy_px": xy(event.yx_px),
        "sample_xy_px": xy(event.sample_yx_px),
        "size": event.size,
        "size_sigma": event.size_sigma,
        "unit": event.unit,
        "significance": event.significance,
        "picture": picture_name(event.sequence, place),
        "note": event.note,
    }


def _damage(damage: Damage) -> Record:
    return {
        "dose_e_nm2": damage.dose_e_nm2,
        "cumulative_e_nm2": damage.cumulative_e_nm2,
        "reason": damage.reason,
        "known_sites": damage.known if damage.known >= 0 else None,
        "occupied_sites": damage.occupied if damage.occupied >= 0 else None,
        "occupancy": damage.occupancy,
        "occupancy_sigma": damage.occupancy_sigma,
        "vacancies_appeared": damage.losses,
        "vacancies_healed": damage.heals,
        "loss_per_frame": damage.loss_per_frame,
        "loss_per_e_nm2": damage.loss_per_e_nm2,
    }


def tracks_record(tracks: Tracks) -> Record | None:
    """Return the entry `tracks` of a processed frame's line; None when nothing followed the columns."""
    if tracks.damage.reason == NOT_MEASURED and not tracks.events:
        return None
    return {
        "sure": tracks.sure,
        "note": tracks.note,
        "followed": int((tracks.track_id >= 0).sum()),
        "events": [_event(event, place) for place, event in enumerate(tracks.events)],
        "damage": _damage(tracks.damage),
    }


def id_column(result: Result) -> FloatArray:
    """Ids as the atoms file has them, shape (N,): NaN where a column has none."""
    ids, count = result.tracks.track_id, len(result.detections)
    if len(ids) != count:
        return np.full(count, np.nan)
    return np.asarray(np.where(ids >= 0, ids, np.nan), np.float64)


def id_flags(result: Result) -> IntArray:
    """The bit of ids that are not sure, shape (N,)."""
    ids, count = result.tracks.track_id, len(result.detections)
    unsure = (ids >= 0) if len(ids) == count and not result.tracks.sure else np.zeros(count, np.bool_)
    return np.where(unsure, int(Flag.TRACK_UNSURE), 0).astype(np.int64)


def _tracks(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Entry of the line; a session begun by a version without tracks has none."""
    return record.get("tracks") or {"events": [], "damage": {}}


def event_rows(record: Mapping[str, Any]) -> bytes:
    """Return the rows of `events.csv` of a processed frame: one per event, most often none."""
    scale = pair(record["pixel_size_yx_nm"]) if record["pixel_size_yx_nm"] else UNCALIBRATED
    rows = []
    for event in _tracks(record)["events"]:
        place, sample = pair(event["xy_px"]), pair(event["sample_xy_px"])
        sample_nm = xy(pair_nm(yx(sample), scale)) if is_calibrated(scale) else UNCALIBRATED
        rows.append(
            csv_row(
                [
                    str(record["sequence"]), str(event["event"]), event["kind"], str(event["first_sequence"]),
                    number(event["time_s"], 6), "" if event["track_id"] is None else str(event["track_id"]),
                    *(number(v, 3) for v in (*place, *sample)), *(number(v, 5) for v in sample_nm),
                    number(event["size"], 6), number(event["size_sigma"], 6), event["unit"],
                    number(event["significance"], 2), str(record["segment"]), cell(event["picture"]), cell(event["note"]),
                ]
            )
        )  # fmt: skip
    return b"".join(rows)


def damage_row(record: Mapping[str, Any]) -> bytes:
    """Return the row of `damage.csv` of a processed frame; doses in electrons per square nm and per square angstrom."""
    damage = _tracks(record)["damage"]
    total = damage.get("cumulative_e_nm2")
    counts = ("known_sites", "occupied_sites")
    changes = ("vacancies_appeared", "vacancies_healed")
    return csv_row(
        [
            str(record["sequence"]), time_cell(record), number(damage.get("dose_e_nm2"), 2), number(total, 2),
            number(None if total is None else total / 100, 4),
            *("" if damage.get(name) is None else str(damage[name]) for name in counts),
            number(damage.get("occupancy"), 6), number(damage.get("occupancy_sigma"), 6),
            *("" if damage.get(name) is None else str(damage[name]) for name in changes),
            *(f"{v:.4e}" if v == v else "" for name in ("loss_per_frame", "loss_per_e_nm2") for v in pair(damage.get(name))),
            str(record["segment"]), cell(damage.get("reason", "")),
        ]
    )  # fmt: skip
