"""`bench` prints what CONTRACT promises; memory that grows is seen, and memory that does not is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from atomid_live.assemble import Prepared
from atomid_live.bench import Plan, as_text, measure
from atomid_live.endurance import growth_mb, idle_percent, peak_mb, resident_mb, there_and_back
from atomid_live.errors import UsageError
from atomid_live.settings import Settings


def prepared() -> Prepared:
    """The classical detector without pictures."""
    settings = Settings()
    return Prepared(
        settings.model_copy(
            update={
                "detect": settings.detect.model_copy(update={"model": "dog"}),
                "output": settings.output.model_copy(update={"annotate": "none"}),
            }
        ),
        {},
    )


def test_report_holds_every_stage_and_the_first_frame() -> None:
    """Quantiles in order, the whole no shorter than its longest stage, and memory in its bounds."""
    report = measure(prepared(), Plan(frames=16, side=256))
    assert report["frames"] == 16
    assert list(report["stages_ms"]) == ["read", "detect", "lattice", "gpa", "drift", "strain", "tracks", "record"]
    for row in (report["end_to_end_ms"], report["with_first_frames_ms"], *report["stages_ms"].values()):
        assert 0 <= row["p50"] <= row["p95"] <= row["p99"] <= row["max"]
    assert report["end_to_end_ms"]["p50"] >= max(row["p50"] for row in report["stages_ms"].values())
    assert report["with_first_frames_ms"]["max"] >= report["start"]["first_frame_ms"] - 0.01
    assert 30 < report["memory_mb"]["before"] <= report["memory_mb"]["peak"] < 4000
    assert 300 < report["columns_mean"] < 600
    text = as_text(report)
    assert "end to end" in text
    assert f"{report['memory_mb']['peak']} MB at most" in text


def test_too_few_frames_are_refused() -> None:
    """A 95 % value of three frames would be a lie."""
    with pytest.raises(UsageError, match="--frames is 3"):
        measure(prepared(), Plan(frames=3))


def test_frames_are_gone_through_there_and_back() -> None:
    """So that drift never jumps, however many are asked for."""
    files = [Path(str(k)) for k in range(4)]
    assert [int(str(file)) for file in there_and_back(files, 9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]


@pytest.mark.parametrize("leak_bytes", [0, 200_000])
def test_a_leak_is_measured_and_nothing_else(leak_bytes: int) -> None:
    """Known truth: 0.2 MB kept of every frame are 200 MB per 1000 frames."""
    kept: list[Any] = []

    def process(number: int) -> None:
        np.ones(500_000)
        if leak_bytes:
            kept.append(np.ones(leak_bytes, np.uint8))

    chain: Any = SimpleNamespace(
        read=lambda file, number: number, process=process, record=lambda frame, result: None, settle=lambda: None
    )
    slope = growth_mb(chain, [Path("a"), Path("b")], 400, 0)
    assert slope == pytest.approx(1e-3 * leak_bytes, abs=20)


def test_memory_in_use_is_told_in_megabytes() -> None:
    """50 MB that are written to are seen, and the peak is never below."""
    before = resident_mb()
    block = np.ones(50_000_000, np.uint8)
    assert resident_mb() - before == pytest.approx(50, abs=5)
    assert peak_mb() >= resident_mb() - 1
    assert block[-1] == 1


def test_an_empty_folder_costs_little() -> None:
    """Waiting is not spinning."""
    assert 0 <= idle_percent(prepared(), 1.0) < 20
