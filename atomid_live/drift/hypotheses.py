"""Which lattice vector: a few running histories of the motion, each with its own past, weighed against each other.

A Kalman filter of constant velocity per history predicts where the specimen is; each candidate shift continues each history
with its prior (how far from the prediction, or a rare jump) and its evidence (landmarks). Histories that an early step
could not tell apart live on and are resolved, or not, by later frames; what cannot be told is said.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atomid_live.drift.landmarks import Evidence
from atomid_live.drift.periods import Periods

FloatArray = NDArray[np.float64]

KEEP = 24
KEEP_NATS = 14.0
LOG_JUMP = math.log(1e-3)
JUMP_CELLS = 5.0
VELOCITY_CHANGE_CELLS = 0.1
VELOCITY_DOUBT_CELLS = 0.5
WANDER_CELLS = 0.04
INNOVATIONS = 24


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What the histories say after a frame.

    Attributes
    ----------
    shift_yx : ndarray, shape (2,)
        Best place in the reference's coordinates.
    total_yx, step_yx : ndarray, shape (2,)
        Best total, and the last step within that history.
    others_yx : ndarray, shape (M, 2)
        Totals of the rivals within `KEEP_NATS`, best first.
    probability, margin_nats : float
        Of the best total against all others together, and against the next.
    elsewhere : float
        Probability that none of the candidates is right.
    jumped : bool
        The best history holds a jump at this step.
    """

    shift_yx: FloatArray
    total_yx: FloatArray
    step_yx: FloatArray
    others_yx: FloatArray
    probability: float
    margin_nats: float
    elsewhere: float
    jumped: bool


def _log_normal(squared: FloatArray, variance: FloatArray | float) -> FloatArray:
    return np.asarray(-0.5 * squared / variance - np.log(2 * np.pi * np.asarray(variance)), float)


