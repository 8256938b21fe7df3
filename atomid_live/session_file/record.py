"""What a line of `frames.jsonl` says of a frame: pairs as x, y (but the pixel size, whose name says y, x), flags as names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from atomid_live import flags
from atomid_live.calibration import is_calibrated, pair_nm, xy
from atomid_live.session_file.lines import Record
from atomid_live.session_file.track_tables import tracks_record
from atomid_live.types import (
    COMPONENTS,
    DriftEstimate,
    FrameMeta,
    FrameState,
    GrainReading,
    Jitter,
    Lattice,
    Origin,
    Reading,
    Refused,
    Result,
    ScanDistortion,
    ScanMotion,
    StrainField,
    Summary,
)

SCHEMA = 1


def utc_ns(time_s: float) -> int | None:
    """Return seconds since 1970 UTC as whole ns, or None when unknown."""
    if not math.isfinite(time_s):
        return None
    whole = math.floor(time_s)
    return whole * 1_000_000_000 + round((time_s - whole) * 1e9)


def _origin(origin: Origin) -> Record:
    return {
        "source": origin.source,
        "item": origin.item,
        "item_index": origin.item_index,
        "identity": origin.identity,
        "content_sha256": origin.content_sha256,
    }


def _drift(drift: DriftEstimate) -> Record:
    return {
        "step_xy_px": xy(drift.step_yx_px),
        "total_xy_px": xy(drift.total_yx_px),
        "sigma_xy_px": xy(drift.sigma_yx_px),
        "velocity_xy_nm_min": xy(drift.velocity_yx_nm_min),
        "sigma_velocity_nm_min": drift.sigma_velocity_nm_min,
        "velocity_xy_px_s": xy(drift.velocity_yx_px_s),
        "quality": drift.quality,
        "reference_sequence": drift.reference_sequence if drift.reference_sequence >= 0 else None,
        "candidates_xy_px": [xy(candidate) for candidate in drift.candidates_yx_px],
        "flags": flags.names(drift.flags),
        "note": drift.note,
        "settling_s": drift.settling_s,
        "sigma_settling_s": drift.sigma_settling_s,
        "leaving_s": drift.leaving_s,
        "sigma_leaving_s": drift.sigma_leaving_s,
        "settled_nm_min": drift.settled_nm_min,
    }


def _lattice(lattice: Lattice) -> Record:
    return {
        "found": lattice.found,
        "a_xy_px": xy(lattice.a_yx_px),
        "b_xy_px": xy(lattice.b_yx_px),
        "origin_xy_px": xy(lattice.origin_yx_px),
        "residual_px": lattice.residual_px,
        "indexed": lattice.indexed,
        "flags": flags.names(lattice.flags),
        "reason": lattice.reason,
    }


def _summaries(summaries: Mapping[str, Summary]) -> Record:
    chosen = {name: summaries.get(name, Summary()) for name in COMPONENTS}
    return {name: {"mean": each.mean, "std": each.std, "sem": each.sem} for name, each in chosen.items()}


def _motion(motion: ScanMotion) -> Record:
    if motion.reason:
        return {"reason": motion.reason}
    return {
        "per_row_xy_px": xy(motion.per_row_yx_px),
        "sigma_per_row_xy_px": xy(motion.sigma_per_row_yx_px),
        "remark": motion.remark,
    }


def _jitter(jitter: Jitter, pixel_size_yx_nm: tuple[float, float]) -> Record:
    if jitter.reason:
        return {"reason": jitter.reason}
    y, x = pair_nm(jitter.rms_yx_px, pixel_size_yx_nm)
    return {
        "rms_xy_px": xy(jitter.rms_yx_px),
        "sigma_xy_px": xy(jitter.sigma_rms_yx_px),
        "rms_xy_pm": (1000 * x, 1000 * y),
        "rows": jitter.rows,
        "sigma_rows": jitter.sigma_rows,
    }


def _distortion(distortion: ScanDistortion) -> Record | None:
    if not distortion.name:
        return None
    return {
        "name": distortion.name,
        "shear": distortion.shear,
        "sigma_shear": distortion.sigma_shear,
        "sigma_scale_xy": xy(distortion.sigma_scale_yx),
    }


def _grain(grain: GrainReading) -> Record:
    told = {"grain": grain.grain, "columns": grain.columns, "reason": grain.reason, "alarm": grain.alarm}
    return {**told, "strain": _summaries(grain.strain)}


def _strain(reading: Reading, field: StrainField, pixel_size_yx_nm: tuple[float, float]) -> Record:
    aspect = pixel_size_yx_nm[0] / pixel_size_yx_nm[1] if is_calibrated(pixel_size_yx_nm) else 1.0
    return {
        "valid": reading.valid,
        "reason": reading.reason,
        "reference": reading.reference or field.reference,
        "window_nm": reading.window_nm if math.isfinite(reading.window_nm) else field.window_nm,
        "window_px": field.window_px,
        "columns_method": _summaries(reading.strain),
        "gpa": _summaries(reading.gpa),
        "drift_shear_exy": reading.drift_shear_exy,
        "drift_stretch_eyy": reading.drift_stretch_eyy,
        "rolling_mean": dict(reading.rolling_mean),
        "rolling_sem": dict(reading.rolling_sem),
        "slope_per_min": dict(reading.slope_per_min),
        "corrected": {name: {"mean": each.mean, "sem": each.sem} for name, each in reading.strain_corrected.items()},
        "correction": reading.correction,
        "drift_shear_sigma": reading.motion.sigma_per_row_yx_px[1] / aspect / 2,
        "drift_stretch_sigma": reading.motion.sigma_per_row_yx_px[0],
        "motion": _motion(reading.motion),
        "jitter": _jitter(reading.jitter, pixel_size_yx_nm),
        "agreement": asdict(reading.agreement),
        "grains": [_grain(each) for each in reading.grains],
        "vacancies": reading.vacancies if reading.vacancies >= 0 else None,
        "alarm": reading.alarm,
        "flags": flags.names(reading.flags),
    }


def _unsaid(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_unsaid(each) for each in value)
    return value == "" or (isinstance(value, float) and math.isnan(value))


def _meta(meta: FrameMeta) -> Record:
    pairs = ((name, getattr(meta, name)) for name in FrameMeta.__slots__)
    return {name: value for name, value in pairs if not _unsaid(value)}


def frame_record(result: Result) -> Record:
    """Return the line of a processed frame, still without the atoms file and the time of recording."""
    found = result.detections
    return {
        "schema": SCHEMA,
        "kind": "frame",
        "sequence": result.sequence,
        "state": FrameState.PROCESSED.value,
        "reason": "",
        "index": result.index,
        **_origin(result.origin),
        "time_ns": utc_ns(result.time_s),
        "time_source": result.time_source,
        "time_sigma_s": result.time_sigma_s,
        "received_ns": result.received_ns or None,
        "received_monotonic_s": result.received_monotonic_s,
        "width_px": result.shape[1],
        "height_px": result.shape[0],
        "pixel_size_yx_nm": result.pixel_size_yx_nm if is_calibrated(result.pixel_size_yx_nm) else None,
        "scale_source": result.scale_source,
        "calibration": _distortion(result.distortion),
        "segment": result.segment,
        "segment_reason": result.segment_reason,
        "flags": flags.names(result.flags),
        "columns": len(found),
        "spacing_px": found.spacing_px,
        "column_sigma_px": found.column_sigma_px,
        "lattice": _lattice(result.lattice),
        "drift": _drift(result.drift),
        "strain": _strain(result.reading, result.strain, result.pixel_size_yx_nm),
        "tracks": tracks_record(result.tracks),
        "meta": _meta(result.meta),
        "timings_ms": dict(result.timings_ms),
    }


def refused_record(refused: Refused) -> Record:
    """Return the line of a frame that took a number but was not analysed."""
    return {
        "schema": SCHEMA,
        "kind": "frame",
        "sequence": refused.sequence,
        "state": refused.state.value,
        "reason": refused.reason,
        "index": refused.index,
        **_origin(refused.origin),
        "time_ns": utc_ns(refused.time_s),
        "received_ns": refused.received_ns or None,
        "flags": [],
        "atoms": None,
    }


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Record:
    """Return `base` with the values of a revision put in, branch by branch."""
    out = dict(base)
    for key, value in changes.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out
