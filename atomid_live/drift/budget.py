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


def scan_lag(frame: Frame, velocity_yx_px_s: FloatArray, step_yx_px: FloatArray) -> FloatArray:
    """Part of a seen step that is the specimen moving on until the scan reaches the row where it now is.

    A feature that moved down by dy is scanned dy line times later: it is seen at D + v t_line dy for a specimen that moved
    by D from mid-frame to mid-frame. Zero where the frame does not say its times.
    """
    line_s = frame.meta.line_time_s
    if not math.isfinite(line_s):
        line_s = frame.meta.frame_time_s / frame.shape[0]
    if not math.isfinite(line_s):
        return np.zeros(2)
    speed = velocity_yx_px_s / (1 + float(velocity_yx_px_s[0]) * line_s)
    return np.asarray(speed * line_s * float(step_yx_px[0]), float)


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

    def moved(self, seen_yx_px: FloatArray, late_yx_px: FloatArray) -> None:
        """Take note of a seen step and of the part of it that is scan lag."""
        self.lag_yx_px = self.lag_yx_px + late_yx_px
        self._path += float(np.hypot(*seen_yx_px))

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
