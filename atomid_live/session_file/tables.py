"""Columns of the CSV files, and their rows: atoms from the result, drift and strain from the line of `frames.jsonl`.

Drift and strain rows are made from the recorded line alone, so that a lost row can be written again exactly as it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from atomid_live import flags
from atomid_live.calibration import pair_nm, points_nm, xy, xy_columns, yx
from atomid_live.session_file.cells import cell, csv_row, number, pair, time_cell
from atomid_live.session_file.track_tables import id_column, id_flags
from atomid_live.types import COMPONENTS, UNCALIBRATED, FloatArray, Result

ATOM_COLUMNS = (
    "frame", "column_id", "x_px", "y_px", "x_nm", "y_nm", "score", "sigma_x_px", "sigma_y_px", "amplitude", "site",
    "exx", "eyy", "exy", "rotation_mrad", "hydrostatic", "sigma_strain", "flags",
    "sigma_exx", "sigma_eyy", "sigma_exy", "x_corrected_px", "y_corrected_px",
    "exx_corrected", "eyy_corrected", "exy_corrected", "rotation_corrected_mrad",
    "track_id",
    "d2min_px2", "grain",
    "sample_x_px", "sample_y_px",
)  # fmt: skip
_ATOM_DECIMALS = {
    "x_px": 4, "y_px": 4, "x_nm": 6, "y_nm": 6, "score": 4, "sigma_x_px": 4, "sigma_y_px": 4,
    "exx": 6, "eyy": 6, "exy": 6, "rotation_mrad": 4, "hydrostatic": 6, "sigma_strain": 6,
    "sigma_exx": 6, "sigma_eyy": 6, "sigma_exy": 6, "x_corrected_px": 4, "y_corrected_px": 4,
    "exx_corrected": 6, "eyy_corrected": 6, "exy_corrected": 6, "rotation_corrected_mrad": 4,
    "d2min_px2": 4,
    "sample_x_px": 4, "sample_y_px": 4,
}  # fmt: skip

DRIFT_COLUMNS = (
    "frame", "time_s", "dx_px", "dy_px", "total_x_px", "total_y_px", "sigma_px", "total_x_nm", "total_y_nm",
    "vx_nm_min", "vy_nm_min", "sigma_v_nm_min", "quality", "reference_frame", "segment", "flags",
    "settling_s", "sigma_settling_s", "leaving_s", "sigma_leaving_s",
)  # fmt: skip

_STATISTICS = ("mean", "std", "sem")
STRAIN_COLUMNS = (
    "frame", "time_s", "columns", "spacing_px",
    *(f"{name}_{each}" for name in COMPONENTS for each in _STATISTICS),
    *(f"gpa_{name}_{each}" for name in COMPONENTS for each in _STATISTICS),
    "drift_shear_exy", "drift_stretch_eyy", "reference", "window_nm", "alarm", "valid", "reason", "segment", "flags",
    *(f"{name}_corrected_{each}" for name in COMPONENTS for each in ("mean", "sem")), "correction",
    "drift_shear_sigma", "drift_stretch_sigma", "jitter_x_px", "jitter_y_px", "jitter_sigma_x_px", "jitter_sigma_y_px",
    "jitter_x_pm", "jitter_y_pm", "jitter_rows",
    "gpa_bias", "gpa_rms", "gpa_correlation", "gpa_invalid", "grains",
)  # fmt: skip

TEXT_COLUMNS = frozenset({"reference", "alarm", "reason", "correction", "kind", "unit", "picture", "note"})

_AGREEMENT = ("bias", "rms", "correlation", "invalid")


def header(columns: tuple[str, ...]) -> bytes:
    """Return the first row of a table."""
    return (",".join(columns) + "\n").encode("ascii")


def _amplitude_decimals(amplitude: FloatArray) -> int:
    """Return the decimals that leave five digits of a typical amplitude, whatever the unit of the pixels."""
    size = np.abs(amplitude[np.isfinite(amplitude)])
    typical = float(np.median(size)) if len(size) else 0.0
    return min(max(4 - math.floor(math.log10(typical)), 1), 12) if typical > 0 else 1


def atoms_csv(result: Result) -> bytearray:
    """Return the atoms file of one frame: header and one row per column, in the order of the detections."""
    from atomid_live.session_file.fastcsv import format_table

    found, strain, count = result.detections, result.strain, len(result.detections)
    x_px, y_px = xy_columns(found.yx_px)
    x_nm, y_nm = xy_columns(points_nm(found.yx_px, result.pixel_size_yx_nm))
    sigma_x, sigma_y = xy_columns(found.sigma_yx_px)
    sites = result.lattice.site if len(result.lattice.site) == count else np.full(count, -1)
    columns: dict[str, Any] = {
        "frame": result.sequence, "column_id": np.arange(count), "x_px": x_px, "y_px": y_px, "x_nm": x_nm, "y_nm": y_nm,
        "score": found.score, "sigma_x_px": sigma_x, "sigma_y_px": sigma_y, "amplitude": found.amplitude, "site": sites,
        "exx": math.nan, "eyy": math.nan, "exy": math.nan, "rotation_mrad": math.nan, "hydrostatic": math.nan,
        "sigma_strain": math.nan, "flags": found.flags | id_flags(result), "track_id": id_column(result),
        "sigma_exx": math.nan, "sigma_eyy": math.nan, "sigma_exy": math.nan, "exx_corrected": math.nan,
        "eyy_corrected": math.nan, "exy_corrected": math.nan, "rotation_corrected_mrad": math.nan,
        "d2min_px2": math.nan, "grain": -1,
    }  # fmt: skip
    columns["x_corrected_px"], columns["y_corrected_px"] = xy_columns(result.corrected_yx_px)
    columns["sample_x_px"], columns["sample_y_px"] = xy_columns(result.sample_yx_px)
    if len(strain.exx) == count:
        columns |= {"exx": strain.exx, "eyy": strain.eyy, "exy": strain.exy, "rotation_mrad": strain.rotation_mrad}
        columns |= {"hydrostatic": strain.hydrostatic, "sigma_strain": strain.sigma, "flags": columns["flags"] | strain.flags}
    for name in ("sigma_exx", "sigma_eyy", "sigma_exy"):
        if len(getattr(strain, name)) == count:
            columns[name] = getattr(strain, name)
    free = strain.corrected
    if len(free.exx) == count:
        columns |= {"exx_corrected": free.exx, "eyy_corrected": free.eyy, "exy_corrected": free.exy}
        columns["rotation_corrected_mrad"] = free.rotation_mrad
    if len(strain.d2min_px2) == count and len(strain.grain) == count:
        columns |= {"d2min_px2": strain.d2min_px2, "grain": strain.grain}
    table = np.empty((count, len(ATOM_COLUMNS)))
    for place, name in enumerate(ATOM_COLUMNS):
        table[:, place] = columns[name]
    decimals = _ATOM_DECIMALS | {"amplitude": _amplitude_decimals(found.amplitude)}
    text = format_table(table, np.array([decimals.get(name, 0) for name in ATOM_COLUMNS]))
    return bytearray(header(ATOM_COLUMNS)) + text


def drift_row(record: Mapping[str, Any]) -> bytes:
    """Return the row of `drift.csv` of a processed frame; `sigma_px` is the root mean square of the two axes."""
    drift = record["drift"]
    step, total, sigma = (pair(drift[name]) for name in ("step_xy_px", "total_xy_px", "sigma_xy_px"))
    total_nm = xy(pair_nm(yx(total), pair(record["pixel_size_yx_nm"]) if record["pixel_size_yx_nm"] else UNCALIBRATED))
    velocity = pair(drift["velocity_xy_nm_min"])
    reference = drift["reference_sequence"]
    return csv_row(
        [
            str(record["sequence"]), time_cell(record), *(number(v, 4) for v in (*step, *total)),
            number(math.sqrt((sigma[0] ** 2 + sigma[1] ** 2) / 2), 4), *(number(v, 6) for v in total_nm),
            *(number(v, 5) for v in (*velocity, drift["sigma_velocity_nm_min"])), number(drift["quality"], 4),
            "" if reference is None else str(reference), str(record["segment"]), str(flags.from_names(drift["flags"])),
            *(number(drift.get(name), 1) for name in ("settling_s", "sigma_settling_s", "leaving_s", "sigma_leaving_s")),
        ]
    )  # fmt: skip


def _scan_cells(record: Mapping[str, Any]) -> list[str]:
    """Corrected strain, what was taken off, and row jitter; empty in lines of versions that knew none of them."""
    strain = record["strain"]
    corrected, jitter = strain.get("corrected", {}), strain.get("jitter", {})
    means = [
        number(corrected.get(name, {}).get(what), 5 if name == "rotation_mrad" else 8)
        for name in COMPONENTS
        for what in ("mean", "sem")
    ]
    rms, sigma, pm = (pair(jitter.get(name)) for name in ("rms_xy_px", "sigma_xy_px", "rms_xy_pm"))
    return [
        *means, cell(strain.get("correction", "")),
        number(strain.get("drift_shear_sigma"), 8), number(strain.get("drift_stretch_sigma"), 8),
        *(number(v, 4) for v in (*rms, *sigma)), *(number(v, 3) for v in pm), number(jitter.get("rows"), 2),
    ]  # fmt: skip


def strain_row(record: Mapping[str, Any]) -> bytes:
    """Return the row of `strain.csv` of a processed frame."""
    strain = record["strain"]
    sets = (strain["columns_method"], strain["gpa"])
    means = [
        number(each[name][what], 5 if name == "rotation_mrad" else 8)
        for each in sets
        for name in COMPONENTS
        for what in _STATISTICS
    ]
    return csv_row(
        [
            str(record["sequence"]), time_cell(record), str(record["columns"]), number(record["spacing_px"], 4), *means,
            number(strain["drift_shear_exy"], 8), number(strain["drift_stretch_eyy"], 8), cell(strain["reference"]),
            number(strain["window_nm"], 4), cell(strain["alarm"]), str(int(strain["valid"])), cell(strain["reason"]),
            str(record["segment"]), str(flags.from_names(strain["flags"])), *_scan_cells(record),
            *(number(strain.get("agreement", {}).get(name), 8 if name in ("bias", "rms") else 4) for name in _AGREEMENT),
            str(len(strain.get("grains", ())) or 1),
        ]
    )  # fmt: skip
