"""The watch over a series of frames: rolling mean, trend, and an alarm that is slow to cry and slow to calm down.

The error of one frame is the larger of what its columns tell and of what frames actually scatter by (from differences of
successive frames, so that neither a ramp nor a step swells it). The alarm is a cumulative sum (Page 1954) of the change in
units of that error, on either side: what exceeds the allowance is added up, what falls short is taken off. Large steps pass the
threshold as soon as enough frames have confirmed them, small lasting changes after some more, and a single wild frame never.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from atomid_live.types import COMPONENTS, NAN

HISTORY = 20
BASELINE = 5
LEAST_FOR_SCATTER = 4
WATCHED = ("exx", "eyy", "exy", "hydrostatic")
ALLOWANCE = 1.0
REFERENCE_ALLOWANCE = 2.0
CAP = 1.2
RELEASE = 0.5
WILD_STEPS = 2


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame's mean of one component: time in s, value, and its standard error."""

    time_s: float
    value: float
    sem: float


@dataclass(frozen=True, slots=True)
class Trend:
    """Rolling mean with spread and standard error, slope per minute with its standard error; NaN where under-determined."""

    mean: float = NAN
    std: float = NAN
    sem: float = NAN
    slope_per_min: float = NAN
    slope_sem_per_min: float = NAN


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """Threshold of the sum in standard errors, and how many frames in a row must confirm a change."""

    sigma: float = 5.0
    frames: int = 2

    @property
    def most_per_frame(self) -> float:
        """The most a single frame may add, so that no fewer than `frames` can reach the threshold."""
        return self.sigma if self.frames < 2 else 0.999 * self.sigma / (self.frames - 1)


def frame_scatter(samples: Iterable[Sample]) -> float:
    """Standard deviation of a single frame's value from successive differences, the two largest left out.

    Neither a step nor a ramp counts. Fewer than four values tell nothing: 0.
    """
    values = np.array([s.value for s in samples])
    if len(values) < LEAST_FOR_SCATTER:
        return 0.0
    steps = np.diff(values)
    wild = WILD_STEPS if len(steps) > 2 * WILD_STEPS else 0
    away = np.sort((steps - np.median(steps)) ** 2)[: len(steps) - wild]
    return float(np.sqrt(away.mean() / _kept_share(len(steps), wild) / 2))


def _kept_share(count: int, wild: int) -> float:
    """Mean square of a unit normal whose `wild` largest of `count` are left out; the median's pull is in it as count - 1."""
    if not wild:
        return (count - 1) / count
    kept = 1 - wild / count
    z = NormalDist().inv_cdf((1 + kept) / 2)
    return (kept - 2 * z * NormalDist().pdf(z)) / kept


def few_frames_factor(count: int) -> float:
    """How much wider the error is taken when its scatter comes from 4 or more frames only (t of Student at 1 in 1000)."""
    return 1 + 2.9 / (count - 2.6)


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
    rule : AlarmRule
    reference : sequence of Sample or None
        What the frames of the reference read against their own mean, when values are changes since that reference. None when
        values are absolute: then the first five are the baseline.
    """

    def __init__(self, rule: AlarmRule, reference: Iterable[Sample] | None = None) -> None:
        self._rule = rule
        self._absolute = reference is not None
        self._first: list[Sample] = list(reference or ())
        self._past: deque[Sample] = deque(self._first, maxlen=HISTORY)
        self._sums = [0.0, 0.0]
        self._beyond = [0, 0]
        self.samples: deque[Sample] = deque(maxlen=HISTORY)
        self.raised = False
        self.change = NAN
        self.deviation = NAN

    def update(self, sample: Sample) -> None:
        """Take the next frame's value."""
        self.samples.append(sample)
        self._past.append(sample)
        if not self._absolute and len(self._first) < BASELINE:
            self._first.append(sample)
            return
        scatter = (
            frame_scatter(self._past) * few_frames_factor(len(self._past)) if len(self._past) >= LEAST_FOR_SCATTER else 0.0
        )
        error = max(sample.sem, scatter)
        if not error > 0 or len(self._past) < LEAST_FOR_SCATTER:
            return
        self.change = sample.value - self._baseline()
        self.deviation = abs(self.change) / error
        allowance = ALLOWANCE + REFERENCE_ALLOWANCE / float(np.sqrt(max(len(self._first), 1)))
        self._add(self.change / error, allowance)

    def _add(self, z: float, allowance: float) -> None:
        """Cumulative sums on both sides; raised when one has passed the threshold with enough frames beyond the allowance."""
        rule = self._rule
        for side, sign in enumerate((1.0, -1.0)):
            gain = min(sign * z - allowance, rule.most_per_frame)
            self._sums[side] = min(max(self._sums[side] + gain, 0.0), CAP * rule.sigma)
            self._beyond[side] = self._beyond[side] + 1 if gain > 0 else 0
        if self.raised:
            self.raised = max(self._sums) > RELEASE * rule.sigma
        else:
            pairs = zip(self._sums, self._beyond, strict=True)
            self.raised = any(total >= rule.sigma and beyond >= rule.frames for total, beyond in pairs)

    def _baseline(self) -> float:
        return 0.0 if self._absolute else float(np.mean([s.value for s in self._first]))


class Monitor:
    """Watches over all components; `update` takes the samples of one valid frame.

    Parameters
    ----------
    rule : AlarmRule
    name : str
        Put before the alarm's text: "" for the frame, else the grain or region that is watched.
    """

    def __init__(self, rule: AlarmRule, name: str = "") -> None:
        self._rule, self._name = rule, name
        self._watch = {component: Watch(rule) for component in COMPONENTS}

    def start(self, reference: dict[str, list[Sample]]) -> None:
        """Begin anew with values that are changes since a reference; its frames' own readings tell how frames scatter."""
        self._watch = {component: Watch(self._rule, reference.get(component, ())) for component in COMPONENTS}

    def update(self, samples: dict[str, Sample]) -> None:
        """Take one valid frame's samples, by component."""
        for component, sample in samples.items():
            self._watch[component].update(sample)

    def trends(self) -> dict[str, Trend]:
        """Rolling figures of each component over the last 20 valid frames."""
        return {component: trend_of(watch.samples) for component, watch in self._watch.items()}

    @property
    def alarm(self) -> str:
        """What has changed, for the screen; "" when quiet."""
        loud = [(component, self._watch[component]) for component in WATCHED if self._watch[component].raised]
        loud.sort(key=lambda pair: -pair[1].deviation)
        words = "; ".join(f"{component} {watch.change:+.2%} ({watch.deviation:.0f} sigma)" for component, watch in loud)
        return f"{self._name}: {words}" if words and self._name else words
