"""`evaluate scan`: its numbers on a short run, and its own section of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atomid_live.evaluate.report import BEGIN, END, place
from atomid_live.evaluate.scan import CalibrationRow, CoverRow, DriftRow, Findings, drift_row, markdown


def test_one_drift_is_taken_off_and_its_error_covers() -> None:
    row = drift_row((-0.01, 0.005), frames=6, seed=5)
    assert row.frames >= 3 and row.raw == pytest.approx((-0.01, 0.0025), abs=5e-4)
    assert np.abs(row.left).max() < 5e-4 and np.abs(row.left).max() < 4 * max(row.claimed)


def findings(left: float, covered: float) -> Findings:
    drift = DriftRow((0.01, 0.01), (0.01, 0.005), (left, 0.0), (1e-4, 1e-4), (1e-4, 1e-4), 6)
    cover = CoverRow("first:5", 3.0, {"exx": covered, "frame's exx": 50.0}, 8, (0.4, 0.5, 0.4, 0.5))
    return Findings((drift,), (cover,), (CalibrationRow("one frame", (1e-4, 0.0, 0.0), (1e-4, 1e-4, 1e-4)),))


def test_verdicts_follow_the_numbers() -> None:
    good, bad = markdown(findings(1e-4, 68.0), 8), markdown(findings(9e-4, 50.0), 8)
    assert good.count(": met.") == 2 and "missed" not in good
    assert bad.count("**missed**") == 2


def test_the_section_leaves_the_suite_alone(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    place(page, "suite's")
    place(page, markdown(findings(1e-4, 68.0), 8), "scan")
    text = page.read_text(encoding="utf-8")
    assert "suite's" in text and text.index(END) < text.index(BEGIN.replace("suite", "scan")) and "# Scan distortion" in text
