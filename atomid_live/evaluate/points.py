"""Reading lists of positions, and the report of `evaluate points`."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atomid_live.errors import UnreadableFileError, UsageError
from atomid_live.evaluate.metrics import (
    RADII,
    Counts,
    Mask,
    chamfer,
    chance,
    count,
    efficiency,
    eligible,
    false_per_mpx,
    localisation,
    mean_spacing,
    skill,
    thesis_score,
)
from atomid_live.types import NAN, FloatArray

SCHEMA = 1
_X, _Y = ("x_px", "x"), ("y_px", "y")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _columns(first: list[str], path: Path) -> tuple[int, int, bool]:
    """Index of x and y, and whether the first line is a header."""
    words = [word.strip().lower() for word in first]
    filled = [word for word in words if word]
    if filled and all(_number(word) is not None for word in filled):
        if len(words) == 2:
            return 0, 1, False
        raise UnreadableFileError(
            f"{path}: {len(words)} columns and no header, so x and y are not known; add a header line with X and Y"
        )
    for x_name, y_name in zip(_X, _Y, strict=True):
        if words.count(x_name) == 1 and words.count(y_name) == 1:
            return words.index(x_name), words.index(y_name), True
    raise UnreadableFileError(
        f"{path}: header {','.join(first)!r} names no X and Y (or x_px and y_px) column; rename the columns or drop the header"
    )


def read_points(path: Path | str) -> FloatArray:
    """Read positions in pixels from a CSV file.

    Headers ``Peak#,X,Y,Phase``, `` ,X,Y``, ``X,Y``, our own ``...,x_px,y_px,...`` and none (x, y) are understood.

    Returns
    -------
    ndarray, shape (N, 2), float64
        (row, col), that is (y, x).

    Raises
    ------
    UsageError
        The file is not there.
    UnreadableFileError
        A line or the header cannot be understood; the message says which.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; give a CSV file of positions") from error
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"{path}: not a text file ({error.reason}); give a CSV file of positions") from error
    rows = [(n, row) for n, row in enumerate(csv.reader(text.splitlines()), 1) if any(cell.strip() for cell in row)]
    if not rows:
        raise UnreadableFileError(f"{path}: empty; a list without columns still needs its header, e.g. X,Y")
    x, y, header = _columns(rows[0][1], path)
    points = []
    for line, row in rows[1:] if header else rows:
        values = [_number(row[k]) if k < len(row) else None for k in (y, x)]
        if values[0] is None or values[1] is None:
            raise UnreadableFileError(f"{path}, line {line}: {','.join(row)!r} has no finite x and y")
        points.append(values)
    return np.asarray(points, np.float64).reshape(-1, 2)


def parse_mask(text: str) -> Mask:
    """A mask "x0:x1,y0:y1" in pixels as (x0, x1, y0, y1)."""
    number = r"\s*(-?\d+(?:\.\d+)?)\s*"
    found = re.fullmatch(f"{number}:{number},{number}:{number}", text)
    if not found:
        raise UsageError(f"mask {text!r} is not x0:x1,y0:y1 in pixels, e.g. 50:215,885:975")
    x0, x1, y0, y1 = (float(part) for part in found.groups())
    if x1 < x0 or y1 < y0:
        raise UsageError(f"mask {text!r} ends before it begins; write the smaller number first")
    return x0, x1, y0, y1


