"""`session.json`: what a session was run with, its segments, and how it ended."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from atomid_live.calibration import is_calibrated
from atomid_live.session_file.lines import Record
from atomid_live.session_file.record import SCHEMA
from atomid_live.types import Result

NAME = "session.json"
_PACKAGES = ("atomid-live", "numpy", "scipy", "numba", "opencv-python-headless", "openvino", "onnxruntime", "pyfive", "h5py",
             "tifffile", "pillow")  # fmt: skip


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What the session is to remember of its making.

    Attributes
    ----------
    source : str
        The watched folder, the address, or the files, as the user wrote them.
    settings, origins : mapping
        Dotted key to value (`settings.flat_values`), and to where the value came from.
    model : mapping
        Name and hash of the detector, and whatever else its card says.
    calibration_id : str
        Which calibration file was used, "" for none.
    """

    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    calibration_id: str = ""


def utc(time_ns: int) -> str:
    """Return a time for people, e.g. ``2026-11-22T20:15:01Z``."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def source_key(source: str) -> str:
    """Return what two ways of writing the same folder have in common; an address is left as it is."""
    return source if "://" in source else os.path.normcase(os.path.realpath(source))


def opening(name: str, info: SessionInfo, time_ns: int) -> Record:
    """Return `session.json` as it is when the session begins."""
    keys = {**dict.fromkeys(info.settings), **dict.fromkeys(info.origins)}
    return {
        "schema": SCHEMA,
        "session": name,
        "source": info.source,
        "source_key": source_key(info.source),
        "started_utc": utc(time_ns),
        "started_ns": time_ns,
        "settings": {key: {"value": info.settings.get(key), "origin": info.origins.get(key, "default")} for key in keys},
        "model": dict(info.model),
        "calibration_id": info.calibration_id,
        "versions": {"python": platform.python_version(), **{package: _version(package) for package in _PACKAGES}},
        "host": {
            "name": platform.node(),
            "system": platform.platform(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
        },
        "segments": [],
        "resumed": [],
        **unfinished(),
    }


def unfinished() -> Record:
    """Return the entries of a session that has not ended."""
    return {"ended_utc": None, "ended_ns": None, "counts": None, "outcome": None, "reason": None}


def segment_entry(result: Result) -> Record:
    """Return the entry of the segment that begins with this frame."""
    return {
        "segment": result.segment,
        "first_sequence": result.sequence,
        "reason": result.segment_reason,
        "width_px": result.shape[1],
        "height_px": result.shape[0],
        "pixel_size_yx_nm": result.pixel_size_yx_nm if is_calibrated(result.pixel_size_yx_nm) else None,
        "scale_source": result.scale_source,
        "detector": result.meta.detector,
    }
