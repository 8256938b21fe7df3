"""Error of the total: what each registration leaves, what a moving reference adds, and what the scan's lag gets wrong."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from atomid_live.drift.register import Fine, Pair
from atomid_live.types import NAN, FloatArray, Frame

# measured on simulated runs: error of the total per pixel of path as the reference moves on, share of the scan lag that is
# wrong because the velocity is, and the interpolation's own error
PATH_ERROR = 1.5e-4
LAG_ERROR = 0.01
LEAST_VARIANCE = 1e-4
MOST_FRAMES = 16
REMEMBERED = 9


def scan_lag(
    frame: Frame, velocity_yx_px_s: FloatArray, away_yx_px: FloatArray, turn_yx: FloatArray | float = 0.0
) -> FloatArray:
    """Part of a seen displacement that is the specimen moving on until the scan reaches the row where it now is.

    A feature that moved down by dy is scanned dy line times later: it is seen at D + v t_line dy for a specimen that moved
    by D from mid-frame to mid-frame. Where frame and reference were sheared by different velocities their mean counts, as
    the displacement is that of the middle of what they share. Zero where the frame does not say its times.

    Parameters
    ----------
    velocity_yx_px_s : ndarray, shape (2,)
        While the reference was taken.
    away_yx_px : ndarray, shape (2,)
        Seen displacement from the reference.
    turn_yx : ndarray, shape (2,)
        By how much more the frame is sheared than the reference, px per row.
    """
    line_s = frame.meta.line_time_s
    if not math.isfinite(line_s):
        line_s = frame.meta.frame_time_s / frame.shape[0]
    if not math.isfinite(line_s):
        return np.zeros(2)
    per_row = velocity_yx_px_s * line_s / (1 + float(velocity_yx_px_s[0]) * line_s) + 0.5 * np.asarray(turn_yx)
    return np.asarray(per_row * float(away_yx_px[0]), float)


class ErrorBudget:
    """What adds up to the standard error of the total, in pixels of the frame.

    Attributes
    ----------
    lag_yx_px : ndarray, shape (2,)
        Scan lag taken off the total so far.
    gauge : float
        Variance in working pixels that a restart from the prediction left in every later total.
    """

    def __init__(self) -> None:
        self._variances: deque[Pair] = deque(maxlen=REMEMBERED)
        self._path = 0.0
        self.lag_yx_px = np.zeros(2)
        self.gauge = 0.0
        self._base_yx_px, self._base_lag_yx_px = np.zeros(2), np.zeros(2)
        self._elapsed_s = 0.0
        self._steady = True

    def moved(self, frame: Frame, seen_yx_px: FloatArray, turn_yx: FloatArray, velocity_yx_px_s: FloatArray) -> None:
        """Take note of a seen total: what of it is scan lag follows from where the reference was.

        Counted from the reference and not from step to step, a velocity that was wrong for a while leaves nothing behind. The
        mean velocity since then is the sharper one; after a jump, or where steps were not sure, the one filtered counts.
        """
        away = seen_yx_px - self._base_yx_px
        velocity = away / self._elapsed_s if self._steady and self._elapsed_s > 0 else velocity_yx_px_s
        self.lag_yx_px = self._base_lag_yx_px + scan_lag(frame, velocity, away, turn_yx)

    def stepped(self, step_yx_px: FloatArray, steady: bool) -> None:
        """Take note of a seen step and whether it was an ordinary sure one."""
        self._path += float(np.hypot(*step_yx_px))
        self._steady = self._steady and steady

    def elapse(self, seconds: float) -> None:
        """Let time pass."""
        self._elapsed_s += seconds

    def rebased(self, seen_yx_px: FloatArray) -> None:
        """Take note that the reference moved on to the frame seen at this total."""
        self._base_yx_px, self._base_lag_yx_px, self._elapsed_s = seen_yx_px, self.lag_yx_px, 0.0
        self._steady = True

    def sigma(self, fine: Fine, frames: int, bin_px: int) -> Pair:
        """Standard error of the total: this frame's, that of the reference of `frames` frames, path and lag."""
        k = min(frames, MOST_FRAMES)
        if all(math.isfinite(v) for v in fine.variance_yx):
            self._variances.append((fine.variance_yx[0] / (1 + 1 / k), fine.variance_yx[1] / (1 + 1 / k)))
        if not self._variances:
            return (NAN, NAN)
        y, x = np.mean(self._variances, axis=0)
        moving = PATH_ERROR * self._path
        lag = LAG_ERROR * self.lag_yx_px
        return (
            math.hypot(bin_px * math.sqrt(2 * y + self.gauge + LEAST_VARIANCE), moving, float(lag[0])),
            math.hypot(bin_px * math.sqrt(2 * x + self.gauge + LEAST_VARIANCE), moving, float(lag[1])),
        )
