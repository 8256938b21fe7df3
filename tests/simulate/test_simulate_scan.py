"""Scan errors have the statistics they claim."""

import numpy as np
import pytest

from atomid_live.simulate.scan import ScanErrors, ScanPath, jitter, scan_path


def test_jitter_has_its_rms_and_correlation() -> None:
    offsets = jitter(np.random.default_rng(1), 60000, (0.3, 0.9), 5.0)
    np.testing.assert_allclose(offsets.std(0), [0.3, 0.9], rtol=0.03)
    for lag in (1, 5):
        correlation = (offsets[lag:] * offsets[:-lag]).mean(0) / offsets.var(0)
        np.testing.assert_allclose(correlation, np.exp(-lag / 5.0), atol=0.03)
    assert abs(np.corrcoef(offsets.T)[0, 1]) < 0.05


def test_jitter_is_stationary_from_the_first_row() -> None:
    first = [jitter(np.random.default_rng(seed), 2, (1.0, 1.0), 20.0)[0, 0] for seed in range(400)]
    assert np.std(first) == pytest.approx(1.0, abs=0.15)


def test_uncorrelated_and_absent_jitter() -> None:
    assert not jitter(np.random.default_rng(1), 50, (0.0, 0.0), 3.0).any()
    white = jitter(np.random.default_rng(2), 20000, (0.5, 0.5), 0.0)
    assert abs((white[1:] * white[:-1]).mean()) < 0.01


def test_flyback_solves_its_equation_and_fades() -> None:
    path = ScanPath(np.zeros((50, 2)), hum_row_rad=np.zeros(50), flyback_px=1.5, flyback_decay_px=20.0)
    x = np.linspace(-10.0, 300.0, 200)
    seen = path.bent(np.column_stack([np.full(200, 25.0), x]))
    np.testing.assert_allclose(seen[:, 1] + 1.5 * np.exp(-np.maximum(seen[:, 1], 0) / 20.0), x, atol=1e-9)
    assert seen[-1, 1] == pytest.approx(300.0, abs=1e-6)
    np.testing.assert_array_equal(seen[:, 0], 25.0)


def test_hum_advances_with_the_line_time() -> None:
    errors = ScanErrors(hum_yx_px=(0.1, 0.2), hum_hz=50.0, dwell_s=1e-5, line_time_s=0.02)
    path = scan_path(np.random.default_rng(3), 40, errors)
    np.testing.assert_allclose(np.diff(path.hum_row_rad), 2 * np.pi)
    assert path.hum_rad_per_px == pytest.approx(2 * np.pi * 50 * 1e-5)


def test_drift_is_taken_from_the_sampled_place() -> None:
    moved = np.column_stack([np.linspace(-1, 1, 30), np.linspace(2, -2, 30)])
    np.testing.assert_array_equal(ScanPath.straight(30).with_drift(moved).row_yx_px, -moved)
