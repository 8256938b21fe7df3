"""Rolling figures equal the batch answer at every step; the alarm is sure and quiet."""

from __future__ import annotations

import numpy as np
import pytest

from atomid_live.strain.monitor import HISTORY, Monitor, Sample, Watch, frame_scatter, trend_of
from atomid_live.types import COMPONENTS


def samples(values, sem=1e-4, step_s=10.0, **more):
    return [Sample(step_s * k, float(v), sem, **more) for k, v in enumerate(values)]


def test_online_equals_batch_at_every_step():
    rng = np.random.default_rng(0)
    series = samples(rng.normal(0, 1e-3, 50) + 1e-4 * np.arange(50))
    watch = Watch(5.0, absolute=True)
    for k, sample in enumerate(series):
        watch.update(sample)
        assert trend_of(watch.samples) == trend_of(series[max(0, k + 1 - HISTORY) : k + 1])


def test_trend_is_the_straight_line():
    values = 0.001 + 0.0006 * np.arange(20) / 6
    trend = trend_of(samples(values))
    assert trend.slope_per_min == pytest.approx(0.0006)
    assert trend.mean == pytest.approx(values.mean())
    assert trend.std == pytest.approx(values.std(ddof=1))
    assert np.isnan(trend_of(samples([0.1, 0.2])).slope_per_min)
    assert np.isnan(trend_of([]).mean)


def test_errors_of_slope_and_mean_cover():
    rng = np.random.default_rng(1)
    rows = [trend_of(samples(rng.normal(0, 1e-4, 20))) for _ in range(400)]
    assert np.std([t.slope_per_min / t.slope_sem_per_min for t in rows]) == pytest.approx(1.0, abs=0.15)
    assert np.std([t.mean / t.sem for t in rows]) == pytest.approx(1.0, abs=0.15)


def test_scatter_is_blind_to_ramps_and_steps():
    noise = np.random.default_rng(2).normal(0, 1e-3, 400)
    plain = frame_scatter(samples(noise))
    assert plain == pytest.approx(1e-3, rel=0.15)
    ramp = noise + 0.002 * np.arange(400)
    step = noise + 0.05 * (np.arange(400) > 200)
    assert frame_scatter(samples(ramp)) == pytest.approx(plain, rel=0.1)
    assert frame_scatter(samples(step)) == pytest.approx(plain, rel=0.1)


@pytest.mark.parametrize("absolute", [True, False])
def test_step_is_caught_in_two_frames_and_let_go(absolute):
    rng = np.random.default_rng(3)
    values = rng.normal(0, 2e-4, 60)
    values[20:40] += 0.005
    watch, raised = Watch(5.0, absolute), []
    for sample in samples(values, 2e-4):
        watch.update(sample)
        raised.append(watch.raised)
    assert not any(raised[:20])
    assert all(raised[21:40])
    assert not any(raised[42:])


@pytest.mark.parametrize("told", [1e-3, 1e-5])
def test_hardly_a_false_alarm_even_when_errors_are_told_too_small(told):
    """With honest errors none in 2000 frames; with errors a hundred times too small the scatter of the frames takes over."""
    rng = np.random.default_rng(4)
    watch, alarms = Watch(5.0, absolute=False), 0
    for sample in samples(rng.normal(0, 1e-3, 2000), told):
        before = watch.raised
        watch.update(sample)
        alarms += watch.raised and not before
    assert alarms <= (0 if told == 1e-3 else 20)


def test_one_wild_frame_is_no_alarm():
    values = np.zeros(30)
    values[15] = 0.1
    watch = Watch(5.0, absolute=True)
    for sample in samples(values + np.random.default_rng(5).normal(0, 1e-4, 30)):
        watch.update(sample)
        assert not watch.raised


def test_hysteresis_between_half_and_full():
    watch = Watch(5.0, absolute=True)
    rng = np.random.default_rng(6)
    for level, expected in ((0.0, False), (3.5e-4, False), (9e-4, True), (3.5e-4, True), (0.5e-4, False)):
        for _ in range(30):
            watch.update(Sample(0.0, level + rng.normal(0, 1e-6), 1e-4))
        assert watch.raised is expected


def test_drift_that_explains_is_no_alarm():
    watch = Watch(5.0, absolute=True)
    for sample in [*samples(np.zeros(10)), *samples(np.full(10, 0.004), explained=0.004, explained_sem=1e-4)]:
        watch.update(sample)
    assert not watch.raised
    assert watch.explained_by_drift


def test_alarm_names_what_changed_most():
    monitor = Monitor(5.0, absolute=True)
    assert monitor.alarm == ""
    rng = np.random.default_rng(7)
    for _ in range(8):
        monitor.update({name: Sample(0.0, rng.normal(0, 1e-5), 1e-4) for name in COMPONENTS})
    for _ in range(3):
        monitor.update({name: Sample(0.0, {"eyy": 0.005, "hydrostatic": 0.0025}.get(name, 0.0), 1e-4) for name in COMPONENTS})
    assert monitor.alarm.startswith("eyy +0.50%")
    assert "hydrostatic" in monitor.alarm and "exx" not in monitor.alarm
