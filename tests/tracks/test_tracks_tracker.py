"""Known things happen to known columns: ids stay, events are told once, in the right frame, with the right size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from track_scenes import PIXEL_NM, SHAPE, SPACING, Scene, Specimen, each_has_one_id, events_of, ids_of

from atomid_live.flags import Flag
from atomid_live.settings import Settings
from atomid_live.tracks import TrackTracker
from atomid_live.types import Event

MIDDLE = (90.0, 155.0)


def only(events: list[Event]) -> Event:
    assert len(events) == 1, events
    return events[0]


def id_at(answers: list[Any], column: int) -> int:
    return int(next(iter(ids_of(answers)[column])))


def test_nothing_happens_and_nothing_is_told() -> None:
    """Drift, noise, a changing gain, columns entering: one id per column, no event in 6000 column-frames."""
    scene = Scene(Specimen.make(vacancies=0.02), gain=lambda k: 1.0 + 0.1 * np.sin(k))
    answers = scene.run(32)
    assert sum(len(who) for _, who in answers) > 6000
    assert events_of(answers) == []
    assert each_has_one_id(answers)
    assert all((tracks.track_id >= 0).all() for tracks, _ in answers)


def test_new_columns_get_new_ids_and_a_column_that_comes_back_its_own() -> None:
    scene = Scene(Specimen.make(), total=lambda k: (0.0, 6.0 * (k if k < 12 else 24 - k)))
    answers = scene.run(24)
    assert each_has_one_id(answers)
    first, out = set(answers[0][1]), set(answers[12][1])
    assert out - first and first - out


def test_a_missed_column_keeps_its_id() -> None:
    specimen = Specimen.make()
    column = specimen.nearest(*MIDDLE)
    answers = Scene(specimen, hide=lambda k: [column] if k in (8, 9, 10, 11, 12) else []).run(16)
    assert events_of(answers) == []
    assert len(ids_of(answers)[column]) == 1


def gone_from(column: int, first: int, last: int = 1000) -> Any:
    def happen(k: int, specimen: Specimen) -> None:
        specimen.there[column] = not first <= k < last

    return happen


def test_a_vacancy_appears_once_it_is_confirmed() -> None:
    specimen = Specimen.make()
    column = specimen.nearest(*MIDDLE)
    answers = Scene(specimen, happen=gone_from(column, 9)).run(16)
    event = only(events_of(answers))
    assert event.kind == "vacancy appears" and event.track_id == id_at(answers, column)
    assert event.onset_sequence == 9 and event.before_sequence == 8 and event.time_s == 90.0
    assert 11 <= event.sequence <= 12, "three frames must agree, and no more are needed"
    assert event.size == pytest.approx(-1.0, abs=0.1) and event.size_sigma < 0.1 and event.significance > 8
    place = specimen.home[column] + (1.7 * event.sequence, -2.3 * event.sequence)
    np.testing.assert_allclose(event.yx_px, place, atol=0.5)
    np.testing.assert_allclose(event.sample_yx_px, specimen.home[column], atol=0.5)
    last = answers[-1][0].damage
    assert last.losses == 1 and last.known - last.occupied == 1


def test_a_vacancy_heals_with_the_id_of_its_column() -> None:
    specimen = Specimen.make()
    column = specimen.nearest(*MIDDLE)
    answers = Scene(specimen, happen=gone_from(column, 8, 15)).run(22)
    told = events_of(answers)
    assert [event.kind for event in told] == ["vacancy appears", "vacancy heals"]
    assert told[1].onset_sequence == 15 and told[1].track_id == told[0].track_id == id_at(answers, column)
    assert told[1].size == pytest.approx(1.0, abs=0.1)
    assert each_has_one_id(answers)
    assert answers[-1][0].damage.heals == 1 and answers[-1][0].damage.occupancy == 1.0


def test_a_vacancy_that_was_there_from_the_start_is_no_event_but_its_healing_is() -> None:
    specimen = Specimen.make()
    column = specimen.nearest(*MIDDLE)
    answers = Scene(specimen, happen=gone_from(column, 0, 10)).run(16)
    event = only(events_of(answers))
    assert event.kind == "vacancy heals" and event.onset_sequence == 10


def test_two_frames_are_not_enough() -> None:
    specimen = Specimen.make()
    column = specimen.nearest(*MIDDLE)
    answers = Scene(specimen, happen=gone_from(column, 9, 11)).run(18)
    assert events_of(answers) == []


def test_what_cannot_be_seen_is_not_missed() -> None:
    """A column as bright as the noise, seldom detected, is neither lost nor found."""
    specimen = Specimen.make()
    column = specimen.nearest(*MIDDLE)
    specimen.bright[column] = 2.0
    answers = Scene(specimen, hide=lambda k: [column] if k % 5 else [], noise_part=0.1).run(20)
    assert events_of(answers) == []


@pytest.mark.parametrize("part", [0.25, 0.6])
def test_a_column_jumps(part: float) -> None:
    """Within the search range, and beyond it."""
    specimen = Specimen.make()
    column = specimen.nearest(*MIDDLE)
    move = np.array([0.6, 0.8]) * part * SPACING
    home = specimen.home[column].copy()

    def happen(k: int, specimen: Specimen) -> None:
        specimen.home[column] = home + (move if k >= 10 else 0.0)

    answers = Scene(specimen, happen=happen).run(18)
    event = only([event for event in events_of(answers) if event.track_id == id_at(answers, column)])
    assert event.kind == "column jumps" and event.onset_sequence == 10 and event.unit == "px"
    assert event.size == pytest.approx(np.hypot(*move), abs=4 * event.size_sigma)
    assert len(ids_of(answers)[column]) == 1
    assert all(event.kind == "column jumps" for event in events_of(answers))


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.4])
def test_an_intensity_step_is_told_with_the_frames_gain_taken_out(factor: float) -> None:
    specimen = Specimen.make()
    column = specimen.nearest(*MIDDLE)

    def happen(k: int, specimen: Specimen) -> None:
        specimen.bright[column] = 200.0 * (factor if k >= 11 else 1.0)

    answers = Scene(specimen, happen=happen, gain=lambda k: 1.0 + 0.2 * (k % 3)).run(20)
    event = only(events_of(answers))
    assert event.kind == "intensity step" and event.track_id == id_at(answers, column) and event.onset_sequence == 11
    assert event.size == pytest.approx(factor - 1, abs=4 * event.size_sigma)


def test_a_whole_area_that_moves_or_brightens_is_no_event_of_single_columns() -> None:
    specimen = Specimen.make()
    near = np.hypot(*(specimen.home - (100, 150)).T) < 70

    def happen(k: int, specimen: Specimen) -> None:
        specimen.bright[:] = np.where(near & (k >= 10), 210.0, 200.0)

    answers = Scene(specimen, happen=happen, bend=lambda k: np.array([[0.004, 0.002], [0.0, 0.003]]) * (k % 2)).run(18)
    assert events_of(answers) == [] and each_has_one_id(answers)


def test_frames_known_only_up_to_a_lattice_vector_are_flagged_and_teach_nothing() -> None:
    """Ids of such frames may be a cell off, and say so; the next sure frame has the right ones."""
    cell = np.array([0.0, SPACING])
    scene = Scene(
        Specimen.make(vacancies=0.03),
        said=lambda k: tuple(np.array([1.7, -2.3]) * k + (cell if k in (9, 10, 11) else 0.0)),
        flags=lambda k: int(Flag.MODULO_LATTICE) if k in (9, 10, 11) else 0,
    )
    answers = scene.run(18)
    assert [tracks.sure for tracks, _ in answers] == [k not in (9, 10, 11) for k in range(18)]
    assert "lattice vector" in answers[9][0].note
    assert each_has_one_id(answers) and events_of(answers) == []


def test_a_hop_that_drift_did_not_notice_is_seen_by_the_vacancies() -> None:
    cell = np.array([0.0, SPACING])
    scene = Scene(
        Specimen.make(seed=2, vacancies=0.05), said=lambda k: tuple(np.array([1.7, -2.3]) * k + (cell if k >= 10 else 0.0))
    )
    answers = scene.run(18)
    assert not answers[10][0].sure and "vacancies are not where they were" in answers[10][0].note
    assert events_of(answers) == []
    begun = next(tracks for tracks, _ in answers[10:] if tracks.sure)
    assert "ids begin at" in begun.note and min(begun.track_id) >= 1_000_000
    old = set(np.concatenate([tracks.track_id for tracks, _ in answers[:10]]))
    assert not old & set(np.concatenate([tracks.track_id for tracks, _ in answers[12:]]))


def test_ids_begin_anew_after_drift_was_lost() -> None:
    lost = int(Flag.DRIFT_LOST | Flag.DRIFT_POOR)
    answers = Scene(Specimen.make(), flags=lambda k: lost if k in (6, 7) else 0).run(12)
    assert (answers[6][0].track_id == -1).all() and not answers[6][0].sure
    assert answers[8][0].note == "ids begin at 8000000: drift was lost"
    assert set(answers[8][0].track_id).isdisjoint(answers[5][0].track_id)


def test_a_new_segment_begins_anew_and_says_why() -> None:
    scene = Scene(Specimen.make())
    scene.run(6)
    scene.tracker.reset("pixel size changed")
    scene.first = 6
    tracks, _ = scene.run(1)[0]
    assert tracks.note == "ids begin at 6000000: pixel size changed"
    assert tracks.damage.cumulative_e_nm2 == pytest.approx(tracks.damage.dose_e_nm2)


def test_a_session_that_was_resumed_never_gives_an_id_twice() -> None:
    before, after = Scene(Specimen.make()), Scene(Specimen.make(), first=6)
    old = np.concatenate([tracks.track_id for tracks, _ in before.run(6)])
    answers = after.run(3)
    assert answers[0][0].note == "ids begin at 6000000: first frame"
    assert not set(old) & set(np.concatenate([tracks.track_id for tracks, _ in answers]))


def test_a_frame_that_lost_half_of_its_columns_teaches_nothing() -> None:
    specimen = Specimen.make()
    some = list(np.flatnonzero(np.random.default_rng(3).random(len(specimen.home)) < 0.35))
    answers = Scene(specimen, hide=lambda k: some if k in (8, 9, 10, 11) else []).run(16)
    assert "far fewer" in answers[8][0].note
    assert events_of(answers) == [] and each_has_one_id(answers)


def test_frames_without_columns_or_drift_get_no_ids() -> None:
    scene = Scene(
        Specimen.make(),
        hide=lambda k: list(range(10_000)) if k == 3 else [],
        said=lambda k: (np.nan,) * 2 if k == 5 else (1.7 * k, -2.3 * k),
    )
    answers = scene.run(8)
    assert len(answers[3][0].track_id) == 0 and answers[3][0].note == "too few columns"
    assert (answers[5][0].track_id == -1).all() and "drift" in answers[5][0].note
    assert each_has_one_id(answers)


def test_the_loss_rate_is_that_of_the_beam() -> None:
    """Columns vanish at a known rate per frame; the rate found agrees within its error, and the dose is the formula's."""
    specimen, rate, rng = Specimen.make(), 0.002, np.random.default_rng(5)

    def happen(k: int, specimen: Specimen) -> None:
        if k >= 6:
            specimen.there &= rng.random(len(specimen.home)) >= rate

    scene = Scene(specimen, happen=happen, total=lambda k: (0.3 * k, 0.2 * k))
    damage = scene.run(30)[-1][0].damage
    found, sigma = damage.loss_per_frame
    exposed = (30 - 6) / 30
    assert damage.losses >= 6
    assert abs(found - rate * exposed) < 3 * sigma + 0.15 * rate
    dose = 15e-12 * 1e-5 / 1.602176634e-19 / PIXEL_NM**2
    assert damage.dose_e_nm2 == pytest.approx(dose) and damage.cumulative_e_nm2 == pytest.approx(30 * dose)
    assert damage.loss_per_e_nm2[0] == pytest.approx(found / dose, rel=1e-6)
    assert damage.occupancy == pytest.approx(damage.occupied / damage.known)
    assert 0 < damage.occupancy_sigma < 0.02


def test_how_many_frames_must_agree_is_a_setting() -> None:
    specimen = Specimen.make()
    column = specimen.nearest(*MIDDLE)
    slow = TrackTracker(Settings.model_validate({"tracks": {"confirm_frames": 6}}))
    answers = Scene(specimen, happen=gone_from(column, 9), tracker=slow).run(18)
    assert only(events_of(answers)).sequence >= 14


def test_the_order_of_ids_is_that_of_the_columns() -> None:
    tracks, _ = Scene(Specimen.make()).run(1)[0]
    np.testing.assert_array_equal(tracks.track_id, np.arange(len(tracks.track_id)))
    assert SHAPE[0] != SHAPE[1]
