"""scripts/gpu_check.py itself, so that it does not fail on the day there is a GPU: every step is run here on stand-ins.

The kernels are the CUDA sources on the processor, TensorRT is the fake, times are made up. It proves that the script runs and
notices wrong answers, and nothing about a GPU.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.torch
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, pretended_gpu: Any) -> ModuleType:
    """The script as a module, with stand-ins for the GPU."""
    from device_scenes import host_launcher
    from fake_tensorrt import Faults, fake_module

    host_launcher()
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "scripts" / "gpu_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_module(Faults()))
    monkeypatch.setattr(module, "DEVICE", "cpu")
    monkeypatch.setattr(module, "SHAPE", (512, 600))
    monkeypatch.setattr(module, "MANY", 220)
    monkeypatch.setattr(module, "LARGE", 64)
    monkeypatch.setattr(module, "launcher", host_launcher)
    monkeypatch.setattr(module, "new_stream", lambda: None)
    monkeypatch.setattr(module, "milliseconds", lambda work, repeats=1: (work(), (1.0, 2.0))[1])
    monkeypatch.setattr(module, "device_milliseconds", lambda stream, work, repeats=1: (work(), 0.5)[1])
    monkeypatch.setattr(module, "gpu_problem", lambda: "")
    return module


@pytest.mark.slow
def test_on_stand_ins_every_step_runs_and_is_right(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from bandpass import bandpass_engine

    monkeypatch.setattr(script, "engine_of", lambda model, folder: bandpass_engine(tmp_path / "engine"))
    monkeypatch.setattr(script.subprocess, "run", lambda *a, **k: script.subprocess.CompletedProcess(a, 0, "3 passed", ""))
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    assert script.main() == 0
    printed = capsys.readouterr().out.split("=" * 100)[1:]
    rows = [line for line in printed[0].splitlines() if line]
    not_run = [row for row in rows if row.startswith("NOT RUN")]
    assert not [row for row in rows if row.startswith("WRONG")]
    assert len(rows) >= 17
    assert [row.split()[2] for row in not_run] == ["onnxruntime"], not_run
    assert "17 right" in printed[1] or "0 wrong" in printed[1]


def test_wrong_columns_are_noticed(script: ModuleType) -> None:
    from dataclasses import replace

    from bandpass import lattice_frame

    from atomid_live.detect.dog import DogDetector

    right = DogDetector().detect(lattice_frame((512, 600)))
    assert "0.00 % lost" in script.closeness(right, right, "fp32")
    with pytest.raises(AssertionError, match="disagrees"):
        script.closeness(replace(right, yx_px=right.yx_px + 0.05), right, "fp32")
    with pytest.raises(AssertionError, match="disagrees"):
        script.closeness(replace(right, yx_px=right.yx_px[:-20]), right, "fp32")


def test_a_step_that_fails_is_wrong_and_one_without_time_is_not_run(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    check = script.Check(time.monotonic() + 5.0)
    with check.step("fails"):
        script.need(False, "two runs differ")
    with check.step("late"):
        check.spare(60)
    assert [(row.verdict, row.detail) for row in check.rows] == [
        ("WRONG", "AssertionError: two runs differ"),
        ("NOT RUN", "out of time"),
    ]
    assert script.table(check) == 1
    capsys.readouterr()


def test_without_a_gpu_it_ends_with_exit_code_4(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "gpu_problem", lambda: "no driver")
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    assert script.main() == 4
    assert "Nothing can be proven here: no driver" in capsys.readouterr().out