class Histories:
    """Histories over one reference; positions in pixels of the working image, velocities per second.

    Parameters
    ----------
    cell_px : float
        Length against which motions are judged: the shorter lattice vector.
    velocity_sigma : float
        Standard deviation of the velocity before anything is known, per component.
    nominal_s : float
        Usual time between frames.
    """

    def __init__(self, cell_px: float, velocity_sigma: float, nominal_s: float, total_yx: FloatArray | None = None) -> None:
        self._cell = cell_px
        self._nominal_s = nominal_s
        self._base = (np.zeros(2) if total_yx is None else np.asarray(total_yx, float))[None, :].copy()
        self._place = np.zeros((1, 2))
        self._velocity = np.zeros((1, 2))
        self._weight = np.zeros(1)
        self._evidence = np.zeros(1)
        self._cov = np.array([[0.0, 0.0], [0.0, velocity_sigma**2]])
        self._innovations: deque[float] = deque(maxlen=INNOVATIONS)
        self._elapsed_s = 0.0
        self._time_variance_s2 = 0.0

    @property
    def velocity_yx(self) -> FloatArray:
        """Velocity of the best history."""
        return np.asarray(self._velocity[0], float)

    @property
    def place_yx(self) -> FloatArray:
        """Place of the best history where it was last seen."""
        return np.asarray(self._place[0], float)

    def total_of(self, place_yx: FloatArray) -> FloatArray:
        """Total of a place under the best history."""
        return np.asarray(self._base[0] + place_yx, float)

    @property
    def count(self) -> int:
        """Number of histories alive."""
        return len(self._weight)

    def set_nominal(self, seconds: float) -> None:
        """Tell the usual time between frames."""
        self._nominal_s = seconds

    def elapse(self, seconds: float, sigma_s: float) -> None:
        """Let time pass; frames that were not registered only add up."""
        n = max(seconds / self._nominal_s, 0.0)
        change = VELOCITY_CHANGE_CELLS * self._cell / self._nominal_s
        move = np.array([[1.0, seconds], [0.0, 1.0]])
        self._cov = move @ self._cov @ move.T
        self._cov[0, 0] += n * (WANDER_CELLS * self._cell) ** 2
        self._cov[1, 1] += n * change**2
        self._elapsed_s += seconds
        self._time_variance_s2 += sigma_s**2

    def predicted(self) -> tuple[FloatArray, float]:
        """Where the best history expects the specimen, and the standard deviation per component."""
        spread = self._spread(np.zeros(2))
        return self._place[0] + self._velocity[0] * self._elapsed_s, math.sqrt(float(spread[0]))

    def _spread(self, noise_variance: FloatArray) -> FloatArray:
        """Variance of the innovation per component, wider as far as the last ones were wider than foreseen."""
        seen = float(np.mean(self._innovations)) if len(self._innovations) >= 3 else 1.0
        return max(seen, 1.0) * self._foreseen(noise_variance)

    def _foreseen(self, noise_variance: FloatArray) -> FloatArray:
        stamp = self._velocity[0] ** 2 * self._time_variance_s2
        return np.asarray(self._cov[0, 0] + noise_variance + stamp, float)

    def covering(self, evidence: Evidence, periods: Periods | None) -> Evidence:
        """Evidence with a candidate for every history: what lies outside the reach stays possible, only without evidence.

        Otherwise a rival that moves faster would be dropped for having left the view, not for being wrong.
        """
        if periods is None or self.count == 1:
            return evidence
        prediction = self._place + self._velocity * self._elapsed_s
        fine = evidence.shift_yx[0]
        times = np.round((prediction - fine) @ np.linalg.inv(periods.matrix))
        places = fine + np.unique(times, axis=0) @ periods.matrix
        away = np.abs(places[:, None, :] - evidence.shift_yx[None, :, :]).max(axis=2).min(axis=1)
        return evidence.with_unknown(places[away > 0.3 * self._cell])

    def weigh(self, evidence: Evidence, noise_variance: float, real: float) -> _Weighed:
        """Continue every history with every candidate; nothing is changed until `adopt`.

        Evidence adds up along a history, and counts only as far as landmarks may be believed at all (`real`): as a mixture of
        "landmarks are noise", where only the motion speaks, and "landmarks are real".
        """
        spread = self._spread(np.full(2, noise_variance))
        prediction = self._place + self._velocity * self._elapsed_s
        away = evidence.shift_yx[None, :, :] - prediction[:, None, :]
        normal = -0.5 * (away**2 / spread).sum(axis=2) - math.log(2 * math.pi) - 0.5 * float(np.log(spread).sum())
        wide = (JUMP_CELLS * self._cell) ** 2 + float(spread.mean())
        jump = LOG_JUMP + _log_normal((away**2).sum(axis=2), wide)
        prior = self._weight[:, None] + np.logaddexp(normal, jump)
        summed = self._evidence[:, None] + evidence.nats[None, :]
        value = prior + _mixed(summed, real)
        best = int(np.argmax(self._weight + _mixed(self._evidence, real)))
        elsewhere = float(
            self._weight[best] + _mixed(self._evidence[best], real) + LOG_JUMP + _log_normal(np.array(2 * wide), wide)
        )
        return _Weighed(
            evidence.shift_yx, value, prior, summed, jump > normal, away, elsewhere, spread, noise_variance, evidence.nats
        )

    def adopt(self, weighed: _Weighed) -> Verdict:
        """Make the weighed continuations the histories and say what is known."""
        order = np.argsort(-weighed.value, axis=None, kind="stable")[: 6 * KEEP]
        parent, child = np.unravel_index(order, weighed.value.shape)
        total = self._base[parent] + weighed.candidates[child]
        value = weighed.value[parent, child]
        keep = _distinct(total, self._base[parent], value, 0.3 * self._cell)
        parent, child, total, value = parent[keep], child[keep], total[keep], value[keep]
        gain = self._cov[1, 0] / float(weighed.spread.mean())
        jumped = weighed.jumped[parent, child]
        away = weighed.away[parent, child]
        step = weighed.candidates[child] - self._place[parent]
        velocity = self._velocity[parent] + np.where(jumped[:, None], 0.0, gain * away)
        if not jumped[0]:
            self._innovations.append(float((away[0] ** 2).mean() / self._foreseen(np.full(2, weighed.noise_variance)).mean()))
        self._place, self._velocity, self._base = weighed.candidates[child].copy(), velocity, self._base[parent].copy()
        prior = weighed.prior[parent, child]
        self._weight, self._evidence = prior - prior[0], weighed.evidence[parent, child]
        self._settle(weighed.noise_variance, gain, bool(jumped[0]))
        return self._verdict(total, step, value, weighed.elsewhere, bool(jumped[0]))

    def _settle(self, noise_variance: float, gain: float, jumped: bool) -> None:
        # the measured place is far sharper than the prediction, so it is taken whole and only the velocity is filtered
        if jumped:
            # a stage jump leaves the velocity alone, but what looks like one may be a velocity that was wrong
            doubt = (VELOCITY_DOUBT_CELLS * self._cell / self._nominal_s) ** 2
            kept = max(self._cov[1, 1], doubt)
            self._innovations.clear()
        else:
            kept = max(self._cov[1, 1] - gain * self._cov[0, 1], 0.0)
        self._cov = np.array([[noise_variance, 0.0], [0.0, kept]])
        self._elapsed_s = 0.0
        self._time_variance_s2 = 0.0

    def _verdict(self, total: FloatArray, step: FloatArray, value: FloatArray, elsewhere: float, jumped: bool) -> Verdict:
        same = np.hypot(*(total - total[0]).T) < 0.3 * self._cell
        rivals = np.append(value[~same], elsewhere) - value[0]
        mass = float(np.exp(value[same] - value[0]).sum())
        rest = float(np.exp(np.minimum(rivals, 50)).sum())
        away = float(np.exp(min(rivals[-1], 50.0)))
        return Verdict(
            self._place[0].copy(),
            total[0].copy(),
            step[0].copy(),
            total[~same][value[~same] > value[0] - KEEP_NATS],
            mass / (mass + rest),
            -float(rivals.max()),
            away / (mass + rest),
            jumped,
        )

    def correct(self, place_yx: FloatArray) -> None:
        """Replace the best history's place by a finer measurement of the same place."""
        self._place[0] = place_yx

    def forget_rivals(self) -> None:
        """Keep the best history alone."""
        self._base, self._place, self._velocity = self._base[:1], self._place[:1], self._velocity[:1]
        self._weight, self._evidence = np.zeros(1), np.zeros(1)

    def rebase(self, move_yx: FloatArray) -> None:
        """Follow a reference that moved by whole pixels: same totals, places counted from the new reference.

        The new reference shows the current frame, so every history is at the same place in it and keeps its own total.
        """
        place = self._place[0] - move_yx
        self._base = self._base + self._place - place
        self._place = np.repeat(place[None, :], len(self._base), axis=0)


@dataclass(frozen=True, slots=True, eq=False)
class _Weighed:
    candidates: FloatArray
    value: FloatArray
    prior: FloatArray
    evidence: FloatArray
    jumped: NDArray[np.bool_]
    away: FloatArray
    elsewhere: float
    spread: FloatArray
    noise_variance: float
    nats: FloatArray

    @property
    def best_nats(self) -> float:
        """What this frame alone says for the candidate that all together prefer."""
        return float(self.nats[int(np.argmax(self.value)) % self.value.shape[1]])


def _mixed(nats: FloatArray, real: float) -> FloatArray:
    return np.asarray(np.logaddexp(math.log1p(-real), math.log(real) + nats), float)


def _distinct(total: FloatArray, base: FloatArray, value: FloatArray, near: float) -> list[int]:
    """Indices of the best continuation per place and past, best first."""
    kept: list[int] = []
    for k in range(len(value)):
        if value[k] < value[0] - KEEP_NATS or len(kept) == KEEP:
            break
        if all(np.abs(total[k] - total[m]).max() > near or np.abs(base[k] - base[m]).max() > near for m in kept):
            kept.append(k)
    return kept
