"""A recorded session against the simulator's truth: the one place where the truth is read."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from atomid_live.evaluate.metrics import match, mean_spacing, without_dont_care
from atomid_live.session_file import SessionRecord, read_session
from atomid_live.types import NAN, FloatArray

_EXCUSES = {"modulo_lattice", "drift_poor", "drift_jump", "drift_lost"}
_RAMP = 5e-4
_LEAST_FOR_SLOPE = 5
_ASKED_FOR, _SEEN_AT_ALL = 2.5, 1.0

_Pairs = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class SessionScore:
    """How a session compares with what the simulator did.

    Attributes
    ----------
    frames, missing, doubled : int
        Frames processed; frames of the truth without, and with more than one, processed line.
    f1_half, f1_quarter : float
        Mean F1 of visible columns, matched one to one within a half and a quarter of the spacing.
    position_rms_px : float
        Per axis, of pairs within a quarter of the spacing, against the as-scanned centres.
    steps, wrong_flagged, wrong_unflagged : int
        Drift steps judged; those wrong by more than half a spacing, with and without a flag that says so.
    drift_rms_px : float
        Per axis, of the steps that are right and not flagged.
    strain_slope, strain_slope_sem, strain_rms : float
        Slope of measured over applied hydrostatic strain with its standard error (NaN without a ramp), and rms difference;
        valid frames only.
    """

    frames: int
    missing: int
    doubled: int
    f1_half: float
    f1_quarter: float
    position_rms_px: float
    steps: int
    wrong_flagged: int
    wrong_unflagged: int
    drift_rms_px: float
    strain_slope: float
    strain_slope_sem: float
    strain_rms: float


def _truth_lines(folder: Path) -> dict[tuple[str, int], Mapping[str, Any]]:
    lines = (json.loads(line) for line in (folder / "truth.jsonl").read_text(encoding="utf-8").splitlines())
    return {(line["file"], line["item_index"]): line for line in lines}


def _columns(
    session: SessionRecord, frame: Mapping[str, Any], truth_folder: Path, number: int
) -> tuple[float, float, FloatArray]:
    """F1 at a half and a quarter of the spacing, and the offsets of the closer pairs in px, shape (M, 2).

    Columns with a detectability from 1 to 2.5 are neither asked for nor held against who finds them (SCIENCE 3.1).
    """
    with np.load(truth_folder / f"{number:06d}.npz") as archive:
        every, d_prime = archive["seen_xy_px"][:, ::-1], archive["d_prime"]
    found, size = session.atoms(frame["sequence"]).yx_px, np.array([frame["height_px"], frame["width_px"]])
    truth, faint = every[d_prime >= _ASKED_FOR], every[(d_prime >= _SEEN_AT_ALL) & (d_prime < _ASKED_FOR)]
    spacing = mean_spacing(truth)
    inside = [p[np.all((p > spacing / 2) & (p < size - 1 - spacing / 2), axis=1)] for p in (truth, found)]
    scores, offsets = [], np.empty((0, 2))
    for fraction in (0.5, 0.25):
        radius = fraction * spacing
        counted = without_dont_care(inside[1], inside[0], faint, radius)
        i, j = match(counted, inside[0], radius)
        scores.append(2 * len(i) / max(1, len(counted) + len(inside[0])))
        offsets = counted[i] - inside[0][j]
    return scores[0], scores[1], offsets


def _total(frame: Mapping[str, Any]) -> FloatArray:
    x, y = frame["drift"]["total_xy_px"]
    return np.array([NAN if x is None else x, NAN if y is None else y])


def _drift(pairs: _Pairs) -> tuple[int, int, int, float]:
    """Count steps, wrong ones with and without a flag, and the rms per axis of the good ones."""
    judged, flagged, unflagged, errors = 0, 0, 0, list[FloatArray]()
    for (before, truth_before), (frame, truth) in itertools.pairwise(pairs):
        if before["segment"] != frame["segment"]:
            continue
        judged += 1
        applied = np.array([truth[k] - truth_before[k] for k in ("total_x_px", "total_y_px")])
        error = _total(frame) - _total(before) - applied
        excused = bool(_EXCUSES & set(frame["drift"]["flags"]))
        wrong = not np.hypot(*error) <= (frame["spacing_px"] or 1.0) / 2
        flagged += wrong and excused
        unflagged += wrong and not excused
        if not wrong and not excused:
            errors.append(error)
    rms = float(np.sqrt(np.mean(np.square(errors)))) if errors else NAN
    return judged, flagged, unflagged, rms


def _strain(pairs: _Pairs) -> tuple[float, float, float]:
    """Slope of the frame means of hydrostatic strain over the applied one, its standard error, and the rms difference."""
    told = [(t["hydrostatic"], f["strain"]["columns_method"]["hydrostatic"]["mean"]) for f, t in pairs if f["strain"]["valid"]]
    known = np.array([(a, m) for a, m in told if m is not None])
    if len(known) < _LEAST_FOR_SLOPE:
        return NAN, NAN, NAN
    applied, measured = known.T
    rms = float(np.std(measured - applied))
    if np.ptp(applied) < _RAMP:
        return NAN, NAN, rms
    (slope, _), covariance = np.polyfit(applied, measured, 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0])), rms


def compare(session_folder: Path, truth_folder: Path) -> SessionScore:
    """Score a recorded session.

    Parameters
    ----------
    session_folder : Path
        As written by the recorder.
    truth_folder : Path
        FOLDER.truth, as written by the simulated microscope.
    """
    session, truths = read_session(session_folder), _truth_lines(truth_folder)
    seen: dict[tuple[str, int], int] = {}
    pairs = []
    for frame in session.frames:
        key = (PurePath(frame["source"]).name, frame["item_index"])
        if frame["state"] == "processed" and key in truths:
            seen[key] = seen.get(key, 0) + 1
            pairs.append((frame, truths[key]))
    columns = [_columns(session, frame, truth_folder, truth["frame"]) for frame, truth in pairs]
    offsets = np.concatenate([each[2] for each in columns]) if columns else np.empty((0, 2))
    halves, quarters = [each[0] for each in columns], [each[1] for each in columns]
    return SessionScore(
        len(pairs),
        len(truths) - len(seen),
        sum(count > 1 for count in seen.values()),
        float(np.mean(halves)) if halves else NAN,
        float(np.mean(quarters)) if quarters else NAN,
        float(np.sqrt(np.mean(offsets**2))) if len(offsets) else NAN,
        *_drift(pairs),
        *_strain(pairs),
    )


def as_text(score: SessionScore) -> str:
    """Return the comparison as lines for people."""
    lines = [
        f"frames        {score.frames} processed, {score.missing} missing, {score.doubled} doubled",
        f"columns       F1 {score.f1_half:.4f} within half a spacing, {score.f1_quarter:.4f} within a quarter",
        f"positions     {score.position_rms_px:.3f} px rms per axis",
        f"drift         {score.steps} steps: {score.wrong_unflagged} wrong unflagged, {score.wrong_flagged} wrong and flagged; "
        f"the others within {score.drift_rms_px:.3f} px rms per axis",
    ]
    if np.isfinite(score.strain_rms):
        known = np.isfinite(score.strain_slope)
        slope = f"slope {score.strain_slope:.3f} ± {score.strain_slope_sem:.3f} of measured over applied, " if known else ""
        lines.append(f"strain        {slope}frame means within {100 * score.strain_rms:.3f} % rms (hydrostatic)")
    return "\n".join(lines)
