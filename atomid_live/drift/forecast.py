"""What comes: when the drift will have settled, and when a marked feature leaves the field of view.

A stage that was moved, or a holder that warms up, creeps towards rest: place = rest + way * exp(-t / tau). That is said only
where it fits the totals clearly better than a straight line, and with its error.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from atomid_live.drift.velocity import Velocity
from atomid_live.settings import DriftSettings
from atomid_live.types import NAN, FloatArray

REMEMBERED = 120
LEAST_FRAMES = 8
TAUS = 48
ROUNDS = 3
FAR = 25.0
SHORTEST, LONGEST = 0.15, 6.0
SURE_GAIN = 16.0
MOST_RELATIVE_ERROR = 0.5
SIGNIFICANT = 2.0
ADDED_PX = 0.02


@dataclass(frozen=True, slots=True)
class Outlook:
    """Seconds from the last frame, each with its standard error; NaN where nothing significant can be said.

    Attributes
    ----------
    settling_s, sigma_settling_s : float
        Until the speed falls below the limit of the settings.
    leaving_s, sigma_leaving_s : float
        Until the marked feature, or the place that was the centre, leaves the field of view.
    """

    settling_s: float = NAN
    sigma_settling_s: float = NAN
    leaving_s: float = NAN
    sigma_leaving_s: float = NAN


class Forecast:
    """Remembers the totals since the last jump.

    Parameters
    ----------
    settings : DriftSettings
        `settled_nm_min` is the speed looked for, `mark_xy_px` the feature (x, y) in the segment's first frame.
    """

    def __init__(self, settings: DriftSettings) -> None:
        self._limit_nm_s = settings.settled_nm_min / 60
        self._mark_xy_px = settings.mark_xy_px
        self._seen: deque[tuple[float, float, float, float]] = deque(maxlen=REMEMBERED)

    def clear(self) -> None:
        """Forget the past: a jump begins a new way to rest."""
        self._seen.clear()

    def add(self, time_s: float, yx_px: tuple[float, float], sigma_px: float) -> None:
        """Remember a sure total; what is not finite is left out."""
        if math.isfinite(time_s + yx_px[0] + yx_px[1] + sigma_px):
            self._seen.append((time_s, *yx_px, math.hypot(sigma_px, ADDED_PX)))

    def get(self, shape: tuple[int, int], pixel_size_yx_nm: tuple[float, float], speed: Velocity) -> Outlook:
        """Tell what comes, from the last total remembered."""
        if not self._seen:
            return Outlook()
        return Outlook(*self._settling(pixel_size_yx_nm), *self._leaving(shape, speed))

    def _settling(self, pixel_size_yx_nm: tuple[float, float]) -> tuple[float, float]:
        if len(self._seen) < LEAST_FRAMES or not all(map(math.isfinite, pixel_size_yx_nm)):
            return NAN, NAN
        time, y, x, sigma = np.array(self._seen).T
        places = np.stack([y * pixel_size_yx_nm[0], x * pixel_size_yx_nm[1]], axis=1)
        return settling(time - time[-1], places, sigma * max(pixel_size_yx_nm), self._limit_nm_s)

    def _leaving(self, shape: tuple[int, int], speed: Velocity) -> tuple[float, float]:
        mark = self._mark_xy_px
        start = ((shape[0] - 1) / 2, (shape[1] - 1) / 2) if mark is None else (mark[1], mark[0])
        best = (NAN, NAN)
        for axis in (0, 1):
            place, v = start[axis] + self._seen[-1][1 + axis], speed.yx_px_s[axis]
            if not abs(v) > SIGNIFICANT * speed.sigma_px_s:
                continue
            way = (shape[axis] - 1 - place) if v > 0 else place
            left = max(way, 0.0) / abs(v)
            if not left >= best[0]:
                best = (left, math.hypot(left * speed.sigma_px_s, self._seen[-1][3]) / abs(v))
        return best


def settling(time_s: FloatArray, places: FloatArray, sigma: FloatArray, limit: float) -> tuple[float, float]:
    """Time until an exponential creep is slower than a limit.

    Parameters
    ----------
    time_s : ndarray, shape (N,)
        Seconds, 0 at the last frame.
    places : ndarray, shape (N, 2)
        Of the specimen; any unit of length.
    sigma : ndarray, shape (N,)
        Standard error of each place.
    limit : float
        Speed, in that unit per second.

    Returns
    -------
    (float, float)
        Seconds and standard error; NaN unless the creep fits significantly better than a straight line, is faster than the
        limit now and the time is known to better than a half.

    Notes
    -----
    The time constant is the one parameter that is not linear: it is gone through on a grid, drawn closer twice, each value
    weighed by its likelihood, so that the error of the answer needs no linearisation.
    """
    span = float(np.ptp(time_s))
    if not span > 0:
        return NAN, NAN
    straight, _, _ = _fit(time_s[None, :] / span, places, sigma)
    taus = span * np.geomspace(SHORTEST, LONGEST, TAUS)
    for remaining in reversed(range(ROUNDS)):
        misfit, ways, square = _fit(np.exp(-time_s[None, :] / taus[:, None]), places, sigma)
        scale = max(float(misfit.min()) / max(2 * len(time_s) - 5, 1), 1.0)
        away = (misfit - misfit.min()) / scale
        near = np.flatnonzero(away < FAR)
        low, high = taus[max(near[0] - 1, 0)], taus[min(near[-1] + 1, len(taus) - 1)]
        if remaining:
            taus = np.geomspace(low, high, TAUS)
    if (straight[0] - misfit.min()) / scale < SURE_GAIN:
        return NAN, NAN
    way = np.hypot(*ways.T)
    left = taus * np.log(np.maximum(way / taus / limit, 1e-12))
    weight = np.exp(-0.5 * away)
    weight /= weight.sum()
    mean = float(weight @ left)
    variance = (left - mean) ** 2 + (taus / np.maximum(way, 1e-12)) ** 2 * scale / square
    error = math.sqrt(float(weight @ variance))
    return (mean, error) if mean > 0 and error < MOST_RELATIVE_ERROR * mean else (NAN, NAN)


def _fit(shapes: FloatArray, places: FloatArray, sigma: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weighted fit of constant + amplitude * shape, both axes; chi squared (K,), amplitudes (K, 2) and their inverse
    variance (K,) of K shapes (K, N).
    """
    weight = 1 / sigma**2
    total = weight.sum()
    about = shapes - (shapes @ weight / total)[:, None]
    away = places - weight @ places / total
    square = np.maximum((about**2) @ weight, 1e-300)
    ways = (about * weight) @ away / square[:, None]
    chi = float((weight[:, None] * away**2).sum()) - (ways**2).sum(axis=1) * square
    return np.asarray(chi), np.asarray(ways), np.asarray(square)
