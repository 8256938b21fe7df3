"""Velox's metadata text, where every number is a string and any key may be missing, as values of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from atomid_live.types import NAN, UNCALIBRATED, FrameMeta

START_SIGMA_S = 0.5
"""Velox stamps the start of an acquisition in whole seconds."""

_NM = {"m": 1e9, "mm": 1e6, "um": 1e3, "µm": 1e3, "nm": 1.0, "pm": 1e-3}


def field(tree: Mapping[str, Any], dotted: str) -> Any:
    """Return the value at a dotted path, or None where any part is missing."""
    node: Any = tree
    for part in dotted.split("/"):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def number(tree: Mapping[str, Any], dotted: str) -> float:
    """Return the finite number at a path, or NaN."""
    try:
        value = float(field(tree, dotted))
    except (TypeError, ValueError):
        return NAN
    return value if math.isfinite(value) else NAN


def word(tree: Mapping[str, Any], dotted: str) -> str:
    """Return the text at a path without control characters, or ""."""
    value = field(tree, dotted)
    if not isinstance(value, str):
        return ""
    return (value if value.isprintable() else "".join(c for c in value if c.isprintable()))[:200]


def pixel_size_yx_nm(tree: Mapping[str, Any]) -> tuple[float, float]:
    """Pixel size in nm; NaN where it is missing, not positive, or not a length (an FFT has 1/m)."""
    sizes = []
    for axis, name in (("Y", "height"), ("X", "width")):
        factor = _NM.get(word(tree, f"BinaryResult/PixelUnit{axis}"), NAN)
        sizes.append(number(tree, f"BinaryResult/PixelSize/{name}") * factor)
    return (sizes[0], sizes[1]) if all(math.isfinite(v) and v > 0 for v in sizes) else UNCALIBRATED


def is_reciprocal(tree: Mapping[str, Any]) -> bool:
    """Whether the axes are spatial frequencies: a diffraction pattern or an FFT."""
    return word(tree, "BinaryResult/PixelUnitX").startswith("1/")


def frame_number(tree: Mapping[str, Any]) -> int | None:
    """Velox's own number of the frame in its series, from 1; None where it says nothing."""
    value = number(tree, "CustomProperties/Velox.Series.FrameNumber/value")
    return int(value) if math.isfinite(value) else None


def start_s(tree: Mapping[str, Any]) -> float:
    """Start of the acquisition in seconds since 1970 UTC, the same for all frames of a series; NaN where unknown."""
    value = number(tree, "Acquisition/AcquisitionStartDatetime/DateTime")
    return value if value > 0 else NAN


def middle_s(tree: Mapping[str, Any], position: int) -> float:
    """Middle of the acquisition of the frame at this position: start + (position + 1/2) frame times."""
    frame_time = number(tree, "Scan/FrameTime")
    if math.isfinite(frame_time):
        return start_s(tree) + (position + 0.5) * frame_time
    return start_s(tree) if position == 0 else NAN


def describe(tree: Mapping[str, Any], software: str) -> FrameMeta:
    """Collect what the acquisition said of itself."""
    return FrameMeta(
        detector=word(tree, "BinaryResult/Detector"),
        dwell_s=number(tree, "Scan/DwellTime"),
        line_time_s=number(tree, "Scan/LineTime"),
        frame_time_s=number(tree, "Scan/FrameTime"),
        scan_rotation_rad=number(tree, "Scan/ScanRotation"),
        beam_energy_ev=number(tree, "Optics/AccelerationVoltage"),
        beam_current_a=number(tree, "Optics/LastMeasuredScreenCurrent"),
        field_of_view_m=number(tree, "Optics/FullScanFieldOfView/x"),
        stage_xyz_m=(
            number(tree, "Stage/Position/x"),
            number(tree, "Stage/Position/y"),
            number(tree, "Stage/Position/z"),
        ),
        software=software,
    )
