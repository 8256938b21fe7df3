"""The check that `scripts/gpu_check.py` runs, so that it does not fail on the day there is a GPU: every step, on stand-ins.

The kernels are the CUDA sources on the processor, TensorRT is the fake, times are made up. It proves that the steps run in
order and that wrong answers are noticed, and nothing about a GPU.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from atomid_live.gpu_check import check
from atomid_live.gpu_check.bandpass import bandpass_engine, lattice_frame
from atomid_live.gpu_check.machine import Machine
from atomid_live.gpu_check.table import Table, closeness, need

pytestmark = pytest.mark.torch
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch, pretended_gpu: Any) -> Machine:
    """A processor in place of the GPU, small frames, and clocks that run their work once."""
    from device_scenes import host_launcher
    from fake_tensorrt import Faults, fake_module

    pytest.importorskip("onnx", reason="onnx is not installed")
    monkeypatch.setitem(sys.modules, "tensorrt", fake_module(Faults()))
    launcher = host_launcher()
    return Machine(
        device="cpu", launcher=lambda: launcher, stream=lambda: None,
        tests=lambda root, limit_s: subprocess.CompletedProcess([], 0, "3 passed", ""),
        wall_ms=lambda work, repeats: (work(), (1.0, 2.0))[1], device_ms=lambda stream, work, repeats: (work(), 0.5)[1],
        shape=(384, 500), many_shape=(160, 220), other_shapes=((200, 244), (260, 180)), large_shape=(64, 64),
    )  # fmt: skip


@pytest.mark.slow
def test_on_stand_ins_every_step_runs_in_order(
    stand_ins: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(check, "engine_of", lambda model, folder: bandpass_engine(tmp_path / "engine"))
    assert check.check_gpu(None, 400.0, ROOT, stand_ins) == 0
    printed = capsys.readouterr().out.split("=" * 100)[1:]
    rows = [line for line in printed[0].splitlines() if line]
    not_run = [row for row in rows if row.startswith("NOT RUN")]
    assert not [row for row in rows if row.startswith("WRONG")]
    assert len(rows) >= 18
    assert [row.split()[2] for row in not_run] == ["onnxruntime"], not_run
    assert f"{len(rows) - 1} right, 0 wrong, 1 not run" in printed[1]


def test_wrong_columns_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from atomid_live.detect.dog import DogDetector

    right = DogDetector().detect(lattice_frame((384, 500)))
    assert "0.00 % lost" in closeness(right, right, "fp32")
    with pytest.raises(AssertionError, match="disagrees"):
        closeness(replace(right, yx_px=right.yx_px + 0.05), right, "fp32")
    with pytest.raises(AssertionError, match="disagrees"):
        closeness(replace(right, yx_px=right.yx_px[:-20]), right, "fp32")


def test_a_gpu_that_answers_wrongly_is_exit_code_1(
    stand_ins: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The launcher leaves one kernel out, as a broken card or driver might: the table says WRONG."""
    whole = stand_ins.launcher()

    class Broken:
        device = whole.device

        def __call__(self, kernel: str, threads: int, *arguments: Any) -> None:
            if kernel != "suppress":
                whole(kernel, threads, *arguments)

    monkeypatch.setattr(check, "engine_of", lambda model, folder: bandpass_engine(tmp_path / "engine"))
    for step in ("build_plans", "whole_detectors", "stages_alone", "graph_beside_others", "large_network"):
        monkeypatch.setattr(check, step, lambda *arguments: {})
    assert check.check_gpu(None, 60.0, ROOT, replace(stand_ins, launcher=Broken)) == 1
    assert "WRONG    CUDA: peaks" in capsys.readouterr().out


def test_a_step_that_fails_is_wrong_and_one_without_time_is_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(time.monotonic() + 15.0)
    with table.step("fails"):
        need(False, "two runs differ")
    with table.step("late"):
        table.spare(60.0)
        pytest.fail("begun without the time for it")
    assert [(row.verdict, row.detail) for row in table.rows] == [
        ("WRONG", "AssertionError: two runs differ"),
        ("NOT RUN", "out of time"),
    ]
    assert table.text().endswith("0 right, 1 wrong, 1 not run")
    capsys.readouterr()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("gpu_check_script", ROOT / "scripts" / "gpu_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_the_script_ends_with_exit_code_4(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "gpu_problem", lambda: "no driver")
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    assert script.main() == 4
    assert "Nothing can be proven here: no driver" in capsys.readouterr().out


def test_an_unknown_model_is_an_error_with_its_code(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "gpu_problem", lambda: "")
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--model", "no-such-engine"])
    assert script.main() == 2
    assert "known" in capsys.readouterr().out
