"""When evidence decides, when it is missing, and what is said of a verdict."""

from __future__ import annotations

from collections import deque
from statistics import median

import numpy as np

from atomid_live.drift.hypotheses import Verdict
from atomid_live.drift.landmarks import Evidence, Trust
from atomid_live.drift.overlap import Image
from atomid_live.flags import Flag
from atomid_live.types import FloatArray

SURE_NATS = 4.5  # z = sqrt(2 * 4.5) = 3
SURE_PROBABILITY = 0.99
EXPECTED_NATS = 15.0
MISSING_SHARE = 0.15
PROVED = 0.9
DECISIVE_NATS = 25.0
LEAST_WEIGHT = 4.0
LEAST_SHARED = 0.15
RULED_OUT = -1e4
REMEMBERED = 9
LEAST_REMEMBERED = 3
LEAST_USUAL_NATS = 6.0
LEAST_USUAL_SHARE = 0.25


class UsualEvidence:
    """How much the chosen candidate of a sure frame usually has for it.

    After a stage jump beyond the candidates looked at, the nearest lattice vector still agrees with the motion so far; that
    nothing speaks for it, where much used to, gives it away.
    """

    def __init__(self) -> None:
        self._nats: deque[float] = deque(maxlen=REMEMBERED)
        self._lacking = 0

    def lacks(self, nats: float) -> bool:
        """Whether a frame has far less for it than usual."""
        usual = median(self._nats) if len(self._nats) >= LEAST_REMEMBERED else 0.0
        return usual > LEAST_USUAL_NATS and nats < LEAST_USUAL_SHARE * usual

    def learn(self, nats: float, sure: bool) -> None:
        """Take note of a frame; what lacks it again and again is the new usual."""
        self._lacking = self._lacking + 1 if self.lacks(nats) else 0
        if self._lacking > REMEMBERED:
            self._nats.clear()
        if sure:
            self._nats.append(nats)


def decisive(evidence: Evidence, trust: Trust) -> bool:
    """Whether proved landmarks tell the candidates apart by themselves, so that the relief need not be asked."""
    if trust.real < PROVED or len(evidence.nats) < 2:
        return False
    second, best = np.partition(evidence.nats, -2)[-2:]
    return bool(best - second > DECISIVE_NATS)


def missing(evidence: Evidence, trust: Trust) -> bool:
    """Whether landmarks that proved real before are found at none of the candidates."""
    expected = 0.5 * trust.share**2 * evidence.weight + evidence.hoped_nats
    return trust.real > 0.5 and expected > EXPECTED_NATS and float(evidence.nats.max()) < MISSING_SHARE * expected


def is_sure(verdict: Verdict, evidence: Evidence, trust: Trust) -> bool:
    """Whether the lattice vector of a step is known."""
    clear = verdict.margin_nats > SURE_NATS and verdict.probability > SURE_PROBABILITY
    return clear and not missing(evidence, trust)


def learned(trust: Trust, verdict: Verdict, evidence: Evidence) -> Trust:
    """Trust in the landmarks after a sure frame."""
    if not evidence.weight + 2 * evidence.hoped_nats > LEAST_WEIGHT:
        return trust
    chosen = int(np.argmin(np.abs(evidence.shift_yx - verdict.shift_yx).sum(axis=1)))
    return trust.learned(float(evidence.share[chosen]), float(evidence.nats[chosen]))


def outside(image: Image, evidence: Evidence) -> FloatArray:
    """Nats that rule out shifts at which image and reference share too little to have been measured."""
    share = np.prod(np.maximum(1 - np.abs(evidence.shift_yx) / np.array(image.shape), 0), axis=1)
    return np.where(share < LEAST_SHARED, RULED_OUT, 0.0)


def remarks(verdict: Verdict, sure: bool, unsure_before: int) -> tuple[int, str]:
    """Flags and words for the user."""
    flags, notes = 0, []
    if not sure:
        flags |= int(Flag.MODULO_LATTICE)
        notes.append("step is known only up to a lattice vector")
    elif unsure_before:
        notes.append(f"{unsure_before} unsure steps resolved")
    if verdict.jumped:
        flags |= int(Flag.DRIFT_JUMP)
        notes.append("jump")
    return flags, "; ".join(notes)
