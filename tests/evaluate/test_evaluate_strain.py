"""Strain scenes measure what they say: formula, slope, residual, alarm; the page keeps other sections."""

from __future__ import annotations

import numpy as np
import pytest

from atomid_live.evaluate.strain_report import StrainPlan, markdown
from atomid_live.evaluate.strain_scenes import (
    A_NM,
    PIXEL_NM,
    Line,
    blank,
    cif_text,
    formula,
    ideal_points,
    interior,
    measure,
    points,
    position_sigma,
    steps,
    uneven,
)
from atomid_live.settings import StrainSettings
from atomid_live.strain.cif import projected_cell

SHAPE = (420, 520)


def test_points_have_the_noise_and_the_cell_they_claim(tmp_path):
    rng = np.random.default_rng(0)
    found = points(SHAPE, 0.4, rng, lambda p: p)
    assert position_sigma(found.yx_px, ideal_points(SHAPE), 8.0) == pytest.approx(0.4, rel=0.05)
    assert len(found) == pytest.approx(np.prod(SHAPE) * 2 / np.sqrt(3) * (PIXEL_NM / A_NM) ** 2, rel=0.05)
    path = tmp_path / "cell.cif"
    path.write_text(cif_text(A_NM, A_NM, 120.0))
    assert projected_cell(path).a_nm == pytest.approx(A_NM)


def test_spread_of_points_is_the_formula():
    field, reading = measure(
        blank(SHAPE), points(SHAPE, 0.4, np.random.default_rng(1), lambda p: p), StrainSettings(reference="frame")
    )
    found = points(SHAPE, 0.4, np.random.default_rng(1), lambda p: p)
    inside = interior(found.yx_px, SHAPE, field.window_px / 2)
    expected = formula(0.4, 2 / np.sqrt(3) * (PIXEL_NM / A_NM) ** 2, field.window_px)
    assert reading.valid and np.nanstd(field.exx[inside]) == pytest.approx(expected, rel=0.35)


def test_uneven_strain_is_followed_to_the_noise():
    for line in uneven():
        assert line.met, line


def test_a_step_is_found_and_quiet_frames_stay_quiet():
    for line in steps(1):
        assert line.numbers["frames to alarm, worst"] <= 2 and line.numbers["false alarms per 100"] <= 1


def test_markdown_says_what_was_missed():
    lines = [Line("E2", "exx", {"slope": 0.9}, "slope 1", False), Line("fig. 11", "ours", {"mean": 0.005})]
    text = markdown(lines, ["Atomap: no interpreter"], StrainPlan())
    assert "**missed**" in text and "0.5000 %" in text and "Not taking part: Atomap: no interpreter" in text
    assert "E1" not in text.split("## ")[1]
