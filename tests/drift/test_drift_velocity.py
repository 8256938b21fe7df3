"""Velocity from totals and their times."""

from __future__ import annotations

import numpy as np
import pytest

from atomid_live.drift.velocity import VelocityFit


def _filled(times: list[float], speed: tuple[float, float], rng: np.random.Generator, sigma: float = 0.1) -> VelocityFit:
    fit = VelocityFit(12)
    for t in times:
        y, x = np.array(speed) * t + rng.normal(0, sigma, 2)
        fit.add(1.7e9 + t, (y, x), sigma, 0.0)
    return fit


def test_velocity_and_its_error_are_right_over_many_runs() -> None:
    rng = np.random.default_rng(1)
    z = []
    for _ in range(200):
        got = _filled([10.5 * k for k in range(12)], (0.7, -0.4), rng).get()
        z.append((np.array(got.yx_px_s) - (0.7, -0.4)) / got.sigma_px_s)
    assert 0.7 < np.std(z) < 1.15
    assert abs(np.mean(z)) < 0.2


def test_time_stamps_of_whole_seconds_widen_the_error() -> None:
    rng = np.random.default_rng(2)
    sharp, coarse = VelocityFit(12), VelocityFit(12)
    for k in range(12):
        t = 2.5 * k
        place = (float(3 * t + rng.normal(0, 0.05)), 0.0)
        sharp.add(t, place, 0.05, 0.0)
        coarse.add(float(np.floor(t)), place, 0.05, 0.3)
    assert coarse.get().yx_px_s[0] == pytest.approx(3, abs=4 * coarse.get().sigma_px_s)
    assert coarse.get().sigma_px_s > 3 * sharp.get().sigma_px_s


def test_one_bad_total_does_not_carry_the_fit() -> None:
    rng = np.random.default_rng(3)
    fit = _filled([float(k) for k in range(11)], (1.0, 1.0), rng)
    fit.add(1.7e9 + 11, (11 + 25.0, 11.0), 0.1, 0.0)
    assert fit.get().yx_px_s[0] == pytest.approx(1.0, abs=0.5)


@pytest.mark.parametrize("times", [[], [0.0, 1.0], [5.0] * 8, [float("nan")] * 5])
def test_too_little_gives_nan_and_never_raises(times: list[float]) -> None:
    got = _filled(times, (1.0, 1.0), np.random.default_rng(4)).get()
    assert np.isnan(got.yx_px_s).all()
    assert np.isnan(got.sigma_px_s)


def test_duplicate_stamps_among_others_are_welcome() -> None:
    got = _filled([0, 0, 1, 1, 2, 2, 3, 3], (2.0, 0.0), np.random.default_rng(5)).get()
    assert got.yx_px_s[0] == pytest.approx(2.0, abs=0.3)
