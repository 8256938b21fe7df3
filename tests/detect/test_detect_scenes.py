"""The classical detector on simulated scenes that once failed: series, small frames, two species, vacuum, the border."""

from __future__ import annotations

import numpy as np
import pytest
from lattice_frames import frame

from atomid_live.detect.dog import DogDetector
from atomid_live.evaluate.metrics import match
from atomid_live.flags import Flag
from atomid_live.simulate.acquire import Session
from atomid_live.simulate.scan import ScanErrors
from atomid_live.simulate.scenario import Scenario


def seen(scenario, index=0):
    simulated = Session(scenario).frame(index)
    return DogDetector().detect(frame(simulated.pixels)), simulated.truth


def recall(found, yx_px, within_px):
    return len(match(found.yx_px, yx_px, within_px)[0]) / len(yx_px)


@pytest.mark.parametrize("index", [0, 7, 21])
def test_scale_is_right_and_steady_in_a_drifting_series(index):
    scenario = Scenario(
        crystal="res2",
        shape=(420, 500),
        pixel_size_nm=0.0247,
        angle_rad=0.6,
        frames=22,
        seed=900,
        drift_px_per_frame=(3.0, 5.0),
    )
    found, truth = seen(scenario, index)
    assert found.column_sigma_px == pytest.approx(scenario.probe.sigma_px, rel=0.12)
    assert recall(found, truth.seen_yx_px[truth.d_prime > 6], 5.0) > 0.97
    assert not found.frame_flags & Flag.SPACING_ODD


def test_small_noisy_frame_is_not_empty():
    found, truth = seen(Scenario(shape=(192, 224), pixel_size_nm=0.0124, frames=1, background_e=9.0))
    assert recall(found, truth.seen_yx_px[truth.d_prime > 5], 10.0) > 0.9


def test_titanium_beside_strontium_is_found():
    scenario = Scenario(crystal="srtio3", shape=(380, 420), pixel_size_nm=0.012, frames=1, background_e=9.0)
    found, truth = seen(scenario)
    titanium = truth.seen_yx_px[truth.columns.site == 1]
    assert recall(found, titanium, 8.0) > 0.95
    assert len(found) < 1.1 * np.isin(truth.columns.site, (0, 1)).sum()


def test_vacuum_beside_a_crystal_stays_empty():
    scenario = Scenario(
        crystal="res2", shape=(420, 500), pixel_size_nm=0.0176, frames=1, background_e=2.0, edge_nm=0.0, contamination_e=0.0
    )
    found, truth = seen(scenario)
    last = truth.seen_yx_px[:, 1].max()
    assert 200 < last < 300
    assert (found.yx_px[:, 1] > last + 10).sum() == 0
    assert recall(found, truth.seen_yx_px[truth.d_prime > 6], 5.0) > 0.97


@pytest.mark.parametrize(
    ("crystal", "pixel_nm", "jitter"),
    [("res2", 0.0247, 0.0), ("res2", 0.0131, 0.6), ("mos2", 0.0124, 0.5), ("srtio3", 0.02, 0.4)],
)
def test_errors_are_honest_and_every_column_has_one(crystal, pixel_nm, jitter):
    scan = ScanErrors(jitter_yx_px=(0.7 * jitter, jitter), hum_yx_px=(0.1, 0.1))
    scenario = Scenario(crystal=crystal, shape=(560, 600), pixel_size_nm=pixel_nm, frames=1, seed=3, scan=scan)
    found, truth = seen(scenario)
    assert (found.sigma_yx_px > 0).all() and np.isfinite(found.sigma_yx_px).all()
    assert (found.yx_px >= -0.5).all() and (found.yx_px <= np.asarray(scenario.shape) - 0.5).all()
    bright = truth.seen_yx_px[truth.d_prime > 5]
    i, j = match(found.yx_px, bright, 2.5 * scenario.probe.sigma_px)
    good = (found.flags[i] & int(Flag.EDGE | Flag.FIT_FAILED)) == 0
    z = ((found.yx_px[i] - bright[j]) / found.sigma_yx_px[i])[good]
    assert 0.8 < z.std() < 1.25
