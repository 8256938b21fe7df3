"""Velocity of the specimen from the last totals and their times."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

import numpy as np

NAN = math.nan
LEAST_FRAMES = 3
HUBER = 2.0


@dataclass(frozen=True, slots=True)
class Velocity:
    """Pixels per second with the standard error per component; NaN when too little is known."""

    yx_px_s: tuple[float, float] = (NAN, NAN)
    sigma_px_s: float = NAN


@dataclass(frozen=True, slots=True)
class _Seen:
    time_s: float
    yx_px: tuple[float, float]
    sigma_px: float
    time_sigma_s: float


class VelocityFit:
    """Robust straight line through the last totals.

    Parameters
    ----------
    history : int
        Number of frames remembered.

    Notes
    -----
    Weights follow the error of each total and, times the velocity, of its time stamp (two rounds); Huber weights bound a
    single bad total. The error comes from the larger of the stated errors and the scatter about the line.
    """

    def __init__(self, history: int) -> None:
        self._seen: deque[_Seen] = deque(maxlen=history)

    def clear(self) -> None:
        """Forget the past: a jump or a clock step makes it useless."""
        self._seen.clear()

    def add(self, time_s: float, yx_px: tuple[float, float], sigma_px: float, time_sigma_s: float) -> None:
        """Remember one total; without a finite time, place and error it is left out."""
        if math.isfinite(time_s) and math.isfinite(yx_px[0] + yx_px[1] + sigma_px):
            self._seen.append(_Seen(time_s, yx_px, sigma_px, time_sigma_s if math.isfinite(time_sigma_s) else 0.0))

    def get(self) -> Velocity:
        """Fit what is remembered; equal time stamps are welcome, all equal ones give NaN."""
        if len(self._seen) < LEAST_FRAMES:
            return Velocity()
        time = np.array([s.time_s for s in self._seen], float)
        time -= time.mean()
        places = np.array([s.yx_px for s in self._seen])
        sigma = np.array([s.sigma_px for s in self._seen])
        stamp = np.array([s.time_sigma_s for s in self._seen])
        if not np.ptp(time) > max(1e-9, float(stamp.max())):
            return Velocity()
        slopes, errors = zip(*(_line(time, places[:, axis], sigma, stamp) for axis in (0, 1)), strict=True)
        return Velocity((slopes[0], slopes[1]), max(errors))


def _line(
    time: np.ndarray[tuple[int], np.dtype[np.float64]],
    place: np.ndarray[tuple[int], np.dtype[np.float64]],
    sigma: np.ndarray[tuple[int], np.dtype[np.float64]],
    stamp: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> tuple[float, float]:
    slope, robust = 0.0, np.ones(len(time))
    centre, middle, spread, rest = 0.0, 0.0, 1.0, np.zeros(len(time))
    error = np.maximum(sigma, 1e-6)
    for _ in range(3):
        weight = robust / error**2
        centre = float((weight * time).sum() / weight.sum())
        middle = float((weight * place).sum() / weight.sum())
        spread = float((weight * (time - centre) ** 2).sum())
        if not spread > 0:
            return NAN, NAN
        slope = float((weight * (time - centre) * (place - middle)).sum() / spread)
        rest = place - middle - slope * (time - centre)
        error = np.maximum(np.hypot(sigma, slope * stamp), 1e-6)
        scale = max(1.4826 * median(np.abs(rest / error).tolist()), 1.0)
        robust = np.minimum(1.0, HUBER * scale / np.maximum(np.abs(rest / error), 1e-9))
    freedom = max(len(time) - 2, 1)
    excess = float((robust * (rest / error) ** 2).sum()) / freedom
    return slope, math.sqrt(max(excess, 1.0) / spread)
