"""The watch over a series of frames: rolling mean, trend, and an alarm that is slow to cry and slow to calm down.

The error of one frame is the larger of what its columns tell and of what frames actually scatter by (from differences of
successive frames, so that neither a ramp nor a step swells it). An alarm needs a change of `sigma` joint standard errors in
two frames running, and ends when it has stayed under half of that for two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from atomid_live.types import COMPONENTS, NAN

HISTORY = 20
BASELINE = 5
CONFIRM = 2
LEAST_FOR_SCATTER = 6
WATCHED = ("exx", "eyy", "exy", "hydrostatic")


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame's mean of one component: time in s, value, its standard error, and what drift within the frame explains."""

    time_s: float
    value: float
    sem: float
    explained: float = 0.0
    explained_sem: float = 0.0


@dataclass(frozen=True, slots=True)
class Trend:
    """Rolling mean with spread and standard error, slope per minute with its standard error; NaN where under-determined."""

    mean: float = NAN
    std: float = NAN
    sem: float = NAN
    slope_per_min: float = NAN
    slope_sem_per_min: float = NAN


def frame_scatter(samples: Iterable[Sample]) -> float:
    """Standard deviation of a single frame's value from differences of successive frames (median, so a step does not count)."""
    values = np.array([s.value for s in samples])
    if len(values) < LEAST_FOR_SCATTER:
        return 0.0
    steps = np.diff(values)
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))) / np.sqrt(2))


def trend_of(samples: Iterable[Sample]) -> Trend:
    """Mean and straight line through samples; errors are the larger of the samples' own and of their scatter."""
    rows = list(samples)
    n = len(rows)
    if not n:
        return Trend()
    time = np.array([s.time_s for s in rows]) / 60
    value, sem = np.array([s.value for s in rows]), np.array([s.sem for s in rows])
    own = float(np.sqrt(np.mean(sem**2)))
    error = max(own, frame_scatter(rows))
    mean, std = float(value.mean()), float(value.std(ddof=1)) if n > 1 else NAN
    away = time - time.mean()
    square = float(away @ away)
    if n < 3 or not square > 0:
        return Trend(mean, std, error / np.sqrt(n))
    slope = float(away @ value) / square
    left = value - mean - slope * away
    about = float(np.sqrt(left @ left / (n - 2)))
    return Trend(mean, std, error / float(np.sqrt(n)), slope, max(own, about) / float(np.sqrt(square)))


class Watch:
    """Memory for one component: its rolling samples and its alarm.

    Parameters
    ----------
    sigma : float
        Change in joint standard errors that raises the alarm.
    absolute : bool
        Whether values are already changes since the reference; otherwise the first five frames are the baseline.
    """

    def __init__(self, sigma: float, absolute: bool) -> None:
        self._sigma = sigma
        self._absolute = absolute
        self._first: list[Sample] = []
        self._count = 0
        self.samples: deque[Sample] = deque(maxlen=HISTORY)
        self.raised = False
        self.explained_by_drift = False
        self.change = NAN
        self.deviation = NAN

    def update(self, sample: Sample) -> None:
        """Take the next frame's value."""
        self.samples.append(sample)
        if len(self._first) < BASELINE:
            self._first.append(sample)
            if not self._absolute:
                return
        error = max(sample.sem, frame_scatter(self.samples))
        base, base_error, base_drift = self._baseline()
        joint = float(np.hypot(error, base_error))
        if not joint > 0:
            return
        self.change = sample.value - base
        self.deviation = abs(self.change) / joint
        drift = sample.explained - base_drift
        corrected = abs(self.change - drift) / float(np.hypot(joint, sample.explained_sem))
        limit = self._sigma / 2 if self.raised else self._sigma
        real = min(self.deviation, corrected) > limit
        self.explained_by_drift = self.deviation > self._sigma and corrected <= self._sigma / 2
        self._count = self._count + 1 if real != self.raised else 0
        if self._count >= CONFIRM:
            self.raised, self._count = real, 0

    def _baseline(self) -> tuple[float, float, float]:
        if self._absolute:
            return 0.0, 0.0, 0.0
        value, sem = (float(np.mean([getattr(s, name) for s in self._first])) for name in ("value", "sem"))
        error = max(sem, frame_scatter(self.samples)) / float(np.sqrt(len(self._first)))
        return value, error, float(np.mean([s.explained for s in self._first]))


class Monitor:
    """Watches over all components; `update` takes the samples of one valid frame."""

    def __init__(self, sigma: float, absolute: bool) -> None:
        self._watch = {name: Watch(sigma, absolute) for name in COMPONENTS}

    def update(self, samples: dict[str, Sample]) -> None:
        """Take one valid frame's samples, by component."""
        for name, sample in samples.items():
            self._watch[name].update(sample)

    def trends(self) -> dict[str, Trend]:
        """Rolling figures of each component over the last 20 valid frames."""
        return {name: trend_of(watch.samples) for name, watch in self._watch.items()}

    @property
    def alarm(self) -> str:
        """What has changed, for the screen; "" when quiet."""
        loud = [(name, self._watch[name]) for name in WATCHED if self._watch[name].raised]
        loud.sort(key=lambda pair: -pair[1].deviation)
        return "; ".join(f"{name} {watch.change:+.2%} ({watch.deviation:.0f} sigma)" for name, watch in loud)

    @property
    def drift_explains(self) -> bool:
        """Whether a change that would raise the alarm is explained by drift within the frame."""
        return any(self._watch[name].explained_by_drift for name in WATCHED)
