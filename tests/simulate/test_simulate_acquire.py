"""Every frame shows the same specimen where the truth says it is."""

from dataclasses import replace
from math import nan

import numpy as np
import pytest

from atomid_live.errors import UsageError
from atomid_live.simulate.acquire import FrameTruth, Session, detectability
from atomid_live.simulate.noise import Camera
from atomid_live.simulate.scan import ScanErrors
from atomid_live.simulate.scenario import Scenario, motion
from atomid_live.simulate.specimen import place_random

STILL = Scenario(
    shape=(160, 224),
    pixel_size_nm=0.02,
    frames=12,
    seed=4,
    scan=ScanErrors(),
    ellipticity=1.0,
    camera=Camera(gain=100.0, offset=500.0),
)


def common(first: FrameTruth, second: FrameTruth) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the columns seen on both frames."""

    def names(truth: FrameTruth) -> list[tuple[int, ...]]:
        return [tuple(name) for name in np.column_stack([truth.columns.cell, truth.columns.site]).tolist()]

    keys = {name: i for i, name in enumerate(names(second))}
    pairs = [(i, keys[name]) for i, name in enumerate(names(first)) if name in keys]
    mine, theirs = np.array(pairs).T
    return mine, theirs


def test_the_same_scenario_gives_the_same_frames_in_any_order() -> None:
    scenario = replace(STILL, drift_px_per_frame=(1.0, 2.0), walk_px=0.5, scan=ScanErrors(jitter_yx_px=(0.2, 0.2)))
    forward = [frame.pixels for frame in Session(replace(scenario, frames=12))]
    again = Session(scenario)
    for index in (7, 0, 3):
        np.testing.assert_array_equal(again.frame(index).pixels, forward[index])
    assert not np.array_equal(forward[0], forward[1])
    with pytest.raises(IndexError, match="frame 12 of a session of 12"):
        again.frame(12)


@pytest.mark.parametrize("interval", [nan, 60.0])
def test_total_is_where_the_columns_have_gone(interval: float) -> None:
    scenario = replace(STILL, drift_px_per_frame=(1.5, -3.25), walk_px=1.0, frame_time_s=20.0, frame_interval_s=interval)
    session = Session(scenario)
    reference = session.frame(0).truth
    assert reference.total_yx_px == (0.0, 0.0)
    for index in (1, 6, 11):
        truth = session.frame(index).truth
        mine, theirs = common(reference, truth)
        moved = truth.columns.yx_px[theirs] - reference.columns.yx_px[mine]
        np.testing.assert_allclose(moved, np.broadcast_to(truth.total_yx_px, moved.shape), atol=1e-9)
    before = session.frame(10).truth.total_yx_px
    np.testing.assert_allclose(np.subtract(truth.total_yx_px, before), truth.step_yx_px)


def test_seen_and_ideal_agree_at_mid_frame_and_shear_away_from_it() -> None:
    scenario = replace(STILL, drift_px_per_frame=(0.0, 8.0))
    truth = Session(scenario).frame(3).truth
    shift = truth.seen_yx_px - truth.columns.yx_px
    slope, offset = np.polyfit(truth.seen_yx_px[:, 0] - (160 - 1) / 2, shift[:, 1], 1)
    # The specimen goes right while the frame is scanned downwards: later rows see it further right.
    assert slope == pytest.approx(8.0 / 160, rel=1e-3)
    assert offset == pytest.approx(0.0, abs=1e-3)
    np.testing.assert_allclose(shift[:, 0], 0, atol=1e-3)


def test_pixels_show_the_columns_where_the_truth_says() -> None:
    scenario = replace(STILL, drift_px_per_frame=(2.0, 5.0), contamination_e=0.0, background_e=0.0, crystal="au_100")
    image, truth = Session(scenario).expected(5)
    inner = truth.columns.inside((160, 224), 12.0)
    r, c = np.round(truth.seen_yx_px[inner]).astype(int).T
    peak = image[r, c]
    # Half-way between two columns of gold it is darker.
    across = image[r, np.clip(c + round(0.5 * 0.2039 / 0.02), 0, 223)]
    assert np.mean(peak > across) > 0.99
    assert truth.electrons[inner].sum() == pytest.approx(image.sum() * inner.sum() / len(inner), rel=0.1)


def test_vacancies_belong_to_the_specimen_not_to_the_frame() -> None:
    session = Session(replace(STILL, shape=(300, 420), vacancy_fraction=0.05, drift_px_per_frame=(3.0, -4.0)))
    first, later = session.frame(0).truth, session.frame(8).truth
    expected = first.vacancies_yx_px + later.total_yx_px
    inside = ((expected > 2) & (expected < (297, 417))).all(1)
    from_first = {tuple(np.round(p).astype(int)) for p in expected[inside]}
    drifted_within = 4.0
    for place in from_first:
        assert np.hypot(*(later.vacancies_yx_px - place).T).min() < drifted_within
    assert 20 < len(first.vacancies_yx_px) < 200


def test_damage_only_adds_vacancies() -> None:
    session = Session(replace(STILL, shape=(300, 420), vacancy_fraction=0.02, damage_per_frame=0.01))
    counts = [len(session.frame(k).truth.vacancies_yx_px) for k in (0, 5, 11)]
    assert counts[0] < counts[1] < counts[2]
    first, last = (session.frame(k).truth.vacancies_yx_px for k in (0, 11))
    assert {tuple(p) for p in np.round(first, 3)} <= {tuple(p) for p in np.round(last, 3)}


def test_contamination_moves_with_the_specimen() -> None:
    bare = replace(STILL, contamination_e=20.0, drift_px_per_frame=(6.0, -9.0), frame_interval_s=1e9, vacancy_fraction=0.0)
    clean = Session(replace(bare, contamination_e=0.0))
    dirty = Session(bare)
    first, last = (dirty.expected(k)[0] - clean.expected(k)[0] for k in (0, 5))
    dy, dx = 30, -45
    np.testing.assert_allclose(last[dy:, :dx], first[:-dy, -dx:], atol=0.6)
    assert first.max() > 10


def test_strain_is_about_the_centre_of_the_view() -> None:
    scenario = replace(
        STILL,
        strain_exx_eyy_exy=(0.02, -0.01, 0.005),
        strain_from_frame=2,
        strain_until_frame=10,
        drift_px_per_frame=(1.0, 2.0),
        frame_interval_s=1e9,
    )
    session = Session(scenario)
    reference = session.frame(0).truth
    np.testing.assert_array_equal(session.frame(2).truth.deformation, np.eye(2))
    np.testing.assert_allclose(session.frame(6).truth.deformation, np.eye(2) + 0.5 * np.array([[-0.01, 0.005], [0.005, 0.02]]))
    truth = session.frame(11).truth
    mine, theirs = common(reference, truth)
    a = np.column_stack([reference.columns.yx_px[mine], np.ones(len(mine))])
    affine = np.linalg.lstsq(a, truth.columns.yx_px[theirs], rcond=None)[0]
    np.testing.assert_allclose(affine[:2].T, truth.deformation, atol=1e-9)
    centre = np.array([(160 - 1) / 2, (224 - 1) / 2])
    went = np.append(centre - truth.total_yx_px, 1.0) @ affine
    np.testing.assert_allclose(went, centre, atol=1e-8)


def test_jump_and_drift_in_cells() -> None:
    scenario = replace(STILL, crystal="srtio3", angle_rad=0.0, jump_frame=4, jump_cells=(5.0, -1.0), frame_interval_s=1e9)
    starts, _ = motion(scenario)
    cell_px = 0.3905 / 0.02
    np.testing.assert_allclose(starts[4] - starts[3], [-cell_px, 5 * cell_px])
    np.testing.assert_allclose(starts[[3, 11]] - starts[[0, 4]], 0, atol=1e-12)
    steady = motion(replace(scenario, jump_frame=-1, drift_cells_per_frame=(0.8, 0.0)))[0]
    np.testing.assert_allclose(np.diff(steady, axis=0), np.broadcast_to([0.0, 0.8 * cell_px], (11, 2)), atol=1e-12)


def test_edge_is_vacuum_and_moves() -> None:
    scenario = replace(STILL, edge_nm=0.5, drift_px_per_frame=(0.0, 4.0), frame_interval_s=1e9, frame_time_s=1.0)
    session = Session(scenario)
    edges = [session.frame(k).truth.columns.yx_px[:, 1].max() for k in (0, 10)]
    assert edges[1] - edges[0] == pytest.approx(40.0, abs=6.0)
    assert edges[0] == pytest.approx((224 - 1) / 2 + 0.5 / 0.02, abs=8.0)


def test_noise_level_is_that_of_the_dose() -> None:
    scenario = replace(STILL, crystal="graphene", contamination_e=0.0, background_e=30.0, camera=Camera(100.0, 500.0, 0.5))
    session = Session(scenario)
    expected, _ = session.expected(1)
    electrons = (session.frame(1).pixels.astype(float) - 500) / 100
    assert electrons.mean() == pytest.approx(float(expected.mean()), rel=5e-3)
    assert (electrons - expected).var() == pytest.approx(float(expected.mean()) + 0.25, rel=0.03)


def test_detectability_of_a_molybdenum_column() -> None:
    # 370 electrons, 5 px wide, 1.87 electrons of background: d' 11.96.
    assert detectability(np.array([370.0]), 5.0, 1.87)[0] == pytest.approx(11.96, abs=0.05)


def test_only_metal_can_be_seen_of_rhenium_disulphide() -> None:
    truth = Session(replace(STILL, crystal="res2")).frame(0).truth
    assert set(truth.columns.site[truth.visible]) == {0, 1, 2, 3}
    assert truth.visible.sum() > 100


def test_hash_is_uniform_and_depends_on_every_number() -> None:
    i, j = np.meshgrid(np.arange(-150, 150), np.arange(-100, 100), indexing="ij")
    values = place_random(3, i, j)
    assert values.mean() == pytest.approx(0.5, abs=0.006)
    assert np.histogram(values, 10, (0, 1))[0].min() > 5600
    assert abs(np.corrcoef(values[1:].ravel(), values[:-1].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(values.ravel(), place_random(4, i, j).ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crystal": "unobtainium"}, "unknown crystal"),
        ({"shape": (8, 100)}, "8 x 100 pixels"),
        ({"pixel_size_nm": 12.4}, r"12.4 nm"),
        ({"frames": 0}, "0 frames"),
    ],
)
def test_impossible_scenarios_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(STILL, **change)  # type: ignore[arg-type]
