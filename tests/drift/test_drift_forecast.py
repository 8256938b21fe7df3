"""When the drift will have settled and when the field is left: against known creep, and silence where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest

from atomid_live.drift.forecast import Forecast, Outlook, settling
from atomid_live.drift.velocity import Velocity
from atomid_live.settings import DriftSettings

LIMIT_NM_S = 0.5 / 60


def _creep(rng: np.random.Generator, tau_s: float, way_nm: float, frames: int = 40, sigma: float = 0.01) -> tuple[float, float]:
    time = np.arange(frames) * 10.0
    places = np.outer(np.exp(-time / tau_s), way_nm * np.array([0.6, -0.8])) + rng.normal(0, sigma, (frames, 2))
    return settling(time - time[-1], places, np.full(frames, sigma), LIMIT_NM_S)


def test_known_creep_gives_its_time_with_an_honest_error() -> None:
    rng = np.random.default_rng(1)
    tau, way, end = 150.0, 10.0, 390.0
    truth = tau * np.log(way / tau * np.exp(-end / tau) / LIMIT_NM_S)
    assert truth < 0, "settled already: nothing to say"
    assert np.isnan(_creep(rng, tau, way)).all()
    way = 60.0
    truth = tau * np.log(way / tau * np.exp(-end / tau) / LIMIT_NM_S)
    found = np.array([_creep(rng, tau, way, sigma=0.05) for _ in range(60)])
    assert np.isfinite(found).all()
    z = (found[:, 0] - truth) / found[:, 1]
    assert 0.7 < np.sqrt(np.mean(z**2)) < 1.4
    assert np.abs(found[:, 0].mean() - truth) < 0.1 * truth


@pytest.mark.parametrize("speed", [0.0, 0.05])
def test_rest_and_steady_drift_promise_nothing(speed: float) -> None:
    rng = np.random.default_rng(2)
    time = np.arange(60) * 10.0
    said = 0
    for _ in range(200):
        places = np.outer(time, (speed, 0.3 * speed)) + rng.normal(0, 0.01, (60, 2))
        said += np.isfinite(settling(time - time[-1], places, np.full(60, 0.01), LIMIT_NM_S)[0])
    assert said <= 1


def _filled(mark: tuple[float, float] | None, total: tuple[float, float]) -> Forecast:
    forecast = Forecast(DriftSettings(mark_xy_px=mark))
    forecast.add(100.0, total, 0.1)
    return forecast


def test_time_until_the_marked_feature_leaves_the_field() -> None:
    speed = Velocity((0.5, -0.1), 0.01)
    got = _filled((30.0, 80.0), (10.0, -5.0)).get((101, 61), (0.02, 0.02), speed)
    assert got.leaving_s == pytest.approx((100 - 90) / 0.5), "row 90 of 0 to 100; column 25 lasts longer"
    assert got.sigma_leaving_s == pytest.approx(np.hypot(20 * 0.01, np.hypot(0.1, 0.02)) / 0.5)
    centre = _filled(None, (0.0, 0.0)).get((101, 61), (0.02, 0.02), Velocity((0.0, -0.3), 0.01))
    assert centre.leaving_s == pytest.approx(30 / 0.3)


def test_insignificant_speed_and_no_frames_leave_it_open() -> None:
    got = _filled(None, (0.0, 0.0)).get((101, 61), (0.02, 0.02), Velocity((0.01, -0.015), 0.01))
    assert np.isnan(got.leaving_s)
    assert np.isnan(Forecast(DriftSettings()).get((101, 61), (0.02, 0.02), Velocity((1.0, 1.0), 0.1)).leaving_s)
    assert np.isnan(Outlook().settling_s)
