"""Rivals find what they are known to find, and are given their best."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from atomid_live.errors import UsageError
from atomid_live.evaluate.contestants import contestants
from atomid_live.evaluate.rivals import open_rivals
from atomid_live.evaluate.rivals.atomap import absent_reason
from atomid_live.evaluate.rivals.blobs import blobs
from atomid_live.evaluate.rivals.findfoci import Options, find_foci, findfoci_best, findfoci_fixed
from atomid_live.evaluate.rivals.oracle import best, best_threshold
from atomid_live.evaluate.rivals.thesis_decode import decode, pooled, thesis_decode
from atomid_live.evaluate.scenes import SceneImage, make_image, scene_named
from atomid_live.evaluate.scoring import Answer, f1_at
from atomid_live.simulate.imaging import render


@pytest.fixture(scope="module")
def rhenium() -> SceneImage:
    scene = scene_named("S02")
    return make_image(scene, scene.variants[0], 0, (256, 304))


def hills(*peaks: tuple[float, float, float], shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return sum(h * np.exp(-((y - r) ** 2 + (x - c) ** 2) / 32.0) for r, c, h in peaks) + np.zeros(shape)


def test_findfoci_finds_each_hill_once_brightest_first() -> None:
    found = find_foci(hills((20, 20, 10.0), (20, 60, 8.0), (45, 40, 6.0)), Options(0.1, 0.5, 0.3, 5))
    assert found.tolist() == [[20, 20], [20, 60], [45, 40]]


def test_findfoci_merges_what_hardly_rises_above_the_saddle() -> None:
    image = hills((30, 30, 10.0), (30, 41, 9.0))
    assert len(find_foci(image, Options(0.05, 0.3, 0.1, 5))) == 2
    assert find_foci(image, Options(0.05, 0.3, 0.9, 5)).tolist() == [[30, 30]]


def test_findfoci_drops_small_and_dark_peaks_and_accepts_flat_images() -> None:
    image = hills((30, 30, 10.0))
    image[10, 70] = 9.0
    assert len(find_foci(image, Options(0.1, 0.01, 0.3, 1))) == 2
    assert find_foci(image, Options(0.1, 0.01, 0.3, 10)).tolist() == [[30, 30]]
    assert len(find_foci(hills((30, 30, 10.0), (30, 60, 2.0)), Options(0.3, 0.3, 0.3, 5))) == 1
    assert find_foci(np.ones((20, 30)), Options()).shape == (0, 2)


def test_the_search_is_never_worse_than_the_fixed_setting_by_much(rhenium: SceneImage) -> None:
    fixed, searched = findfoci_fixed(rhenium), findfoci_best(rhenium)
    assert f1_at(searched.yx_px, rhenium) >= f1_at(fixed.yx_px, rhenium) - 0.01
    assert f1_at(searched.yx_px, rhenium) > 0.97 and searched.ms > 0


@pytest.mark.parametrize(("name", "least"), [("LoG", 0.98), ("DoG", 0.98), ("DoH", 0.5)])
def test_blobs_reach_what_they_can_on_a_clean_frame(rhenium: SceneImage, name: str, least: float) -> None:
    pytest.importorskip("skimage")
    answer = blobs(name, rhenium.pixels, rhenium)
    assert f1_at(answer.yx_px, rhenium) > least
    assert set(answer.timings_ms) == {name} and "sigma" in answer.note


def test_oracle_takes_the_best_answer_and_threshold(rhenium: SceneImage) -> None:
    truth = rhenium.truth.yx_px[rhenium.truth.target]
    chosen = best([Answer(truth[::2]), Answer(truth), Answer(np.empty((0, 2)))], rhenium)
    assert chosen is not None and len(chosen.yx_px) == len(truth)
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 250, (200, 2))
    places, height = np.concatenate([truth, noise]), np.r_[np.full(len(truth), 2.0), rng.uniform(0, 1, 200)]
    height[: len(truth)] += rng.uniform(0, 1, len(truth))
    kept = height >= best_threshold(places, height, rhenium)
    assert f1_at(places[kept], rhenium) > 0.9


def test_oracle_prefers_silence_on_empty_images() -> None:
    scene = scene_named("S15")
    made = make_image(scene, scene.variants[0], 0, (64, 80))
    chosen = best([Answer(np.ones((3, 2))), Answer(np.empty((0, 2)))], made)
    assert chosen is not None and len(chosen.yx_px) == 0


def test_fixed_blocks_keep_one_column_each() -> None:
    heat = np.zeros((32, 40), np.float32)
    for place in ((9, 9), (14, 14), (20, 30)):
        heat[place] = 1.0
    assert len(pooled(heat, 0.5)[0]) == 2
    assert len(decode(heat, 4.0, 0.5)) == 2


def test_boxes_suppress_along_the_axis_before_the_diagonal() -> None:
    heat = np.zeros((64, 64), np.float32)
    heat[20, 20], heat[20, 32] = 1.0, 0.9
    assert len(decode(heat, 24.0, 0.5)) == 1
    heat[20, 32], heat[30, 30] = 0.0, 0.9
    assert len(decode(heat, 19.0, 0.5)) == 2


@pytest.mark.torch
def test_decode_is_that_of_the_trainable_network() -> None:
    torch = pytest.importorskip("torch")
    from atomid_live.train.atomid_net import thesis_decode as reference

    rng = np.random.default_rng(2)
    heat = render(rng.uniform(10, [150, 180], (60, 2)), np.full(60, 60.0), 3.0, (160, 192))
    ours = decode(heat, 12.0, 0.2)
    theirs = reference(torch.from_numpy(heat), 12.0, 0.2)
    assert {tuple(p) for p in ours.astype(int).tolist()} == {tuple(p) for p in theirs.tolist()}


def test_thesis_decode_on_a_perfect_map(rhenium: SceneImage) -> None:
    truth = rhenium.truth.yx_px[rhenium.truth.target]
    heat = render(truth, np.full(len(truth), 100.0), 4.0, (256, 304))
    answer = thesis_decode((heat / heat.max()).astype(np.float32), rhenium)
    assert f1_at(answer.yx_px, rhenium) > 0.9


def test_rivals_open_by_name_and_say_who_is_absent() -> None:
    with contestants(("dog",)) as ours, ExitStack() as closing:
        opened, absent = open_rivals(("all",), ours, None, closing)
        assert len(opened) == 5
        assert len(absent) == 2 and any("Atomap" in reason for reason in absent)
        with pytest.raises(UsageError, match="findfoci"):
            open_rivals(("nobody",), ours, None, closing)


def test_an_interpreter_without_atomap_is_named() -> None:
    assert "interpreter" in absent_reason(None)
    assert "cannot import atomap" in absent_reason(Path(sys.executable)) or absent_reason(Path(sys.executable)) == ""
    assert absent_reason(Path("no-such-python")) != ""
