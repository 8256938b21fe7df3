"""Thresholds follow what a frame offers, and the best ones are found."""

import numpy as np
import pytest

from atomid_live.detect.normalise import Prepared
from atomid_live.detect.spacing import Scale
from atomid_live.detect.unet import Look
from atomid_live.train.calibrate import GRID, KNOTS, QUANTILES, SIGNIFICANCE, Outcome, fit_rule, judge
from atomid_live.train.dataset import Example
from atomid_live.train.targets import Labels

SIDE = 200


def _example(wanted: np.ndarray, ignored: np.ndarray) -> Example:
    return Example(np.zeros((SIDE, SIDE), np.float32), Labels(wanted, ignored), 3.0, False, 1.0)


def _look(yx: np.ndarray, height: np.ndarray, clear: np.ndarray) -> Look:
    scale = Scale(3.0, 15.0, 50.0, "lattice")
    return Look(Prepared(np.zeros((SIDE, SIDE), np.float32)), scale, 3.0, 15.0, yx, height, clear)


def test_f1_counts_what_is_right_surplus_and_excused() -> None:
    grid = np.stack(np.meshgrid(np.arange(20.0, 181, 16), np.arange(20.0, 181, 16)), -1).reshape(-1, 2)
    ignored = np.array([[28.0, 28.0]])
    peaks = np.concatenate([grid[:60] + 1.0, ignored, [[100.0 + 8, 100.0 + 8]], [[1.0, 1.0]]])
    height = np.concatenate([np.full(60, 0.5), [0.6, 0.3, 0.9]])
    outcome = judge(_example(grid, ignored), _look(peaks, height, np.full(63, np.inf)))
    at = {least: float(outcome.f1[0, np.argmin(np.abs(GRID - least))]) for least in (0.2, 0.4, 0.7)}
    total = len(grid)
    assert at[0.2] == pytest.approx(2 * 60 / (60 + 1 + total))
    assert at[0.4] == pytest.approx(2 * 60 / (60 + total))
    assert at[0.7] == 0.0


def test_nothing_to_find_and_nothing_said_is_right() -> None:
    none = np.empty((0, 2))
    outcome = judge(_example(none, none), _look(np.array([[90.0, 90.0]]), np.array([0.3]), np.array([3.2])))
    row = SIGNIFICANCE.index(3.0)
    assert outcome.f1[row, np.argmin(np.abs(GRID - 0.2))] == 0 and outcome.f1[row, np.argmin(np.abs(GRID - 0.4))] == 1
    assert outcome.f1[SIGNIFICANCE.index(3.5)].min() == 1


def test_the_best_threshold_for_each_height_is_found() -> None:
    rng = np.random.default_rng(2)
    offered = []
    for typical in rng.uniform(0.05, 0.85, 200):
        best = 0.5 * typical
        f1 = np.exp(-((GRID - best) ** 2) / 0.005)
        offered.append(Outcome("lattice", np.full(len(QUANTILES), typical), np.tile(f1, (len(SIGNIFICANCE), 1))))
    rule = fit_rule(offered, "lattice", 0.75)
    assert rule.mean_f1 > 0.97 and rule.frames == 200
    assert rule.least == pytest.approx([0.5 * knot for knot in KNOTS], abs=0.05)
    assert list(rule.least) == sorted(rule.least)
    assert fit_rule(offered, "sparse", 0.75).frames == 0
