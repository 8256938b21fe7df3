"""The threshold of an engine, from simulated frames that passed the whole detector: it follows the heights a frame offers.

Where dose is low the map's peaks are low, so one threshold fails; the third quartile of a frame's peak heights tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from atomid_live.detect.unet import Look, UnetDetector
from atomid_live.train.dataset import Example, Recipe, make_example
from atomid_live.train.targets import mean_spacing
from atomid_live.types import FloatArray

CALIBRATION_SEED = 50_000_000
GRID = np.round(np.arange(0.02, 0.9, 0.02), 2)
KNOTS = (0.05, 0.12, 0.25, 0.4, 0.6, 0.85)
QUANTILES = (0.5, 0.75, 0.9)
SIGNIFICANCE = (0.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
_REACH_SIGMAS = 2.5


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a frame offered.

    Attributes
    ----------
    kind : str
        "lattice" or "sparse", as the scale estimate says.
    typical : ndarray, shape (len(QUANTILES),)
        Quantiles of the peak heights.
    f1 : ndarray, shape (len(SIGNIFICANCE), len(GRID))
        F1 at each least significance and threshold, mean of two radii; 0 or 1 where there is nothing to find.
    """

    kind: str
    typical: FloatArray = field(repr=False)
    f1: FloatArray = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """Thresholds at `KNOTS`, least significance, and the mean F1 they reach over how many frames."""

    least: tuple[float, ...]
    significance: float
    mean_f1: float
    frames: int


def _hits(places: FloatArray, wanted: FloatArray, radius: float) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which places are the nearest one of a wanted column that is nearest to them, within a radius; and that column."""
    if not len(places) or not len(wanted):
        return np.zeros(len(places), np.bool_), np.zeros(len(places), np.int64)
    distance, column = cKDTree(wanted).query(places)
    _, back = cKDTree(places).query(wanted)
    return np.asarray((distance <= radius) & (back[column] == np.arange(len(places)))), column


def judge(example: Example, look: Look) -> Outcome:
    """Score a frame's peaks at every threshold, at half and a quarter of the spacing; the border does not count."""
    sigma, spacing = example.sigma_px, mean_spacing(example.labels.wanted)
    free = example.sparse or np.isnan(spacing)
    widest = _REACH_SIGMAS * sigma if free else min(0.5 * spacing, _REACH_SIGMAS * sigma)
    f1 = np.mean([_f1(example, look, radius) for radius in (widest, 0.5 * widest)], axis=0)
    typical = np.quantile(look.height, QUANTILES) if len(look.height) else np.zeros(len(QUANTILES))
    return Outcome(look.scale.kind, typical, f1)


def _f1(example: Example, look: Look, radius: float) -> FloatArray:
    wanted, ignored, side = example.labels.wanted, example.labels.ignored, len(example.pixels)
    hit, column = _hits(look.yx_px, wanted, radius)
    margin = _REACH_SIGMAS * example.sigma_px

    def inside(points: FloatArray) -> NDArray[np.bool_]:
        return np.asarray(((points >= margin) & (points <= side - 1 - margin)).all(1))

    counted = inside(wanted)
    right = hit & (counted[column] if len(wanted) else hit)
    surplus = ~hit & inside(look.yx_px)
    if len(ignored) and len(look.yx_px):
        surplus &= cKDTree(ignored).query(look.yx_px)[0] > radius
    total = int(counted.sum())
    table = np.empty((len(SIGNIFICANCE), len(GRID)))
    for row, least_clear in enumerate(SIGNIFICANCE):
        clear = look.significance >= least_clear
        found = _above(look.height[right & clear])
        false = _above(look.height[surplus & clear])
        every = found + false + total
        table[row] = np.where(every > 0, 2 * found / np.maximum(every, 1), 1.0)
    return table


def _above(height: FloatArray) -> FloatArray:
    """How many heights exceed each threshold of the grid."""
    return np.asarray(len(height) - np.searchsorted(np.sort(height), GRID, side="right"), np.float64)


def outcomes(detector: UnetDetector, recipe: Recipe, count: int, seed: int = CALIBRATION_SEED) -> Iterator[Outcome]:
    """Yield what `count` simulated frames offer; frames in which no scale is found offer nothing and are left out."""
    other = replace(recipe, seed=seed, side_px=320, largest_reduction=2.5)
    for number in range(count):
        example = make_example(other, number)
        seen = detector.look(example.pixels)
        if seen is not None:
            yield judge(example, seen)


def index_of(least: FloatArray) -> NDArray[np.int64]:
    """Place of thresholds in the grid."""
    return np.asarray(np.clip(np.rint((least - GRID[0]) / (GRID[1] - GRID[0])), 0, len(GRID) - 1), np.int64)


def fit_rule(offered: Iterable[Outcome], kind: str, quantile: float) -> Rule:
    """Thresholds at `KNOTS`, never falling, and least significance that make the mean F1 largest; found knot by knot."""
    chosen = [outcome for outcome in offered if outcome.kind == kind]
    typical = np.array([outcome.typical[QUANTILES.index(quantile)] for outcome in chosen])
    table = np.array([outcome.f1 for outcome in chosen]).reshape(len(chosen), len(SIGNIFICANCE), len(GRID))
    rules = [_fit_knots(typical, table[:, row], least_clear) for row, least_clear in enumerate(SIGNIFICANCE)]
    return max(rules, key=lambda rule: rule.mean_f1)


def _fit_knots(typical: FloatArray, table: FloatArray, significance: float) -> Rule:
    rows = np.arange(len(table))
    least = np.full(len(KNOTS), 0.3)

    def merit(values: FloatArray) -> float:
        return float(table[rows, index_of(np.interp(typical, KNOTS, values))].mean()) if len(rows) else 0.0

    for _ in range(4):
        for knot in range(len(KNOTS)):
            low = least[knot - 1] if knot else GRID[0]
            high = least[knot + 1] if knot + 1 < len(KNOTS) else GRID[-1]
            options = [value for value in GRID if low <= value <= high] or [float(least[knot])]
            trials = [np.concatenate([least[:knot], [value], least[knot + 1 :]]) for value in options]
            least = trials[int(np.argmax([merit(trial) for trial in trials]))]
    return Rule(tuple(float(v) for v in least), significance, merit(least), len(rows))
