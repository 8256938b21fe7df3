"""How followed runs compare with the truth: hops seen and unseen, flags judged both ways, errors against stated errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from atomid_live.evaluate.drift_runs import UNSURE, Followed
from atomid_live.flags import Flag
from atomid_live.settings import DriftSettings
from atomid_live.types import NAN, FloatArray


@dataclass(frozen=True, slots=True)
class DriftScore:
    """A scene in numbers.

    Attributes
    ----------
    frames : int
        Frames judged: all but the first of each run.
    hops : int
        Frames whose step is wrong by more than half a cell, or which gave none.
    undetected : int
        Times that the error of the total changed by more than half a cell between two frames not flagged.
    flagged, flagged_right : int
        Frames said to be unsure, and how many of them had the right total: false alarms where the data could have told.
    fine_pm : float
        Rms error per axis of steps that are right, pm.
    total_pm, end_pm : float
        Rms error per axis of totals not off by a cell, over all frames and of the last frame of each run, pm.
    z : float
        Rms of those errors over the stated ones.
    z_end : float
        The same for the last frames.
    velocity_pm : float
        Rms error of the velocity per component against the line through the same true totals, pm per frame.
    unanswered : int
        Frames wrong and not flagged from the second after a frame flagged as a jump on (D4).
    ms : float
        Median processor time of the tracker.
    """

    frames: int
    hops: int
    undetected: int
    flagged: int
    flagged_right: int
    fine_pm: float
    total_pm: float
    end_pm: float
    z: float
    z_end: float
    velocity_pm: float
    unanswered: int
    ms: float


def _rms(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else NAN


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    hops: int
    undetected: int
    flagged: int
    flagged_right: int
    steps_px: FloatArray
    totals_px: FloatArray
    z: FloatArray
    velocity_px: FloatArray
    unanswered: int


def judge(run: Followed) -> _Judged:
    """Judge one run."""
    true, total = np.array(run.true_yx), np.array(run.total_yx)
    error, half = total - true, run.cell_px / 2
    step = np.array(run.step_yx)[1:] - np.diff(true, axis=0)
    wrong_step = ~(np.hypot(*step.T) <= half)
    flagged = (np.array(run.flags)[1:] & UNSURE) > 0
    wrong = ~(np.hypot(*error[1:].T) <= half)
    undetected, last = 0, error[0]
    for now, unsure in zip(error[1:], flagged, strict=True):
        if not unsure:
            undetected += not np.hypot(*(now - last)) <= half
            last = now
    right = ~wrong & ~flagged
    velocity = (np.array(run.velocity_yx) - np.array(run.slope_yx))[1:] * run.interval_s
    return _Judged(
        int(wrong_step.sum()),
        undetected,
        int(flagged.sum()),
        int((flagged & ~wrong).sum()),
        step[~wrong_step],
        error[1:][right],
        error[1:][right] / np.array(run.sigma_yx)[1:][right],
        velocity[right & _undisturbed(run)],
        _unanswered(run, wrong, flagged),
    )


def _undisturbed(run: Followed) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Frames whose velocity was fitted to sure frames alone, without a jump among them."""
    disturbed = (np.array(run.flags) & (UNSURE | int(Flag.DRIFT_JUMP))) > 0
    history = DriftSettings().history
    return np.array([not disturbed[max(0, k - history) : k + 1].any() for k in range(1, len(disturbed))])


def _unanswered(
    run: Followed, wrong: np.ndarray[tuple[int], np.dtype[np.bool_]], flagged: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> int:
    """Frames from the second after each flagged jump on that are wrong and not flagged."""
    jumped = np.flatnonzero(np.array(run.flags)[1:] & int(Flag.DRIFT_JUMP))
    return int((wrong & ~flagged)[jumped[0] + 1 :].sum()) if len(jumped) else 0


def score(runs: Sequence[Followed]) -> DriftScore:
    """Score the runs of one scene."""
    judged = [judge(run) for run in runs]
    scale = runs[0].pixel_pm

    def joined(name: str) -> FloatArray:
        return np.concatenate([getattr(each, name).ravel() for each in judged])

    ends = [(each.totals_px[-1], each.z[-1]) for each in judged if len(each.z)]
    return DriftScore(
        sum(len(run.flags) - 1 for run in runs),
        sum(each.hops for each in judged),
        sum(each.undetected for each in judged),
        sum(each.flagged for each in judged),
        sum(each.flagged_right for each in judged),
        scale * _rms(joined("steps_px")),
        scale * _rms(joined("totals_px")),
        scale * _rms(np.array([e for e, _ in ends]).ravel()),
        _rms(joined("z")),
        _rms(np.array([z for _, z in ends]).ravel()),
        scale * _rms(joined("velocity_px")),
        sum(each.unanswered for each in judged),
        float(np.median(np.concatenate([run.ms[1:] for run in runs]))),
    )
