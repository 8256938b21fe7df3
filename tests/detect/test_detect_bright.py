"""Of two kinds of column the brighter; of one kind all."""

import numpy as np
import pytest

from atomid_live.detect.bright import bright_only, height_between_kinds
from atomid_live.types import Detections


def _found(amplitude: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Detections:
    count = len(amplitude)
    yx = np.stack([np.arange(count) * 5.0, np.zeros(count)], 1)
    return Detections(yx, np.ones(count), np.ones((count, 2)), amplitude, np.zeros(count, np.int64), 5.0, 2.0)


def test_metal_without_chalcogen() -> None:
    rng = np.random.default_rng(0)
    amplitude = np.where(np.arange(400) % 2 == 0, 100.0, 33.0) * np.exp(rng.normal(0, 0.08, 400))
    kept = bright_only(_found(amplitude))
    assert len(kept) == 200 and kept.amplitude.min() > 60.0
    assert kept.spacing_px == pytest.approx(10.0)
    assert np.array_equal(kept.yx_px[:, 0], np.arange(0, 400, 2) * 5.0)


@pytest.mark.parametrize("spread", [0.02, 0.25])
def test_one_kind_stays_whole(spread: float) -> None:
    amplitude = 50.0 * np.exp(np.random.default_rng(1).normal(0, spread, 300))
    found = _found(amplitude)
    assert np.isnan(height_between_kinds(amplitude)) and bright_only(found) is found


def test_few_columns_and_a_few_odd_ones_stay() -> None:
    few = _found(np.array([10.0, 100.0, 12.0, 90.0]))
    assert bright_only(few) is few
    assert bright_only(Detections.empty()) is not None and len(bright_only(Detections.empty())) == 0
    mostly = np.concatenate([np.full(300, 100.0), [20.0, 22.0]]) * np.exp(np.random.default_rng(2).normal(0, 0.05, 302))
    assert len(bright_only(_found(mostly))) == 302
