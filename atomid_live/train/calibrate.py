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
_REACH_SIGMAS = 2.5


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a frame offered.

    Attributes
    ----------
    kind : str
        "lattice" or "sparse", as the scale estimate says.
    typical : float
        Third quartile of the peak heights.
    f1 : ndarray, shape (len(GRID),)
        F1 at each threshold; 0 or 1 where there is nothing to find.
    """

    kind: str
    typical: float
    f1: FloatArray = field(repr=False)


def _hits(places: FloatArray, wanted: FloatArray, radius: float) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which places are the nearest one of a wanted column that is nearest to them, within a radius; and that column."""
    if not len(places) or not len(wanted):
        return np.zeros(len(places), np.bool_), np.zeros(len(places), np.int64)
    distance, column = cKDTree(wanted).query(places)
    _, back = cKDTree(places).query(wanted)
    return np.asarray((distance <= radius) & (back[column] == np.arange(len(places)))), column


def judge(example: Example, look: Look, kind: str, quantile: float) -> Outcome:
    """Score a frame's peaks at every threshold; columns and peaks near the border do not count."""
    sigma, side = example.sigma_px, len(example.pixels)
    spacing = mean_spacing(example.labels.wanted)
    radius = _REACH_SIGMAS * sigma if example.sparse or np.isnan(spacing) else min(0.5 * spacing, _REACH_SIGMAS * sigma)
    wanted, ignored = example.labels.wanted, example.labels.ignored
    hit, column = _hits(look.yx_px, wanted, radius)
    margin = _REACH_SIGMAS * sigma

    def inside(points: FloatArray) -> NDArray[np.bool_]:
        return np.asarray(((points >= margin) & (points <= side - 1 - margin)).all(1))

    counted = inside(wanted)
    right = hit & (counted[column] if len(wanted) else hit)
    surplus = ~hit & inside(look.yx_px)
    if len(ignored) and len(look.yx_px):
        surplus &= cKDTree(ignored).query(look.yx_px)[0] > radius
    total = int(counted.sum())
    found = np.array([np.count_nonzero(right & (look.height > least)) for least in GRID])
    false = np.array([np.count_nonzero(surplus & (look.height > least)) for least in GRID])
    every = found + false + total
    f1 = np.where(every > 0, 2 * found / np.maximum(every, 1), 1.0)
    typical = float(np.quantile(look.height, quantile)) if len(look.height) else 0.0
    return Outcome(kind, typical, f1)


def outcomes(
    detector: UnetDetector, recipe: Recipe, count: int, quantile: float, seed: int = CALIBRATION_SEED
) -> Iterator[Outcome]:
    """Yield what `count` simulated frames offer; frames in which no scale is found offer nothing and are left out."""
    other = replace(recipe, seed=seed, side_px=320, largest_reduction=2.5)
    for number in range(count):
        example = make_example(other, number)
        seen = detector.look(example.pixels)
        if seen is not None:
            yield judge(example, seen, seen.scale.kind, quantile)


def fit_rule(offered: Iterable[Outcome], kind: str) -> dict[str, object]:
    """Thresholds at `KNOTS` that make the mean F1 largest, straight lines between, never falling; found knot by knot."""
    chosen = [outcome for outcome in offered if outcome.kind == kind]
    typical = np.array([outcome.typical for outcome in chosen])
    table = np.array([outcome.f1 for outcome in chosen]).reshape(len(chosen), len(GRID))
    rows = np.arange(len(chosen))
    least = np.full(len(KNOTS), 0.3)

    def merit(values: FloatArray) -> float:
        at = np.interp(typical, KNOTS, values)
        index = np.clip(np.rint((at - GRID[0]) / (GRID[1] - GRID[0])).astype(int), 0, len(GRID) - 1)
        return float(table[rows, index].mean()) if len(rows) else 0.0

    for _ in range(4):
        for knot in range(len(KNOTS)):
            low = least[knot - 1] if knot else GRID[0]
            high = least[knot + 1] if knot + 1 < len(KNOTS) else GRID[-1]
            options = [value for value in GRID if low <= value <= high] or [float(least[knot])]
            trials = [np.concatenate([least[:knot], [value], least[knot + 1 :]]) for value in options]
            least = trials[int(np.argmax([merit(trial) for trial in trials]))]
    return {"typical": list(KNOTS), "least": [float(v) for v in least], "mean_f1": merit(least), "frames": len(chosen)}
