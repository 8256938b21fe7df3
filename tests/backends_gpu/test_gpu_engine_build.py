"""`engine build`: sizes, refusals, and (on the fake) that a session afterwards asks for the very plan that was built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fake_tensorrt import Faults, fake_module

from atomid_live.backends import device_open, engine_build, plan_cache
from atomid_live.backends.engine import Engine
from atomid_live.backends.engine_build import build_engine_plan, frame_sides
from atomid_live.errors import DeviceAbsentError, UsageError

ROOT = Path(__file__).resolve().parents[2]


def test_sizes_are_rounded_up_sorted_and_told_apart() -> None:
    assert frame_sides(["2048", "1000x300", "1024x320"]) == ((1024, 320), (2048, 2048))
    assert frame_sides([]) == ()


@pytest.mark.parametrize("word", ["", "x", "12", "1024x", "1e3", "1024x1024x2", "99999", "-64"])
def test_other_sizes_are_refused(word: str) -> None:
    with pytest.raises(UsageError, match="512x2048"):
        frame_sides([word])


def test_without_a_gpu_it_is_exit_code_4(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_build, "gpu_problem", lambda: "no NVIDIA GPU and no driver")
    with pytest.raises(DeviceAbsentError, match="no NVIDIA GPU"):
        build_engine_plan(str(engine.folder))


def test_unknown_model_and_precision_are_named() -> None:
    with pytest.raises(UsageError, match="known"):
        build_engine_plan("no-such-engine")
    with pytest.raises(UsageError, match="fp32, fp16, int8"):
        build_engine_plan(None, "fp8")


@pytest.mark.torch
@pytest.mark.usefixtures("pretended_gpu")
def test_fake_session_finds_the_plan_that_was_built(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    faults, told = Faults(), list[str]()
    monkeypatch.setitem(sys.modules, "tensorrt", fake_module(faults))
    monkeypatch.setattr(engine_build, "gpu_problem", lambda: "")
    monkeypatch.setattr(plan_cache, "default_folder", lambda: tmp_path / "plans")
    build_engine_plan(str(engine.folder), "fp32", ["256", "300x512"], told.append)
    assert told[0] == "bandpass fp32, TensorRT 11.4.0.106, frames up to 256 x 256, 320 x 512"
    assert "Building engine" in told
    network = device_open._tensorrt_network(engine, "auto", told.append)
    assert faults.calls.count("build") == 1
    assert network.name == "tensorrt:bandpass-fp32"
    faults.version = "11.5.0"
    monkeypatch.setitem(sys.modules, "tensorrt", fake_module(faults))
    device_open._tensorrt_network(engine, "fp32", told.append)
    assert faults.calls.count("build") == 2
    assert any("tensorrt 11.4.0.106 instead of 11.5.0" in line for line in told)


@pytest.mark.torch
@pytest.mark.usefixtures("pretended_gpu")
def test_fake_plan_that_tensorrt_refuses_is_dropped_and_built_anew(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    faults, told = Faults(), list[str]()
    monkeypatch.setitem(sys.modules, "tensorrt", fake_module(faults))
    monkeypatch.setattr(plan_cache, "default_folder", lambda: tmp_path / "plans")
    device_open._tensorrt_network(engine, "fp32", told.append)
    stored = next((tmp_path / "plans").glob("*.plan"))
    plan = stored.read_bytes()
    real, left = faults.hit, ["deserialise"]
    monkeypatch.setattr(faults, "hit", lambda kind, *rest: (kind in left and not left.clear()) or real(kind, *rest))
    device_open._tensorrt_network(engine, "fp32", told.append)
    assert faults.calls.count("build") == 2
    assert stored.read_bytes() == plan
    assert any("kSERIALIZATION_VERSION" in line and "built anew" in line for line in told)


def test_the_script_runs_and_says_what_is_missing(engine: Engine) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "build_engine.py"), "--model", str(engine.folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if ran.returncode == 0:
        pytest.skip("there is a GPU with TensorRT here")
    assert ran.returncode == 4, ran.stderr
    assert "plan is built on the GPU" in ran.stderr or "TensorRT" in ran.stderr
