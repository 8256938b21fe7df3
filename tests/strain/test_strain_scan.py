"""Apparent strain of a drifting specimen, against a raster scan of moving points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from crystal_points import crystal, seen
from test_strain_field import against_truth, columns_of

from atomid_live.flags import Flag
from atomid_live.lattice import find_lattice
from atomid_live.settings import StrainSettings
from atomid_live.strain import StrainTracker
from atomid_live.strain.field import measure_deformation, strain_of
from atomid_live.strain.scan import MotionMemory, apparent_gradient, drift_strain, line_time, settled
from atomid_live.types import DriftEstimate, Frame, FrameMeta, Lattice, Origin, ScanMotion

SHAPE = (420, 520)


def scanned(points, velocity_yx_px_s, line_s):
    """Where a raster scan draws points that move: each is met when the beam's row is at the point (its own motion included)."""
    y = points[:, 0].copy()
    for _ in range(30):
        y = points[:, 0] + velocity_yx_px_s[0] * y * line_s
    return np.stack([y, points[:, 1] + velocity_yx_px_s[1] * y * line_s], axis=1)


@pytest.mark.parametrize("percent_yx", [(0.5, 0.0), (0.0, 0.5), (-1.0, 2.0), (2.0, -0.7)])
def test_formula_is_what_a_scan_does(percent_yx):
    line_s = 0.01
    velocity = tuple(p / 100 / line_s for p in percent_yx)
    points, _ = crystal("hexagonal", SHAPE, 0.0125, 11)
    detections, who = seen(scanned(points, velocity, line_s), SHAPE)
    columns = columns_of(detections)
    measured = measure_deformation(columns, 40.0, against_truth(columns, points, who))
    mean = np.nanmean(measured.gradient, axis=0)
    per_row = tuple(p / 100 for p in percent_yx)
    expected = apparent_gradient(per_row)
    assert mean == pytest.approx(expected, abs=1e-6)
    apparent = drift_strain(ScanMotion(per_row, (0.0, 0.0), ""))
    exx, eyy, exy, rotation = strain_of(mean)
    assert eyy == pytest.approx(apparent.stretch_eyy, abs=5e-4)
    assert exy == pytest.approx(apparent.shear_exy, abs=5e-4)
    assert 1000 * rotation == pytest.approx(apparent.rotation_mrad, abs=0.5)
    assert exx == pytest.approx(0, abs=5e-4)


def test_size_of_the_effect():
    """10 pm/s along y, 10.5 s a frame of 12.7 nm: 0.83 %."""
    f = apparent_gradient((0.010 / (12.7 / 1024) * 10.5 / 1024, 0.0))
    assert f[1, 1] - 1 == pytest.approx(0.0083, rel=0.02)


def test_line_time_from_what_the_file_says():
    def frame(**meta):
        return Frame(0, np.zeros((50, 80)), 0.0, Origin("x"), meta=FrameMeta(**meta))

    assert line_time(frame(line_time_s=0.02, frame_time_s=9.0)).seconds == 0.02
    assert line_time(frame(frame_time_s=1.0)).seconds == pytest.approx(0.02)
    by_dwell = line_time(frame(dwell_s=1e-5))
    assert by_dwell.seconds == pytest.approx(8e-4) and by_dwell.relative_sigma > 0 and "fly-back" in by_dwell.remark
    assert np.isnan(line_time(frame()).seconds)
    assert np.isnan(drift_strain(ScanMotion(reason="no velocity")).stretch_eyy)


