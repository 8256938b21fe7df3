"""The judge of peaks: features that no gain changes, probabilities that mean what they say, a threshold that follows."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from atomid_live.detect.candidate_features import candidate_features
from atomid_live.detect.judge import FEATURES, LEAST_P, MOST_P, Judge, Peaks, best_threshold, chosen, features
from atomid_live.detect.near import neighbourhood
from atomid_live.detect.support import support, translations
from atomid_live.simulate.imaging import render

SHAPE = (160, 208)
SIGMA = 2.4


def _lattice() -> NDArray[np.float64]:
    i, j = np.meshgrid(np.arange(-20, 30), np.arange(-20, 30), indexing="ij")
    yx = np.stack([12.0 * i.ravel() + 3.0 * j.ravel(), 11.0 * j.ravel() - 2.0 * i.ravel()], 1) + 6.3
    return yx[((yx > 5) & (yx < np.array(SHAPE) - 6)).all(1)]


def _peaks(gain: float = 1.0, offset: float = 0.0) -> Peaks:
    yx = _lattice()
    height = np.linspace(0.3, 0.9, len(yx))
    image = render(yx, np.linspace(400, 900, len(yx)), SIGMA, SHAPE) + np.random.default_rng(0).normal(5, 1.0, SHAPE)
    fit = candidate_features((gain * image + offset).astype(np.float32), yx, SIGMA)
    nothing = np.full(len(yx), np.nan)
    return Peaks(yx, height, 0.3 * height, fit, nothing, nothing, SIGMA, True, 0.1, nothing, nothing)


def _identity(bias: float = 0.0) -> Judge:
    """A judge that believes the map."""
    weight = np.zeros((len(FEATURES), 1), np.float32)
    weight[0, 0] = 1.0
    zero, one = np.zeros(len(FEATURES), np.float32), np.ones(len(FEATURES), np.float32)
    return Judge(zero, one, (weight,), (np.array([bias], np.float32),))


def test_features_do_not_know_gain_offset_or_the_order_of_peaks() -> None:
    plain, other = features(_peaks()), features(_peaks(37.0, -200.0))
    assert plain.shape == (len(_lattice()), len(FEATURES)) and np.isfinite(plain).all()
    assert other == pytest.approx(plain, abs=0.02)
    peaks = _peaks()
    turned = features(replace(peaks, yx_px=peaks.yx_px + 0.0, column_sigma_px=SIGMA))
    assert np.array_equal(turned, plain)


def test_features_of_lattice_and_of_a_lone_peak() -> None:
    seen = dict(zip(FEATURES, features(_peaks()).T, strict=True))
    assert seen["lattice"].min() == 1.0 and seen["has_support"].max() == 0.0
    inner = seen["company_px"] < 12
    assert np.median(seen["company_px"][inner]) == pytest.approx((12.17 + 11.40 + 15.81) / 3 / SIGMA, rel=0.03)
    one = _peaks()
    few = candidate_features(np.random.default_rng(1).normal(0, 1, SHAPE).astype(np.float32), one.yx_px[:1], SIGMA)
    alone = replace(
        one, yx_px=one.yx_px[:1], height=one.height[:1], sharpness=one.sharpness[:1], fit=few,
        significance=np.array([7.0]), support=np.array([np.nan]), lattice=False,
        own_height=np.array([3.0]), own_noise=np.array([1.0]),
    )  # fmt: skip
    lone = dict(zip(FEATURES, features(alone)[0], strict=True))
    assert lone["has_own"] == 1.0 and lone["own_d_prime"] == pytest.approx(np.log1p(3 * np.sqrt(np.pi) * SIGMA), rel=1e-5)
    assert lone["company_px"] == lone["brighter_px"] == 12.0 and lone["significance"] == pytest.approx(np.log(8.0))


def test_no_peak_has_no_features() -> None:
    none = candidate_features(np.zeros(SHAPE, np.float32), np.empty((0, 2)), SIGMA)
    empty = np.empty(0)
    seen = features(Peaks(np.empty((0, 2)), empty, empty, none, empty, empty, SIGMA, False, 1.0, empty, empty))
    assert seen.shape == (0, len(FEATURES)) and len(_identity().probability(seen)) == 0


def test_a_judge_that_believes_the_map_repeats_it() -> None:
    peaks = _peaks()
    assert _identity().probability(features(peaks)) == pytest.approx(peaks.height, abs=1e-5)
    assert (_identity(-2.0).probability(features(peaks)) < peaks.height).all()


def test_a_judge_is_read_from_its_arrays() -> None:
    judge = _identity(0.5)
    arrays = {"mean": judge.mean, "scale": judge.scale, "weight0": judge.weights[0], "bias0": judge.biases[0]}
    again = Judge.from_arrays(arrays)
    assert np.array_equal(again.probability(features(_peaks())), judge.probability(features(_peaks())))
    with pytest.raises(KeyError):
        Judge.from_arrays({"mean": judge.mean})


def test_threshold_is_where_the_expected_f1_is_greatest() -> None:
    p = np.random.default_rng(5).beta(0.8, 0.6, 4000)

    def expected_f1(threshold: float) -> float:
        return float(2 * p[p >= threshold].sum() / ((p >= threshold).sum() + p.sum()))

    best = best_threshold(p)
    assert 0.35 < best < MOST_P
    assert expected_f1(best) >= max(expected_f1(t) for t in np.linspace(0.05, 0.95, 181)) - 1e-9
    assert best_threshold(np.array([0.999] * 50 + [0.001] * 50)) == MOST_P
    assert best_threshold(np.full(10, 0.01)) == LEAST_P
    assert best_threshold(np.empty(0)) == MOST_P


def test_neighbourhood_agrees_with_all_pairs() -> None:
    rng = np.random.default_rng(2)
    yx, tall = rng.uniform(0, 100, (300, 2)), rng.random(300)
    near, distance, brighter, apart, clear = neighbourhood(yx, tall, tall > 0.7, 6, 12.0)
    every = np.hypot(*(yx[:, None] - yx[None]).transpose(2, 0, 1)) + 1e9 * np.eye(300)
    order = np.argsort(every, 1)[:, :6]
    within = np.take_along_axis(every, order, 1) < 24.0
    assert np.array_equal(near[within], order[within])
    assert distance[within] == pytest.approx(np.take_along_axis(every, order, 1)[within])
    taller = np.where(tall[None] > tall[:, None], every, np.inf)
    known = taller.min(1) < 24.0
    assert apart[known] == pytest.approx(taller.min(1)[known])
    assert np.array_equal(brighter[known], taller.argmin(1)[known])
    marked = np.where(tall[None] > 0.7, every, np.inf).min(1)
    assert clear[marked < 24.0] == pytest.approx(marked[marked < 24.0])
    assert (neighbourhood(yx[:1], tall[:1], tall[:1] > 0.7, 6, 12.0)[0] == -1).all()


def test_a_lattice_of_the_map_supports_its_sites_and_nothing_else() -> None:
    yx = _lattice()
    heat = np.minimum(render(yx, np.full(len(yx), 2 * np.pi * 0.8), 1.0, SHAPE), 1.0).astype(np.float32)
    heat[yx.astype(int)[::3, 0], yx.astype(int)[::3, 1]] *= 0.3
    vectors = translations(heat, 4.0)
    assert len(vectors) >= 2
    basis = np.array([[12.0, -2.0], [3.0, 11.0]])
    cell = vectors @ np.linalg.inv(basis)
    assert np.abs(cell - np.rint(cell)).max() < 0.1
    sites, between = support(heat, yx, vectors), support(heat, yx + np.array([6.0, -1.0]), vectors)
    assert np.nanmin(sites) > 0.3 and np.nanmedian(between) < 0.5 * np.nanmedian(sites)


def test_noise_has_no_translations() -> None:
    noise = np.random.default_rng(3).random(SHAPE, np.float32) ** 8
    assert len(translations(noise, 4.0)) == 0 and len(translations(noise[:40], 4.0)) == 0
    assert np.isnan(support(noise, np.array([[5.0, 5.0]]), np.empty((0, 2), np.int64))).all()


def test_strays_of_a_clean_lattice_must_stand_out() -> None:
    count = 40
    seen = np.zeros((count, len(FEATURES)), np.float32)
    column = {name: n for n, name in enumerate(FEATURES)}
    seen[:, column["lattice"]], seen[:, column["noise_fraction"]], seen[:, column["main_px"]] = 1.0, 0.1, 3.0
    seen[:, column["own_d_prime"]] = np.log1p(3.0)
    seen[38:, column["own_amplitude"]] = -1.6
    score = np.full(count, 0.9)
    assert chosen(score, seen).sum() == 38
    bold = seen.copy()
    bold[38:, column["own_d_prime"]] = np.log1p(8.0)
    assert chosen(score, bold).all()
    many = seen.copy()
    many[20:, column["own_amplitude"]] = -1.6
    assert chosen(score, many).all()
    many[39, column["background"]] = -0.3
    assert chosen(score, many).sum() == 39
    noisy = seen.copy()
    noisy[:, column["noise_fraction"]] = 0.6
    assert chosen(score, noisy).all() and not chosen(np.full(count, 0.1), noisy).any()
    lone = seen.copy()
    lone[:, column["lattice"]], lone[:, column["significance"]] = 0.0, np.log1p(np.where(np.arange(count) < 5, 3.0, 6.0))
    assert chosen(score, lone).sum() == count - 5
