"""The figure on an engine's card counts what it says it counts."""

import numpy as np
import pytest

from atomid_live.detect.dog import DogDetector
from atomid_live.train.dataset import Example, Recipe
from atomid_live.train.measure import judge, mean_f1
from atomid_live.train.targets import Labels

SIDE = 200


def _example(wanted: np.ndarray, ignored: np.ndarray) -> Example:
    return Example(np.zeros((SIDE, SIDE), np.float32), Labels(wanted, ignored), 3.0, False, 1.0)


def test_right_surplus_missed_and_excused() -> None:
    grid = np.stack(np.meshgrid(np.arange(20.0, 181, 16), np.arange(20.0, 181, 16)), -1).reshape(-1, 2)
    ignored = np.array([[28.0, 28.0]])
    places = np.concatenate([grid[:60] + 1.0, ignored, [[108.0, 108.0]], [[1.0, 1.0]]])
    score = judge(_example(grid, ignored), places)
    assert (score.found, score.surplus, score.missed) == (60, 1, len(grid) - 60)
    assert score.f1 == pytest.approx(2 * 60 / (60 + 1 + len(grid)))


def test_nothing_to_find() -> None:
    none = np.empty((0, 2))
    assert judge(_example(none, none), none).f1 == 1.0
    assert judge(_example(none, none), np.array([[90.0, 90.0]])).f1 == 0.0


def test_mean_is_between_nothing_and_all() -> None:
    assert 0.1 < mean_f1(DogDetector(), Recipe(), 8) < 1.0