@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
@pytest.mark.parametrize("reference", ["material:MoS2", "first:3"])
def test_what_drift_shears_is_put_right(signs, reference):
    """All four drift signs, pixels that are not square: 1 % of drift per row leaves under 5e-4 (E5), with its error told."""
    line_s, size = 0.01, (0.0125, 0.0150)
    tracker = StrainTracker(StrainSettings(reference=reference, window_nm=0.5))
    points, _ = crystal("hexagonal", (2 * SHAPE[0], 2 * SHAPE[1]), 0.0125, 11)
    points = (points - np.array(SHAPE) / 2) * np.array([1.0, size[0] / size[1]])
    rng, frame_s = np.random.default_rng(3), SHAPE[0] * line_s
    for k in range(10):
        share = 0.01 if reference.startswith("material") or k > 2 else 0.0
        velocity = np.array(signs) * share / line_s
        place = np.array(signs) * 0.01 / line_s * frame_s * (k if share == 0.01 and reference != "first:3" else max(k - 2, 0))
        middle = (SHAPE[0] - 1) / 2
        moved = points + place - velocity * middle * line_s
        detections, _ = seen(scanned(moved, tuple(velocity), line_s), SHAPE, 0.1, rng)
        meta = FrameMeta(line_time_s=line_s)
        frame = Frame(k, np.zeros(SHAPE, np.uint8), k * frame_s, Origin("x"), pixel_size_yx_nm=size, meta=meta)
        drift = DriftEstimate(total_yx_px=(float(place[0]), float(place[1])), sigma_yx_px=(0.05, 0.05))
        _, reading = tracker.update(frame, detections, find_lattice(detections, SHAPE), drift)
    raw, free = reading.strain, reading.strain_corrected
    offset = 0.316 / 0.3161 - 1 if reference.startswith("material") else 0.0
    assert raw["eyy"].mean == pytest.approx(0.01 * signs[0], abs=1.5e-3)
    for name, expected in (("exx", offset), ("eyy", offset), ("exy", 0.0)):
        assert free[name].mean == pytest.approx(expected, abs=5e-4)
    assert free["eyy"].sem > raw["eyy"].sem and reading.correction == "corrected for drift"


def test_a_lattice_vector_too_many_is_noticed():
    """Drift known only up to a lattice vector: the frame's own shear confirms the right one and refuses a wrong one."""
    a, b = (0.0, 25.0), (21.65, 12.5)
    lattice = Lattice(a_yx_px=a, b_yx_px=b)
    right = ScanMotion((0.004, -0.003), (1e-4, 1e-4), "", "", 1 / 500)
    there = np.eye(2)
    as_seen = apparent_gradient(right.per_row_yx_px)
    assert "decides" in settled(right, lattice, as_seen, there, 1.0).remark
    wrong = replace(right, per_row_yx_px=(0.004, -0.003 + 25 / 500))
    assert "lattice vector" in settled(wrong, lattice, as_seen, there, 1.0).reason
    assert settled(replace(wrong, row_share=0.0), lattice, as_seen, there, 1.0).known


def test_velocity_is_that_of_the_newest_frame():
    """A drift that settles: the slope now, not the mean over the last frames; unsure totals explain nothing."""
    memory, rng = MotionMemory(), np.random.default_rng(0)
    for k in range(9):
        total = 60 * (1 - np.exp(-k / 6))
        frame = Frame(k, np.zeros((100, 60)), 10.0 * k, Origin("x"), meta=FrameMeta(line_time_s=0.1))
        seen_at = (total + rng.normal(0, 0.02), 0.0)
        motion = memory.update(frame, DriftEstimate(total_yx_px=seen_at, sigma_yx_px=(0.02, 0.02)))
        assert motion.known == (k >= 2)
    true = 60 / 6 * np.exp(-8 / 6) / 10 * 0.1
    assert motion.per_row_yx_px[0] == pytest.approx(true, rel=0.15) and motion.sigma_per_row_yx_px[0] < 0.1 * true
    lost = memory.update(replace(frame, time_s=90.0), DriftEstimate(flags=int(Flag.DRIFT_LOST), note="gone"))
    assert lost.reason == "gone"
    jumped = memory.update(replace(frame, time_s=100.0), DriftEstimate(total_yx_px=(500.0, 0.0), flags=int(Flag.DRIFT_JUMP)))
    assert "3 frames" in jumped.reason