def tolerance_px(text: str | float, spacing_px: float) -> float:
    """Matching radius in pixels from "4px" or a part of the spacing such as 0.5 (or "0.5d")."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(px|d)?\s*", str(text))
    if not found or float(found.group(1)) <= 0:
        raise UsageError(f"tolerance {text!r} is neither a part of the spacing such as 0.5 nor pixels such as 4px")
    value = float(found.group(1))
    if found.group(2) == "px":
        return value
    if not math.isfinite(spacing_px):
        raise UsageError(f"tolerance {text!r} is in spacings, but the truth has fewer than two points; give it as e.g. 4px")
    return value * spacing_px


def _masks(mask: str | Mask | Sequence[str | Mask] | None) -> tuple[Mask, ...]:
    if mask is None:
        return ()
    if isinstance(mask, str):
        return (parse_mask(mask),)
    if len(mask) == 4 and all(isinstance(part, (int, float)) for part in mask):
        x0, x1, y0, y1 = (float(part) for part in mask if isinstance(part, (int, float)))
        return ((x0, x1, y0, y1),)
    return tuple(one for part in mask if not isinstance(part, (int, float)) for one in _masks(part))


def _finite(value: Any) -> Any:
    """NaN as None, since JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rates(counts: Counts) -> dict[str, Any]:
    return {
        "f1": counts.f1, "precision": counts.precision, "recall": counts.recall, "jaccard": counts.jaccard,
        "tp": counts.tp, "fp": counts.fp, "fn": counts.fn,
    }  # fmt: skip


def _at(predicted: FloatArray, truth: FloatArray, radius_px: float, spacing_px: float) -> dict[str, Any]:
    counts = count(predicted, truth, radius_px)
    luck = chance(predicted, truth, spacing_px, radius_px) if math.isfinite(spacing_px) else NAN
    return {"radius_px": radius_px, **_rates(counts), "chance_f1": luck, "skill": skill(counts.f1, luck)}


def _area(frame_size_xy: tuple[float, float] | None, border: float, masks: tuple[Mask, ...]) -> float:
    """Pixels that remain, from their centres."""
    if frame_size_xy is None:
        return NAN
    width, height = (int(side) for side in frame_size_xy)
    y, x = np.mgrid[:height, :width]
    yx = np.stack([y.ravel(), x.ravel()], 1).astype(np.float64)
    return float(np.count_nonzero(eligible(yx, frame_size_xy, border, masks)))


def score_points(
    predicted: FloatArray,
    truth: FloatArray,
    *,
    masks: tuple[Mask, ...] = (),
    frame_size_xy: tuple[float, float] | None = None,
    pixel_size_nm: float | None = None,
    tolerance: str | float = 0.5,
) -> dict[str, Any]:
    """Score positions (N, 2) as (row, col) px; see `evaluate_points` for the parameters and the answer."""
    spacing = mean_spacing(truth)
    radius = tolerance_px(tolerance, spacing)
    # an aperiodic or empty truth has no spacing of its own, so the radius stands in for half of one
    border = 0.5 * spacing if math.isfinite(spacing) else radius
    p = predicted[eligible(predicted, frame_size_xy, border, masks)]
    t = truth[eligible(truth, frame_size_xy, border, masks)]
    pm = NAN if pixel_size_nm is None else 1000.0 * pixel_size_nm
    d = spacing if math.isfinite(spacing) else 2.0 * radius
    curve = {str(part): count(p, t, part * d).f1 for part in RADII}
    strict, found, cd, thesis = _at(p, t, 0.25 * d, spacing), localisation(p, t, 0.25 * d), chamfer(p, t), thesis_score(p, t)
    headline = _at(p, t, radius, spacing)
    report = {
        "schema": SCHEMA,
        "predicted": len(p), "truth": len(t), "predicted_in_file": len(predicted), "truth_in_file": len(truth),
        "spacing_px": spacing, "tolerance_px": radius, "border_px": border if frame_size_xy is not None else 0.0,
        "f1": headline["f1"], "precision": headline["precision"], "recall": headline["recall"],
        "jaccard": headline["jaccard"], "chance_f1": headline["chance_f1"], "skill": headline["skill"],
        "tp": headline["tp"], "fp": headline["fp"], "fn": headline["fn"],
        "at_0.5d": _at(p, t, 0.5 * d, spacing), "at_0.25d": strict,
        "mf1": float(np.mean(list(curve.values()))), "f1_by_radius_d": curve,
        "cd_px": cd, "cd_pm": cd * pm, "cd_d": cd / spacing,
        "localisation": {
            "radius_px": 0.25 * d, "pairs": found.pairs, "bias_xy_px": found.bias_xy, "rmse_xy_px": found.rmse_xy,
            "mad_xy_px": found.mad_xy, "rmse_px": found.rmse, "rmse_pm": found.rmse * pm, "p95_px": found.p95,
        },
        "efficiency": efficiency(headline["jaccard"], found.rmse * pm),
        "false_per_mpx": false_per_mpx(headline["fp"], _area(frame_size_xy, border, masks)),
        "thesis": {
            "f1": thesis.f1, "jaccard": thesis.jaccard, "jaccard_as_coded": thesis.jaccard_as_coded, "cd_px": thesis.cd,
        },
    }  # fmt: skip
    answer: dict[str, Any] = _finite(report)
    return answer


