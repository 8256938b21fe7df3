"""The pure sums under the tracks, each against an answer known beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomid_live.tracks.change import MOST_PUSH, limit_for, pushed, vacant_nats
from atomid_live.tracks.dose import DoseMeter, frame_dose
from atomid_live.tracks.kernels import push_all
from atomid_live.tracks.link import Placement, align, link, link_far
from atomid_live.tracks.local import Neighbourhood, spread, spread_by_brightness
from atomid_live.tracks.photometry import forced_amplitude
from atomid_live.types import Frame, FrameMeta, Origin

SHAPE = (300, 400)


def crystal(spacing: float = 12.0) -> np.ndarray:
    n = np.arange(-10, 60)
    i, j = (v.ravel() for v in np.meshgrid(n, n, indexing="ij"))
    return np.stack([i * spacing * np.sqrt(0.75), (j + 0.5 * i) * spacing], axis=1)


@given(st.floats(-0.02, 0.02), st.floats(-0.02, 0.02), st.floats(-30, 30), st.floats(-30, 30))
@settings(max_examples=25, deadline=None)
def test_homes_and_places_are_inverse(a: float, b: float, y: float, x: float) -> None:
    placement = Placement(np.array([y, x]), np.array([[a, b], [-b, a]]), np.array([150.0, 200.0]))
    points = np.random.default_rng(1).uniform(0, 300, (20, 2))
    np.testing.assert_allclose(placement.homes(placement.places(points)), points, atol=1e-9)


def test_alignment_finds_shift_and_bend_on_a_dense_lattice() -> None:
    """One per cent of stretch moves the corners by more than half a spacing is wide; no neighbour is taken all the same."""
    home, rng = crystal(8.0), np.random.default_rng(0)
    true = Placement(np.array([1.9, -1.4]), np.array([[0.02, 0.01], [-0.012, 0.03]]), np.array([150.0, 200.0]))
    place = true.places(home)
    inside = ((place > 0) & (place < np.array(SHAPE))).all(axis=1)
    seen = (place + rng.normal(0, 0.1, place.shape))[inside & (rng.random(len(place)) > 0.1)]
    found = align(home[inside], Placement(np.zeros(2), np.zeros((2, 2)), true.centre_yx_px), seen, 8.0, SHAPE)
    np.testing.assert_allclose(found.bend, true.bend, atol=5e-4)
    np.testing.assert_allclose(found.places(home[inside]), place[inside], atol=0.15)


def test_a_column_goes_to_the_nearest_of_its_claimants() -> None:
    places = np.array([[10.0, 10.0], [10.0, 13.0], [40.0, 40.0]])
    columns = np.array([[10.0, 12.0], [80.0, 80.0]])
    np.testing.assert_array_equal(link(places, columns, 4.0), [-1, 0, -1])
    np.testing.assert_array_equal(link(places, np.empty((0, 2)), 4.0), [-1, -1, -1])
    np.testing.assert_array_equal(link(np.empty((0, 2)), columns, 4.0), [])


def test_a_far_link_is_nearest_both_ways_and_under_three_quarters_of_a_spacing() -> None:
    places, columns = np.array([[10.0, 10.0], [10.0, 30.0]]), np.array([[10.0, 17.0], [10.0, 21.5]])
    np.testing.assert_array_equal(link_far(places, columns, 12.0), [0, 1])
    np.testing.assert_array_equal(link_far(places, columns, 9.0), [-1, -1])


def test_neighbourhoods_take_out_what_is_common_and_leave_a_single_column_alone() -> None:
    points = crystal()
    points = points[((points > 0) & (points < np.array(SHAPE) - 1)).all(axis=1)]
    values = np.stack([np.where(points[:, 1] < 200, 1.0, 3.0), np.zeros(len(points))], axis=1)
    odd = int(np.hypot(*(points - (150, 60)).T).argmin())
    values[odd, 0] = 9.0
    around = Neighbourhood(points, values, 12.0, SHAPE).at(points)
    assert around[odd, 0] == 1.0
    assert np.mean(around[:, 0] == values[:, 0]) > 0.8
    few = Neighbourhood(points[:4], values[:4], 12.0, SHAPE).at(points)
    np.testing.assert_array_equal(few, np.broadcast_to(np.median(values[:4], axis=0), few.shape))


def test_spread_is_that_of_most_and_bright_columns_have_their_own() -> None:
    rng = np.random.default_rng(2)
    bright = np.repeat([100.0, 400.0], 2000)
    rest = rng.normal(0, np.where(bright > 200, 20.0, 5.0))
    rest[::50] = 1e4
    found = spread_by_brightness(bright, rest, np.array([90.0, 420.0]))
    np.testing.assert_allclose(found, [5.0, 20.0], rtol=0.1)
    assert np.isnan(spread(np.zeros(3)))


def test_forced_amplitude_is_exact_on_a_column_of_that_width_and_zero_on_a_plain() -> None:
    y, x = np.mgrid[:60, :80]
    image = 30 + 0.0 * y + 500 * np.exp(-((y - 25.3) ** 2 + (x - 41.8) ** 2) / (2 * 2.5**2))
    found = forced_amplitude(np.rint(image * 100).astype(np.uint32), np.array([[25.3, 41.8], [50.0, 10.0], [1.0, 40.0]]), 2.5)
    assert found[0] == pytest.approx(50_000, rel=1e-3) and abs(found[1]) < 1 and np.isnan(found[2])
    image[25, 40] = np.nan
    assert np.isnan(forced_amplitude(image, np.array([[25.3, 41.8]]), 2.5)[0])


def test_the_compiled_sums_are_the_reference() -> None:
    rng = np.random.default_rng(3)
    n = 40
    push, run = np.zeros((n, 3)), np.zeros((n, 3))
    frames, onset, hot = (np.zeros((n, 2), np.int64) for _ in range(3))
    place, light = np.zeros((n, 2)), np.zeros((n, 1))
    for k in range(60):
        off, sigma = rng.normal(0.4, 3.0, (n, 3)), rng.uniform(0.5, 2.0, (n, 3))
        push_all(np.arange(n), np.ones(n, np.bool_), off, sigma, push, run, frames, onset, hot, k)
        z = off / sigma
        place, light = pushed(place, z[:, :2]), pushed(light, z[:, 2:])
        np.testing.assert_allclose(push, np.column_stack([place, light]), atol=1e-12)


@pytest.mark.parametrize("frames", [2, 3, 5])
def test_no_limit_is_passed_before_its_frames_whatever_comes(frames: int) -> None:
    push = np.zeros((1, 2))
    for k in range(1, frames + 1):
        push = pushed(push, np.full((1, 2), 1e6))
        assert (np.hypot(*push[0]) > limit_for(frames)) == (k == frames)


def test_noise_alone_never_passes_in_a_million_column_frames_and_a_step_of_five_sigma_does_in_three() -> None:
    rng, push, most = np.random.default_rng(4), np.zeros((20_000, 2)), 0.0
    for _ in range(60):
        push = pushed(push, rng.normal(0, 1, push.shape))
        most = max(most, float(np.hypot(*push.T).max()))
    assert most < limit_for(3)
    step = np.zeros((1000, 1))
    for _ in range(4):
        step = pushed(step, rng.normal(5.0, 1, step.shape))
    assert (step > limit_for(3)).mean() > 0.95


def test_evidence_for_a_vacancy_has_the_right_sign_and_none_where_nothing_could_be_seen() -> None:
    expected = np.full(5, 100.0)
    nats = vacant_nats(np.array([0.0, 100.0, 45.0, 0.0, np.nan]), expected, np.array([10.0, 10.0, 10.0, 400.0, 10.0]), 0.6)
    assert nats[0] == MOST_PUSH and nats[1] == -MOST_PUSH and nats[2] < 0
    assert abs(nats[3]) < 0.02 and nats[4] == 0


def frame(**meta: float) -> Frame:
    return Frame(0, np.zeros((4, 6)), 0.0, Origin(""), pixel_size_yx_nm=(0.02, 0.01), meta=FrameMeta(**meta))


def test_the_dose_is_current_times_dwell_over_charge_and_area() -> None:
    """15 pA for 10 us are 936.2 electrons; over 2e-4 square nm, 4.68e6 per square nm."""
    dose, reason = frame_dose(frame(dwell_s=1e-5, beam_current_a=15e-12), None)
    assert dose == pytest.approx(4.6812e6, rel=1e-4) and reason == ""
    assert frame_dose(frame(dwell_s=1e-5, beam_current_a=15e-12), 30.0)[0] == pytest.approx(2 * dose)


def test_what_is_lacking_for_a_dose_is_named_and_the_sum_stays_unknown() -> None:
    dose, reason = frame_dose(replace(frame(), pixel_size_yx_nm=(float("nan"),) * 2), None)
    assert np.isnan(dose)
    assert all(word in reason for word in ("--beam-current-pa", "dwell time", "--pixel-size-nm"))
    meter = DoseMeter(None)
    for each in (frame(dwell_s=1e-5, beam_current_a=15e-12), frame(), frame(dwell_s=1e-5, beam_current_a=15e-12)):
        meter.expose(each)
        meter.count(100, 99, 1, 0)
    reading = meter.reading()
    assert np.isnan(reading.cumulative_e_nm2) and "beam current" in reading.reason and reading.dose_e_nm2 > 0
    assert reading.loss_per_frame == (pytest.approx(3 / 297), pytest.approx(np.sqrt(3) / 297))
    assert np.isnan(reading.loss_per_e_nm2[0])


def test_occupancy_has_a_binomial_error_that_is_not_zero_when_all_is_full() -> None:
    meter = DoseMeter(15.0)
    meter.expose(frame(dwell_s=1e-5))
    meter.count(400, 380, 0, 0)
    assert meter.reading().occupancy == 0.95
    assert meter.reading().occupancy_sigma == pytest.approx(np.sqrt(0.95 * 0.05 / 400), rel=0.05)
    meter.count(400, 400, 0, 0)
    assert 0 < meter.reading().occupancy_sigma < 0.005
    meter.reset()
    assert meter.reading().known == -1
