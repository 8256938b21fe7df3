"""Scoring of followed runs against made-up ones whose score is known, the resumable file, and the marked section."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from atomid_live.errors import UsageError
from atomid_live.evaluate.drift_real import closure, followed, frames_of
from atomid_live.evaluate.drift_report import chosen, markdown, met
from atomid_live.evaluate.drift_runs import Followed, follow, slope_over, stored
from atomid_live.evaluate.drift_scenes import SCENES, SIGNS
from atomid_live.evaluate.drift_score import score
from atomid_live.flags import Flag

FRAMES = 40
CELL = 25.0


def _run(seed: int = 0, sigma: float = 0.1, hop_at: int = -1, flagged: tuple[int, ...] = ()) -> Followed:
    rng = np.random.default_rng(seed)
    true = np.outer(np.arange(FRAMES), (3.0, -2.0))
    total = true + rng.normal(0, sigma, (FRAMES, 2))
    total[0] = 0
    if hop_at > 0:
        total[hop_at:] += (CELL, 0)
    step = np.vstack([[0, 0], np.diff(total, axis=0)])
    flags = [int(Flag.MODULO_LATTICE) if k in flagged else 0 for k in range(FRAMES)]

    def pairs(values: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> list[tuple[float, float]]:
        return [(float(y), float(x)) for y, x in values]

    still = np.tile((0.3, -0.2), (FRAMES, 1))
    return Followed(
        "D1", seed, CELL, 10.0, 10.0, pairs(true), pairs(total), pairs(step), pairs(np.full((FRAMES, 2), sigma)),
        pairs(still), pairs(still), flags, [5.0] * FRAMES,
    )  # fmt: skip


def test_right_run_has_no_hop_and_its_errors_are_those_put_in() -> None:
    got = score([_run(seed) for seed in range(12)])
    assert (got.hops, got.undetected, got.flagged, got.unanswered) == (0, 0, 0, 0)
    assert got.total_pm == pytest.approx(1.0, rel=0.1)
    assert got.fine_pm == pytest.approx(np.sqrt(2), rel=0.1)
    assert got.z == pytest.approx(1.0, rel=0.1)
    assert got.velocity_pm == pytest.approx(0.0)


def test_a_hop_counts_once_and_only_unflagged_frames_hide_it() -> None:
    assert score([_run(hop_at=20)]).undetected == 1
    assert score([_run(hop_at=20)]).hops == 1
    told = score([_run(hop_at=20, flagged=tuple(range(20, FRAMES)))])
    assert told.undetected == 0
    assert (told.flagged, told.flagged_right) == (20, 0)
    assert score([_run(flagged=(5, 6))]).flagged_right == 2


def test_a_hop_flagged_for_a_while_and_then_believed_is_still_undetected() -> None:
    assert score([_run(hop_at=20, flagged=(20, 21, 22))]).undetected == 1


def test_targets_are_judged_as_the_page_says() -> None:
    good = score([_run()])
    assert met("D1", good) == "yes"
    assert "hops" in met("D2", replace(good, hops=1))
    assert met("D5", replace(good, frames=3000, flagged=3000)) == "yes"
    assert "steps of" in met("D5", replace(good, flagged=good.frames))
    assert "flagged 13 %" in met("D8", replace(good, flagged=5))
    assert "flagged" in met("D5", good)
    assert "undetected" in met("D6", replace(good, undetected=1))


def test_scenes_cover_all_signs_are_not_square_and_have_the_frames_asked_for() -> None:
    assert len(set(SIGNS)) == 4
    by_name = {scene.name: scene for scene in SCENES}
    for name in ("D5", "D6"):
        assert by_name[name].runs * by_name[name].frames >= 3000
    assert sum(by_name[name].runs * (by_name[name].frames - 1) for name in ("D1", "D2", "D3")) >= 980
    for scene in SCENES:
        made = scene.scenario(0)
        assert made.shape[0] != made.shape[1]
        assert made.frames == scene.frames
        assert made == scene.scenario(0), "a run is defined by its number"
        assert made.seed != scene.scenario(1).seed


def test_runs_in_the_file_are_not_done_again_and_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "frames.jsonl"
    path.write_text(json.dumps(asdict(_run())) + "\n" + '{"scene": "D1", "ru', encoding="utf-8")
    found = stored(path)
    assert list(found) == [("D1", 0)]
    assert score(list(found.values())).hops == 0


def test_slope_is_that_of_a_line() -> None:
    times = np.array([1.0, 4.0, 5.0, 9.0])
    assert slope_over(times, np.outer(times, (2.0, -3.0))) == pytest.approx((2.0, -3.0))
    assert np.isnan(slope_over(times[:2], np.ones((2, 2)))).all()


def test_a_short_run_of_the_real_tracker_scores_well() -> None:
    scene = next(scene for scene in SCENES if scene.name == "D1")
    short = replace(scene, scenario=lambda run: replace(scene.scenario(run), frames=6))
    got = score([follow(short, 0)])
    assert (got.frames, got.hops, got.undetected) == (5, 0, 0)
    assert got.fine_pm < 3


def test_closure_of_a_moving_texture_is_small() -> None:
    rng = np.random.default_rng(3)
    big = np.kron(rng.uniform(0, 1, (40, 40)), np.ones((8, 8)))
    images = [200 * big[20 + 3 * k : 212 + 3 * k, 30 - 2 * k : 200 - 2 * k] + rng.normal(0, 3, (192, 170)) for k in range(5)]
    frames = frames_of(images, 0.02)
    totals, _, unsure = followed(frames)
    assert totals[~unsure][-1] == pytest.approx(-np.array([3.0, -2.0]) * np.flatnonzero(~unsure)[-1], abs=0.5)
    assert closure(frames, totals, ~unsure)["closure_1_px"] < 0.3


def test_section_names_every_scene_and_unknown_ones_are_refused() -> None:
    text = markdown(chosen(("D1",)), {"D1": score([_run()])}, [])
    assert "| D1 |" in text
    with pytest.raises(UsageError, match="known: D1"):
        chosen(("D99",))
