"""Apparent strain of a drifting specimen, against a raster scan of moving points."""

from __future__ import annotations

import numpy as np
import pytest
from crystal_points import crystal, seen
from test_strain_field import against_truth, columns_of

from atomid_live.strain.field import measure_deformation, strain_of
from atomid_live.strain.scan import apparent_gradient, drift_strain, line_time
from atomid_live.types import Frame, FrameMeta, Origin, ScanMotion

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
