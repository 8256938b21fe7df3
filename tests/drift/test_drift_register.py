"""Pairwise shift: signs, sub-pixel accuracy, stated error, and lattice vectors from the image alone."""

from __future__ import annotations

import numpy as np
import pytest
from drift_scenes import Scene, hexagonal

from atomid_live.drift.periods import reduced
from atomid_live.drift.prepare import Preparer
from atomid_live.drift.register import Correlator, register

SHAPE = (300, 260)
PX_PM = 24.8


def _spots(rng: np.random.Generator) -> Scene:
    return Scene(np.c_[rng.uniform(-200, 200, (220, 2)), np.full(220, 900.0)], PX_PM)


@pytest.mark.parametrize("shift", [(7.3, 4.6), (7.3, -4.6), (-7.3, 4.6), (-7.3, -4.6)])
def test_feature_at_p_is_found_at_p_plus_shift(shift: tuple[float, float]) -> None:
    rng = np.random.default_rng(3)
    scene, prepare = _spots(rng), Preparer(SHAPE, 2.5).prepare
    found = register(prepare(scene.counts(rng, SHAPE, (0, 0))).image, prepare(scene.counts(rng, SHAPE, shift)).image)
    assert found.shift_yx_px == pytest.approx(shift, abs=0.12)
    assert found.quality > 0.5


def test_stated_error_is_the_scatter() -> None:
    rng = np.random.default_rng(4)
    scene, prepare = _spots(rng), Preparer(SHAPE, 2.5).prepare
    reduced_errors = []
    for _ in range(24):
        shift = rng.uniform(-5, 5, 2)
        pair = [prepare(scene.counts(rng, SHAPE, (float(s[0]), float(s[1])))).image for s in (np.zeros(2), shift)]
        found = register(*pair)
        reduced_errors.append((np.array(found.shift_yx_px) - shift) / found.sigma_yx_px)
    assert 0.7 < np.std(reduced_errors) < 1.35


def test_noise_does_not_register() -> None:
    rng = np.random.default_rng(5)
    a, b = (Preparer(SHAPE).prepare(rng.poisson(9, SHAPE)).image for _ in range(2))
    assert register(a, b).quality < 0.1


def test_shapes_that_differ_give_nothing_rather_than_an_exception() -> None:
    found = register(np.zeros((64, 64), np.float32), np.zeros((64, 60), np.float32))
    assert found.quality == 0.0
    assert np.isnan(found.shift_yx_px).all()


def test_periodic_pair_lists_the_other_lattice_vectors() -> None:
    rng = np.random.default_rng(6)
    scene = Scene(hexagonal(rng, 200, PX_PM, 0.0), PX_PM, background=2)
    prepare = Preparer(SHAPE, 2.5).prepare
    pair = [prepare(scene.counts(rng, SHAPE, s)).image for s in ((0.0, 0.0), (2.0, -1.5))]
    found = register(*pair, expected_yx=(2.0, -1.5), reach=5.0)
    assert found.shift_yx_px == pytest.approx((2.0, -1.5), abs=0.15)
    assert len(register(*pair).candidates_yx_px) >= 5


@pytest.mark.parametrize("px_pm", [12.4, 24.8])
def test_periods_are_the_primitive_lattice(px_pm: float) -> None:
    rng = np.random.default_rng(7)
    shape = (520, 600)
    scene = Scene(hexagonal(rng, 340, px_pm, 0.01), px_pm)
    prepared = Preparer(shape, 62 / px_pm).prepare(scene.counts(rng, shape, (0.0, 0.0)))
    correlator = Correlator(prepared.image.shape)
    periods = correlator.periods(correlator.spectrum(prepared.image))
    assert periods is not None
    a = 318 / px_pm
    assert periods.shortest * prepared.bin_px == pytest.approx(a, rel=0.02)
    assert periods.longest * prepared.bin_px == pytest.approx(a, rel=0.02)
    assert np.hypot(*periods.star().T) * prepared.bin_px == pytest.approx(np.full(6, a), rel=0.03)


def test_scattered_atoms_have_no_periods() -> None:
    rng = np.random.default_rng(8)
    image = Preparer(SHAPE, 2.5).prepare(_spots(rng).counts(rng, SHAPE, (0.0, 0.0))).image
    correlator = Correlator(SHAPE)
    assert correlator.periods(correlator.spectrum(image)) is None


def test_reduction_finds_the_shortest_basis() -> None:
    a, b = reduced(np.array([10.0, 1.0]), np.array([31.0, 9.0]))
    assert np.hypot(*a) <= np.hypot(*b)
    assert abs(a @ b) <= a @ a / 2 + 1e-9
    assert abs(a[0] * b[1] - a[1] * b[0]) == pytest.approx(59)


def test_bad_pixels_and_empty_frames_are_prepared() -> None:
    rng = np.random.default_rng(9)
    preparer = Preparer((100, 130))
    frame = rng.poisson(20, (100, 130)).astype(float)
    frame[3, 4], frame[50, 60] = np.nan, np.inf
    assert np.isfinite(preparer.prepare(frame).image).all()
    assert preparer.prepare(np.full((100, 130), 7)).empty
    assert preparer.prepare(np.full((100, 130), np.nan)).empty
