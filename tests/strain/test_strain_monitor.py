"""Rolling figures equal the batch answer at every step; the alarm is sure and quiet."""

from __future__ import annotations

import numpy as np
import pytest

from atomid_live.strain.monitor import HISTORY, AlarmRule, Monitor, Sample, Watch, frame_scatter, trend_of
from atomid_live.types import COMPONENTS

RULE = AlarmRule()


def samples(values, sem=1e-4, step_s=10.0, **more):
    return [Sample(step_s * k, float(v), sem, **more) for k, v in enumerate(values)]


def test_online_equals_batch_at_every_step():
    rng = np.random.default_rng(0)
    series = samples(rng.normal(0, 1e-3, 50) + 1e-4 * np.arange(50))
    watch = Watch(RULE, ())
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


def quiet(count=5, sem=2e-4, seed=9):
    """What the frames of a reference read against their mean."""
    return samples(np.random.default_rng(seed).normal(0, sem, count), 0.0)


@pytest.mark.parametrize("absolute", [True, False])
def test_step_is_caught_in_two_frames_and_let_go(absolute):
    rng = np.random.default_rng(3)
    values = rng.normal(0, 2e-4, 60)
    values[20:40] += 0.005
    watch, raised = Watch(RULE, quiet() if absolute else None), []
    for sample in samples(values, 2e-4):
        watch.update(sample)
        raised.append(watch.raised)
    assert not any(raised[:20])
    assert all(raised[21:40])
    assert not any(raised[44:])


@pytest.mark.parametrize("told", [1e-3, 1e-5])
def test_hardly_a_false_alarm_even_when_errors_are_told_too_small(told):
    """With honest errors none in 2000 frames; with errors a hundred times too small the scatter of the frames takes over."""
    rng = np.random.default_rng(4)
    watch, alarms = Watch(RULE, None), 0
    for sample in samples(rng.normal(0, 1e-3, 2000), told):
        before = watch.raised
        watch.update(sample)
        alarms += watch.raised and not before
    assert alarms <= (0 if told == 1e-3 else 3)


def test_the_first_frames_after_a_reference_are_as_quiet_as_later_ones():
    """Frames scatter ten times more than their columns tell (drift within the frame): the reference's frames say so already."""
    alarms = 0
    for seed in range(200):
        values = np.random.default_rng(seed).normal(0, 1e-3, 13)
        reference, later = values[:5] - values[:5].mean(), values[5:] - values[:5].mean()
        watch = Watch(RULE, samples(reference, 0.0))
        for sample in samples(later, 1e-4):
            watch.update(sample)
        alarms += watch.raised
    assert alarms <= 2


def test_a_small_lasting_change_is_found_too():
    """Three errors never pass a threshold of five on their own; added up they do."""
    values = np.random.default_rng(5).normal(0, 1e-4, 60)
    values[20:] += 3.5e-4
    watch, raised = Watch(RULE, quiet(12, 1e-4)), []
    for sample in samples(values, 1e-4):
        watch.update(sample)
        raised.append(watch.raised)
    assert not any(raised[:20]) and any(raised[:30]) and raised[-1]


@pytest.mark.parametrize("frames", [2, 3])
def test_a_wild_frame_is_no_alarm(frames):
    """As many frames in a row as the rule asks for are needed, however large the change."""
    watch = Watch(AlarmRule(5.0, frames), quiet(8, 1e-4))
    values = np.random.default_rng(5).normal(0, 1e-4, 30)
    values[15 : 15 + frames - 1] += 0.1
    for sample in samples(values):
        watch.update(sample)
        assert not watch.raised
    lasting = Watch(AlarmRule(5.0, frames), quiet(8, 1e-4))
    for sample in [*samples(values[:15]), *samples(values[:frames] + 0.1)]:
        lasting.update(sample)
    assert lasting.raised


def test_hysteresis():
    """Raised by five; a change that has become smaller than the allowance lets it go, one above it does not."""
    rng = np.random.default_rng(6)
    watch = Watch(RULE, samples(rng.normal(0, 1e-6, 20), 0.0))
    for level, expected in ((0.0, False), (9e-4, True), (2.5e-4, True), (0.5e-4, False)):
        for _ in range(30):
            watch.update(Sample(0.0, level + rng.normal(0, 1e-6), 1e-4))
        assert watch.raised is expected


def test_alarm_names_what_changed_most():
    monitor = Monitor(RULE)
    monitor.start({name: quiet(8, 1e-5) for name in COMPONENTS})
    assert monitor.alarm == ""
    rng = np.random.default_rng(7)
    for _ in range(8):
        monitor.update({name: Sample(0.0, rng.normal(0, 1e-5), 1e-4) for name in COMPONENTS})
    for _ in range(3):
        monitor.update({name: Sample(0.0, {"eyy": 0.005, "hydrostatic": 0.0025}.get(name, 0.0), 1e-4) for name in COMPONENTS})
    assert monitor.alarm.startswith("eyy +0.50%")
    assert "hydrostatic" in monitor.alarm and "exx" not in monitor.alarm


def test_a_grains_alarm_carries_its_name():
    monitor = Monitor(RULE, "grain 1")
    monitor.start({name: quiet(8, 1e-5) for name in COMPONENTS})
    for _ in range(3):
        monitor.update({"exx": Sample(0.0, -0.004, 1e-4)})
    assert monitor.alarm.startswith("grain 1: exx -0.40%")
