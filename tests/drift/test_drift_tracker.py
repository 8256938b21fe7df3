"""The tracker against known motion: hops, jumps, poor frames, long ways, honest flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drift_scenes import A_PM, Scene, frame_of, hexagonal
from numpy.typing import NDArray

from atomid_live.drift.tracker import DriftTracker
from atomid_live.flags import Flag
from atomid_live.settings import DriftSettings
from atomid_live.types import Detections, DriftEstimate, Frame, FrameMeta, Lattice

PX_PM = 17.6
SHAPE = (420, 380)
CELL = A_PM / PX_PM
NONE = Detections.empty(column_sigma_px=62 / PX_PM)
UNSURE = Flag.MODULO_LATTICE | Flag.DRIFT_POOR | Flag.DRIFT_LOST


def _frames(
    totals: NDArray[np.float64], seed: int, vacancies: float = 0.02, jitter: float = 0.0, blobs: bool = False
) -> list[Frame]:
    rng = np.random.default_rng(seed)
    extent = max(SHAPE) / 2 + np.abs(totals).max() + 30
    scene = Scene(hexagonal(rng, extent, PX_PM, vacancies), PX_PM)
    if blobs:
        scene.blobs = np.c_[rng.uniform(-300, 300, (25, 2)), rng.uniform(25, 60, 25), rng.uniform(1, 5, 25)]
    return [frame_of(scene.counts(rng, SHAPE, (float(t[0]), float(t[1])), jitter), k, PX_PM) for k, t in enumerate(totals)]


def _follow(frames: Sequence[Frame]) -> list[DriftEstimate]:
    tracker = DriftTracker(DriftSettings())
    return [tracker.update(frame, NONE, None) for frame in frames]


def _totals(estimates: Sequence[DriftEstimate]) -> NDArray[np.float64]:
    return np.array([e.total_yx_px for e in estimates])


def _path(frames: int, speed_cells: tuple[float, float], seed: int, wander: float = 0.08) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    steps = CELL * (np.array(speed_cells) + rng.normal(0, wander, (frames, 2)))
    steps[0] = 0
    return np.cumsum(steps, axis=0)


@pytest.mark.parametrize("speed", [(0.9, 0.3), (-0.4, 1.2), (0.2, -0.8), (-1.1, -0.6)])
def test_fast_drift_in_every_direction_is_followed_without_a_hop(speed: tuple[float, float]) -> None:
    path = _path(12, speed, seed=11)
    got = _follow(_frames(path, seed=12))
    error = _totals(got) - path
    wrong = np.hypot(*error.T) > CELL / 2
    assert not wrong[~np.array([bool(e.flags & UNSURE) for e in got])].any(), "an unsure step must be flagged"
    assert not wrong[3:].any()
    assert np.sqrt((error[3:] ** 2).mean()) < 0.3


def test_stated_errors_cover_the_real_ones() -> None:
    z = []
    for seed in range(4):
        path = _path(8, (0.3, -0.4), seed)
        got = _follow(_frames(path, seed=20 + seed))
        z.append(((_totals(got) - path)[1:] / np.array([e.sigma_yx_px for e in got])[1:]).ravel())
    assert 0.5 < np.sqrt(np.mean(np.square(z))) < 1.5


def test_row_jitter_widens_the_stated_error() -> None:
    path = _path(6, (0.3, 0.2), 5)
    still, shaking = (_follow(_frames(path, seed=6, jitter=j, blobs=True)) for j in (0.0, 1.0))
    assert max(shaking[-1].sigma_yx_px) > 1.5 * max(still[-1].sigma_yx_px)


def test_jump_of_five_cells_is_recovered_or_flagged_within_two_frames() -> None:
    path = _path(14, (0.2, 0.3), seed=13)
    path[8:] += 5 * CELL * np.array([0.6, -0.8])
    got = _follow(_frames(path, seed=14))
    wrong = np.hypot(*(_totals(got) - path).T) > CELL / 2
    flagged = np.array([bool(e.flags & (UNSURE | Flag.DRIFT_JUMP)) for e in got])
    assert not (wrong & ~flagged).any()
    assert flagged[8:10].any()
    assert not wrong[10:].any()


def test_perfect_crystal_is_said_to_be_ambiguous() -> None:
    got = _follow(_frames(_path(8, (0.25, 0.2), seed=15), seed=16, vacancies=0.0))
    assert all(e.flags & Flag.MODULO_LATTICE for e in got[1:])
    assert all(len(e.candidates_yx_px) >= 2 for e in got[1:])
    distances = [np.hypot(*(np.array(e.candidates_yx_px[0]) - e.total_yx_px)) for e in got[1:]]
    assert np.min(distances) > CELL / 2


def test_contamination_alone_tells_lattice_vectors_apart() -> None:
    path = _path(8, (0.7, -0.5), seed=17)
    got = _follow(_frames(path, seed=18, vacancies=0.0, blobs=True))
    error = np.hypot(*(_totals(got) - path).T)
    assert not (error[[not e.flags & UNSURE for e in got]] > CELL / 2).any()
    assert error[-1] < 0.3


def test_way_of_several_fields_of_view_keeps_its_total() -> None:
    rng = np.random.default_rng(21)
    path = np.cumsum(np.vstack([[0, 0], np.full((30, 2), (44.0, -31.0))]), axis=0)
    scene = Scene(np.c_[rng.uniform(-1700, 400, (42000, 1)), rng.uniform(-400, 1300, (42000, 1)), np.full(42000, 900.0)], PX_PM)
    scene.columns[:, :2] += rng.normal(0, 1, (42000, 2))
    tracker = DriftTracker(DriftSettings())
    for k, t in enumerate(path):
        shape = (240, 200)
        got = tracker.update(frame_of(scene.counts(rng, shape, (float(t[0]), float(t[1]))), k, PX_PM), NONE, None)
    assert np.abs(path[-1] / shape).min() > 4
    assert got.total_yx_px == pytest.approx(tuple(path[-1]), abs=0.6)
    assert got.reference_sequence == 0


def test_poor_frame_is_flagged_and_not_accumulated() -> None:
    path = _path(9, (0.2, 0.1), seed=22)
    frames = _frames(path, seed=23)
    rng = np.random.default_rng(24)
    frames[6] = replace(frames[6], pixels=rng.poisson(20, SHAPE).astype(np.uint16))
    got = _follow(frames)
    assert got[6].flags & Flag.DRIFT_POOR
    assert got[6].total_yx_px == got[5].total_yx_px
    assert max(got[6].sigma_yx_px) > max(got[5].sigma_yx_px)
    assert got[7].total_yx_px == pytest.approx(tuple(path[7]), abs=0.5)


@pytest.mark.parametrize("value", [0, 7, np.nan])
def test_frame_without_contrast_is_poor(value: float) -> None:
    frames = _frames(_path(3, (0.1, 0.1), seed=25), seed=26)
    frames[1] = replace(frames[1], pixels=np.full(SHAPE, value))
    got = _follow(frames)
    assert got[1].flags & Flag.DRIFT_POOR
    assert 0 <= got[1].quality < 0.1


def test_first_frame_without_contrast_does_not_become_the_reference() -> None:
    frames = _frames(_path(4, (0.1, 0.1), seed=27), seed=28, blobs=True)
    frames[0] = replace(frames[0], pixels=np.zeros(SHAPE, np.uint16))
    got = _follow(frames)
    assert got[1].total_yx_px == (0.0, 0.0)
    assert np.isfinite(got[3].total_yx_px).all()


@pytest.mark.parametrize("times", [[0, 10, 10, 10, 20, 30], [0, 10, 5, 15, 25, 35], [0, np.nan, 20, 30, np.nan, 50]])
def test_odd_time_stamps_never_raise_and_backward_ones_are_flagged(times: list[float]) -> None:
    path = _path(6, (0.05, 0.1), seed=29, wander=0.01)
    frames = [replace(f, time_s=t) for f, t in zip(_frames(path, seed=30, blobs=True), times, strict=True)]
    got = _follow(frames)
    assert got[-1].total_yx_px == pytest.approx(tuple(path[-1]), abs=0.4)
    assert bool(got[2].flags & Flag.CLOCK_STEP) == (times[2] < times[1])


def test_velocity_in_nm_per_minute() -> None:
    path = np.outer(np.arange(9), (1.5, -2.5))
    got = _follow(_frames(path, seed=31))[-1]
    true = np.array([1.5, -2.5]) / 10.5 * 60 * PX_PM / 1000
    assert np.abs(np.array(got.velocity_yx_nm_min) - true).max() < 4 * got.sigma_velocity_nm_min + 0.01
    assert np.array(got.velocity_yx_px_s) * 10.5 == pytest.approx([1.5, -2.5], abs=0.1)


def test_uncalibrated_frames_have_no_velocity_in_nm() -> None:
    frames = [replace(f, pixel_size_yx_nm=(np.nan, np.nan)) for f in _frames(np.outer(np.arange(6), (1.0, 1.0)), seed=32)]
    got = _follow(frames)[-1]
    assert np.isnan(got.velocity_yx_nm_min).all()
    assert np.isfinite(got.velocity_yx_px_s).all()


def test_lag_of_the_scan_is_taken_off() -> None:
    """Rows seen later: a rigid copy of the frames with the apparent motion must give the true one."""
    true = np.outer(np.arange(10), (9.0, 4.0))
    line = 1 / SHAPE[0]  # of the frame interval
    seen = true / (1 - 9.0 * line)
    frames = [replace(f, meta=FrameMeta(detector="HAADF", line_time_s=10.5 * line)) for f in _frames(seen, seed=33, blobs=True)]
    got = _follow(frames)[-1]
    assert np.abs(seen[-1] - true[-1]).max() > 1.5
    assert got.total_yx_px == pytest.approx(tuple(true[-1]), abs=0.7)


def test_reset_begins_a_segment_and_other_size_begins_by_itself() -> None:
    frames = _frames(_path(3, (0.2, 0.2), seed=34), seed=35)
    tracker = DriftTracker(DriftSettings())
    tracker.update(frames[0], NONE, None)
    tracker.update(frames[1], NONE, None)
    tracker.reset(4)
    got = tracker.update(frames[2], NONE, None)
    assert got.segment == 4
    assert got.flags & Flag.SEGMENT_START
    assert got.reference_sequence == 2
    small = replace(frames[2], sequence=3, pixels=frames[2].pixels[:300, :260])
    assert tracker.update(small, NONE, None).total_yx_px == (0.0, 0.0)
    assert tracker.get().reference_sequence == 3


def test_lattice_of_the_columns_is_taken_and_a_wrong_one_is_not() -> None:
    path = _path(8, (0.6, 0.4), seed=36)
    frames = _frames(path, seed=37)
    turn = 0.17
    right = Lattice(
        a_yx_px=(CELL * np.sin(turn), CELL * np.cos(turn)),
        b_yx_px=(CELL * np.sin(turn + np.pi / 3), CELL * np.cos(turn + np.pi / 3)),
        origin_yx_px=(0.0, 0.0),
    )
    wrong = replace(right, a_yx_px=(0.0, 11.0), b_yx_px=(13.0, 0.0))
    for lattice in (right, wrong):
        tracker = DriftTracker(DriftSettings())
        for frame in frames:
            got = tracker.update(frame, NONE, lattice)
        assert got.total_yx_px == pytest.approx(tuple(path[-1]), abs=0.5)


def test_warm_up_leaves_no_trace() -> None:
    tracker = DriftTracker(DriftSettings())
    tracker.warm_up((200, 260))
    assert tracker.get() == DriftEstimate()
    got = tracker.update(_frames(np.zeros((1, 2)), seed=38)[0], NONE, None)
    assert got.total_yx_px == (0.0, 0.0)


def test_tiny_frames_are_refused_politely() -> None:
    tracker = DriftTracker(DriftSettings())
    for k in range(3):
        got = tracker.update(frame_of(np.eye(20, 30), k), Detections.empty(), None)
    assert got.flags & Flag.DRIFT_POOR
    assert "too small" in got.note


def test_real_abf_series_moves_as_phase_correlation_says(real_data: Path) -> None:
    import h5py

    with h5py.File(real_data / "series" / "srtio3_abf_5frames.hspy") as file:
        stacks: list[NDArray[np.float64]] = []
        file.visititems(lambda _, o: stacks.append(o[...]) if isinstance(o, h5py.Dataset) and o.ndim == 3 else None)
    got = _totals(_follow([frame_of(image, k, 9.2) for k, image in enumerate(stacks[0])]))
    published = np.array([(0.2, 2.1), (-3.2, 1.9), (-6.2, 7.2), (-1.8, 6.4)])
    assert np.abs(got[1:] - published).max() < 5, "half a cell is 15 px"


def test_real_graphene_follows_the_lattice_and_not_the_bright_atom(real_data: Path) -> None:
    with np.load(real_data / "series" / "graphene_si_hop_48frames.npz") as file:
        frames = file["frames"]
    tracker = DriftTracker(DriftSettings())
    blank = Detections.empty()
    got = [tracker.update(frame_of(image, k, 7.8, 1.7e9 + k), blank, None) for k, image in enumerate(frames)]
    steps = np.array([np.hypot(*e.step_yx_px) for e in got[1:] if not e.flags & UNSURE])
    assert np.median(steps) < 8
    assert len(steps) > 24