def evaluate_points(
    pred_path: Path | str,
    truth_path: Path | str,
    *,
    mask: str | Mask | Sequence[str | Mask] | None = None,
    frame_size_xy: tuple[float, float] | None = None,
    pixel_size_nm: float | None = None,
    tolerance: str | float = 0.5,
) -> dict[str, Any]:
    """Score a file of positions against a file of true positions.

    Parameters
    ----------
    pred_path, truth_path : Path or str
        CSV files that `read_points` understands.
    mask : str, (x0, x1, y0, y1), or several of them
        Rectangles in which nothing counts, "x0:x1,y0:y1" in pixels.
    frame_size_xy : (float, float) or None
        Width and height; half a spacing along the border is then left out, and false columns are given per Mpx.
    pixel_size_nm : float or None
        For the numbers in pm.
    tolerance : str or float
        Radius of a match as a part of the spacing (0.5) or in pixels ("4px").

    Returns
    -------
    dict
        JSON-ready; None where a number cannot be given. F1, P, R, J at `tolerance`, at 0.5 d and at 0.25 d with chance
        level and skill, mF1 over 0.1 to 0.5 d, CD, localisation at 0.25 d, and the thesis's own rule under "thesis".

    Raises
    ------
    UsageError, UnreadableFileError
    """
    if frame_size_xy is not None and not all(side > 0 for side in frame_size_xy):
        raise UsageError(f"frame size {frame_size_xy} is not a width and a height in pixels")
    if pixel_size_nm is not None and not (math.isfinite(pixel_size_nm) and pixel_size_nm > 0):
        raise UsageError(f"pixel size {pixel_size_nm} nm is not above zero")
    report = score_points(
        read_points(pred_path), read_points(truth_path), masks=_masks(mask), frame_size_xy=frame_size_xy,
        pixel_size_nm=pixel_size_nm, tolerance=tolerance,
    )  # fmt: skip
    return {**report, "predicted_file": str(pred_path), "truth_file": str(truth_path)}


def report_text(report: Mapping[str, Any]) -> str:
    """Return the report as lines for people; "-" where a number cannot be given."""

    def show(value: float | None, digits: int = 4) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    place, thesis = report["localisation"], report["thesis"]
    lines = [
        f"columns       {report['predicted']} found, {report['truth']} true, mean spacing {show(report['spacing_px'], 2)} px",
        f"F1            {show(report['f1'])} within {show(report['tolerance_px'], 2)} px "
        f"(precision {show(report['precision'])}, recall {show(report['recall'])}, chance {show(report['chance_f1'])})",
        f"F1            {show(report['at_0.5d']['f1'])} at 0.5 and {show(report['at_0.25d']['f1'])} at 0.25 of the spacing, "
        f"mean over 0.1 to 0.5: {show(report['mf1'])}",
        f"Jaccard       {show(report['jaccard'])}",
        f"CD            {show(report['cd_px'], 3)} px, {show(report['cd_pm'], 1)} pm, {show(report['cd_d'])} of the spacing",
        f"positions     {show(place['rmse_px'], 3)} px rms per axis ({show(place['rmse_pm'], 1)} pm), {place['pairs']} pairs",
        f"false columns {show(report['false_per_mpx'], 2)} per Mpx",
        f"thesis's rule F1 {show(thesis['f1'])}, Jaccard {show(thesis['jaccard'])} (no distance limit; for comparison only)",
    ]
    return "\n".join(lines)
