"""Contamination and background have the statistics they claim."""

import numpy as np
import pytest

from atomid_live.simulate.support import contamination, ramp, random_field


@pytest.mark.parametrize("correlation", [1.5, 6.0, 25.0])
def test_random_field_has_unit_variance_and_its_correlation(correlation: float) -> None:
    rng = np.random.default_rng(2)
    fields = [random_field(rng, (420, 500), correlation) for _ in range(6)]
    field = np.concatenate([f.ravel() for f in fields])
    independent = field.size / (4 * np.pi * correlation**2)
    assert field.mean() == pytest.approx(0, abs=5 / np.sqrt(independent))
    assert field.var() == pytest.approx(1.0, abs=max(0.03, 5 * np.sqrt(2 / independent)))
    lag = max(1, round(correlation))
    seen = np.mean([(f[:, lag:] * f[:, :-lag]).mean() for f in fields]) / field.var()
    assert seen == pytest.approx(np.exp(-(lag**2) / (2 * correlation**2)), abs=0.08)


def test_contamination_is_patchy_and_never_negative() -> None:
    image = contamination(np.random.default_rng(3), (200, 300), 20.0, 4.0, threshold=1.0)
    assert image.shape == (200, 300)
    assert image.min() == 0
    assert 0.05 < (image > 0).mean() < 0.35


def test_ramp_runs_from_edge_to_edge() -> None:
    image = ramp((50, 80), 9.0, (4.0, -2.0))
    assert image[-1, 0] - image[0, 0] == pytest.approx(4.0)
    assert image[0, -1] - image[0, 0] == pytest.approx(-2.0)
    assert ramp((5, 6), 1.0, (10.0, 0.0)).min() == 0.0
