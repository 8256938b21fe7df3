"""The judge of the tracks, judged: hand-made events against hand-made truth, and one real session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atomid_live.evaluate.report import place
from atomid_live.evaluate.track_report import _events, _ids, _upper
from atomid_live.evaluate.track_runs import Score, run_session, score_events
from atomid_live.evaluate.track_scenes import CALM, SCENES, Expected, expected_events
from atomid_live.evaluate.track_series import Series, series_lines
from atomid_live.simulate.happenings import EventfulSession, Happening
from atomid_live.types import Event


def told(kind: str, onset: int, yx: tuple[float, float] = (50.0, 60.0)) -> Event:
    return Event(kind, onset + 2, onset, onset - 1, 0.0, 3, yx)


def at(kind: str, first: int, yx: tuple[float, float] | None = (50.0, 60.0)) -> Expected:
    return Expected(kind, first, None if yx is None else lambda index: np.array(yx))


def test_kind_place_and_time_must_be_right_and_each_event_is_found_once() -> None:
    score = Score()
    truth = [at("column jumps", 10), at("vacancy appears", 12), at("grain change", 20, None)]
    events = [
        told("column jumps", 10, (52.0, 61.0)),
        told("column jumps", 11, (52.0, 61.0)),
        told("vacancy appears", 12, (50.0, 90.0)),
        told("vacancy heals", 12),
        told("grain change", 21, (0.0, 0.0)),
        told("column jumps", 30),
    ]
    score_events(events, truth, 15.0, score)
    assert dict(score.true) == {"column jumps": 1, "vacancy appears": 1, "grain change": 1}
    assert dict(score.found) == {"column jumps": 1, "grain change": 1}
    assert dict(score.false) == {"column jumps": 2, "vacancy appears": 1, "vacancy heals": 1}
    assert score.delay == [2, 3] and score.onset_error == [0, 1]
    rows = _events({"a": score})
    assert "| a | vacancy appears | 1 | 1 | 1 |" in rows


def test_the_limit_of_a_count_is_that_of_poisson() -> None:
    assert _upper(0) == pytest.approx(2.996, abs=1e-3) and _upper(3) == pytest.approx(7.754, abs=1e-3)
    score = Score(column_frames=2000, wrong_ids=1, frames=10)
    assert "| x | 10 | 2000 | 0.50 | 0 | 0 | 0.0000 | 1.4979 |" in _ids({"x": score})


def test_each_scene_knows_what_ought_to_be_told_of_it() -> None:
    kinds = {scene.name: sorted({e.kind for e in expected_events(scene.make(1))}) for scene in SCENES}
    assert kinds["calm"] == kinds["ramp"] == kinds["contamination grows"] == []
    assert kinds["events"] == ["column jumps", "intensity step", "vacancy appears", "vacancy heals"]
    assert kinds["grain"] == ["grain change"] and kinds["lattice step"] == ["lattice-parameter step"]
    session = next(scene for scene in SCENES if scene.name == "events").make(2)
    assert len(session.happenings) == 35
    brief = [h for h in session.happenings if h.kind == "gone" and h.first >= 0 and h.last >= 0]
    assert len(brief) == 5 and len(expected_events(session)) == 30


def test_happenings_are_in_the_truth() -> None:
    """The simulator does what it is told to, where it says so."""
    scenario = replace(CALM, frames=4, vacancy_fraction=0.0)
    things = (
        Happening("gone", (1, 1), 0, 2),
        Happening("jump", (-3, 2), 0, 1, 3, (2.0, 1.0)),
        Happening("brightness", (4, -2), 0, 3, factor=0.5),
    )
    session, plain = EventfulSession(scenario, things), EventfulSession(scenario)
    for k in range(4):
        truth, reference = session.frame(k).truth, plain.frame(k).truth
        assert len(reference.columns) - len(truth.columns) == (k >= 2)
        assert len(truth.vacancies_yx_px) == (k >= 2)
        kept = [(*c, s) for c, s in zip(truth.columns.cell, truth.columns.site, strict=True)]
        moved = truth.columns.yx_px[kept.index((-3, 2, 0))] - session.place_yx_px((-3, 2), 0, k)
        np.testing.assert_allclose(moved, (2.0, 1.0) if k in (1, 2) else (0.0, 0.0), atol=1e-9)
        whole = [(*c, s) for c, s in zip(reference.columns.cell, reference.columns.site, strict=True)].index((4, -2, 0))
        ratio = truth.electrons[kept.index((4, -2, 0))] / reference.electrons[whole]
        assert ratio == pytest.approx(0.5 if k == 3 else 1.0)


def test_a_session_through_the_whole_chain_is_told_as_it_happened() -> None:
    """Pixels in, events out: a vacancy, a healing, a jump, a step of brightness; a column missed once is none."""
    scenario = replace(CALM, frames=17, shape=(300, 380), dwell_us=60.0)
    things = (
        Happening("gone", (1, 2), 0, 9),
        Happening("gone", (-3, 2), 0, -1, 10),
        Happening("jump", (6, 1), 0, 10, move_yx_px=(3.0, 2.0)),
        Happening("brightness", (-6, -3), 0, 11, factor=0.5),
        Happening("gone", (3, -4), 0, 8, 9),
    )
    score = Score()
    run_session(EventfulSession(scenario, things), score)
    assert score.found == score.true and sum(score.true.values()) == 4
    assert not score.false and score.unsure_frames == 0
    assert score.onset_error == [0] * 4
    assert score.wrong_ids < 1e-3 * score.column_frames


def test_the_section_stands_beside_that_of_the_suite(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text("# Results\n\n<!-- evaluate suite: begin -->\nold\n<!-- evaluate suite: end -->\n")
    place(page, "new", "tracks")
    assert (
        "old" in page.read_text()
        and "<!-- evaluate tracks: begin -->\n\nnew\n<!-- evaluate tracks: end -->" in page.read_text()
    )


def test_a_series_that_is_not_at_hand_is_said_to_be_so(tmp_path: Path) -> None:
    assert "not at hand" in series_lines(Series.of(tmp_path / "nothing.npz"))[1]
