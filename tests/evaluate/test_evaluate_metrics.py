"""Scores: exact matching against brute force, rates, and the numbers of the thesis's own rule."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atomid_live.evaluate.metrics import (
    Counts,
    chamfer,
    chance,
    eligible,
    false_fill,
    localisation,
    match,
    mean_spacing,
    skill,
    thesis_score,
    without_dont_care,
)

POINTS = arrays(np.float64, st.tuples(st.integers(0, 5), st.just(2)), elements=st.integers(0, 12).map(lambda v: v / 2))


def brute(p, t, r):
    best = (0, 0.0)
    for k in range(1, min(len(p), len(t)) + 1):
        for left in combinations(range(len(p)), k):
            for right in permutations(range(len(t)), k):
                d = [float(np.hypot(*(p[a] - t[b]))) for a, b in zip(left, right, strict=True)]
                if max(d) <= r and (k > best[0] or sum(d) < best[1] - 1e-12):
                    best = (k, sum(d))
    return best


@settings(max_examples=60, deadline=None)
@given(POINTS, POINTS, st.sampled_from([0.6, 1.1, 2.3]))
def test_matching_is_the_best_there_is(p, t, r):
    i, j = match(p, t, r)
    pairs, total = brute(p, t, r)
    assert len(i) == pairs == len(set(i.tolist())) == len(set(j.tolist()))
    assert np.hypot(*(p[i] - t[j]).T).sum() == pytest.approx(total, abs=1e-9)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_rates_agree(tp, fp, fn):
    c = Counts(tp, fp, fn)
    assert c.jaccard == pytest.approx(c.f1 / (2 - c.f1))
    assert 0 <= c.precision <= 1 and 0 <= c.recall <= 1
    if c.precision + c.recall > 0:
        assert c.f1 == pytest.approx(2 * c.precision * c.recall / (c.precision + c.recall))


def test_empty_conventions():
    assert Counts(0, 0, 0).f1 == 1 and Counts(0, 3, 0).precision == 0 and Counts(0, 3, 0).f1 == 0
    none, one = np.empty((0, 2)), np.zeros((1, 2))
    assert np.isnan(chamfer(none, one)) and np.isnan(mean_spacing(one)) and np.isnan(false_fill(one, none, 1.0))
    assert localisation(none, one, 1.0).pairs == 0


def test_chamfer_and_localisation_of_a_shift():
    truth = np.stack(np.meshgrid(np.arange(0, 100, 10.0), np.arange(0, 70, 10.0)), -1).reshape(-1, 2)
    moved = truth + np.array([0.5, -1.0])
    assert chamfer(moved, truth) == pytest.approx(2 * np.hypot(0.5, 1.0))
    found = localisation(moved, truth, 2.5)
    assert found.bias_xy == pytest.approx((-1.0, 0.5)) and found.mad_xy == (0.0, 0.0)
    assert found.rmse == pytest.approx(np.sqrt((1 + 0.25) / 2))


def test_thesis_rule_rewards_what_ours_does_not():
    rng = np.random.default_rng(0)
    truth = np.stack(np.meshgrid(np.arange(0, 400, 20.0), np.arange(0, 300, 20.0)), -1).reshape(-1, 2)
    random = np.stack([rng.uniform(0, 400, len(truth)), rng.uniform(0, 300, len(truth))], 1)
    assert thesis_score(random, truth).f1 > 0.5
    assert len(match(random, truth, 5.0)[0]) / len(truth) < 0.3
    half = thesis_score(truth[::2], truth)
    assert half.jaccard_as_coded == 1.0 and half.jaccard == pytest.approx(0.5)


def test_chance_is_low_for_a_quarter_spacing_and_skill_is_one_for_truth():
    truth = np.stack(np.meshgrid(np.arange(0, 400, 20.0), np.arange(0, 300, 20.0)), -1).reshape(-1, 2)
    luck = chance(truth, truth, 20.0, 5.0)
    assert luck < 0.1 and skill(1.0, luck) == 1.0 and skill(luck, luck) == 0.0


def test_border_masks_and_dont_care():
    yx = np.array([[5.0, 5.0], [4.0, 20.0], [20.0, 55.0], [20.0, 20.0]])
    assert eligible(yx, (60, 40), 5.0, ()).tolist() == [True, False, False, True]
    assert eligible(yx, None, 5.0, ((19, 21, 19, 21),)).tolist() == [True, True, True, False]
    kept = without_dont_care(yx, yx[:1], np.array([[5.2, 5.0], [20.0, 20.5]]), 1.0)
    assert kept.tolist() == yx[:3].tolist()
