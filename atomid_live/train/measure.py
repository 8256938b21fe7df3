"""How good an engine is on simulated frames that nothing was chosen on: the figure of its card, per precision."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from atomid_live.protocols import Detector
from atomid_live.train.dataset import Example, Recipe, make_example
from atomid_live.train.targets import mean_spacing
from atomid_live.types import FloatArray, Frame, Origin

MEASURE_SEED = 55_000_000
_REACH_SIGMAS = 2.5


@dataclass(frozen=True, slots=True)
class Score:
    """Counts of one frame at a radius."""

    found: int
    surplus: int
    missed: int

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 where there was nothing to find and nothing was said."""
        every = 2 * self.found + self.surplus + self.missed
        return 2 * self.found / every if every else 1.0


def _hits(places: FloatArray, wanted: FloatArray, radius: float) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which places and a wanted column are each other's nearest within a radius; and that column."""
    if not len(places) or not len(wanted):
        return np.zeros(len(places), np.bool_), np.zeros(len(places), np.int64)
    distance, column = cKDTree(wanted).query(places)
    _, back = cKDTree(places).query(wanted)
    return np.asarray((distance <= radius) & (back[column] == np.arange(len(places)))), column


def judge(example: Example, places: FloatArray) -> Score:
    """Score positions (N, 2) at half the spacing (2.5 column widths at most); the border and ignored columns do not count."""
    sigma, side = example.sigma_px, len(example.pixels)
    wanted, ignored = example.labels.wanted, example.labels.ignored
    spacing = mean_spacing(wanted)
    free = example.sparse or np.isnan(spacing)
    radius = _REACH_SIGMAS * sigma if free else min(0.5 * spacing, _REACH_SIGMAS * sigma)
    margin = _REACH_SIGMAS * sigma

    def inside(points: FloatArray) -> NDArray[np.bool_]:
        return np.asarray(((points >= margin) & (points <= side - 1 - margin)).all(1))

    hit, column = _hits(places, wanted, radius)
    counted = inside(wanted)
    surplus = ~hit & inside(places)
    if len(ignored) and len(places):
        surplus &= cKDTree(ignored).query(places)[0] > radius
    found = int(np.count_nonzero(counted[column[hit]])) if len(wanted) else 0
    return Score(found, int(surplus.sum()), int(counted.sum()) - found)


def mean_f1(detector: Detector, recipe: Recipe, frames: int) -> float:
    """Mean F1 of a detector over `frames` simulated frames of a seed of their own, a quarter of them empty."""
    other = replace(recipe, seed=MEASURE_SEED, side_px=320, largest_reduction=2.5)
    values = []
    for number in range(frames):
        example = make_example(other, number)
        found = detector.detect(Frame(number, example.pixels, 0.0, Origin("simulated")))
        values.append(judge(example, np.asarray(found.yx_px)).f1)
    return float(np.mean(values))
