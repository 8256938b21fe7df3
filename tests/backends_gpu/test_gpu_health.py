"""Each usual failure of a GPU has its own words and cure; nothing heavy is loaded where there is no driver."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from atomid_live.backends import gpu_health
from atomid_live.backends.gpu_health import Probe, judge

GOOD = Probe(
    True, True, 0, (), (13, 0), (("NVIDIA H100", (9, 0)),),
    {"torch": "2.13.0", "cuda-core": "1.2.2", "nvidia-cuda-nvrtc": "13.5", "onnx": "1.23", "tensorrt": "11.4.0.106"}, "13.0",
)  # fmt: skip


def words(seen: Probe) -> str:
    return " | ".join(f"{f.level} {f.topic} {f.text} -> {f.advice}" for f in judge(seen))


def test_a_healthy_gpu_is_one_line() -> None:
    assert [(f.level, f.text) for f in judge(GOOD)] == [("ok", "NVIDIA H100, compute capability 9.0")]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Probe(), "note gpu no NVIDIA GPU"),
        (Probe(card=True), "bad gpu an NVIDIA card is here, but its driver is not"),
        (replace(GOOD, locked=("/dev/nvidia0",)), "may not open /dev/nvidia0 -> add this user to the group"),
        (Probe(True, True, 803), "different versions .cuInit 803. -> restart"),
        (Probe(True, True, 100), "CUDA_VISIBLE_DEVICES"),
        (Probe(True, True, 35), "too old"),
        (Probe(True, True, 304), "permissions of /dev/nvidia"),
        (Probe(True, True, 999), "unknown reason"),
        (Probe(True, True, 12345), "does not start .cuInit 12345."),
        (replace(GOOD, driver_cuda=(12, 8)), "built for CUDA 13.0, the driver serves up to 12.8 -> update"),
        (replace(GOOD, torch_cuda="", gpus=()), "build for processors"),
        (replace(GOOD, versions={"torch": "2.13.0"}), "cuda-core, nvidia-cuda-nvrtc not installed"),
        (replace(GOOD, versions={"torch": "2", "cuda-core": "1"}), "the GPU is not used: nvidia-cuda-nvrtc not installed"),
        (replace(GOOD, versions={k: v for k, v in GOOD.versions.items() if k != "tensorrt"}), "note tensorrt not installed"),
        (replace(GOOD, versions={k: v for k, v in GOOD.versions.items() if k != "onnx"}), "bad tensorrt onnx is not installed"),
        (replace(GOOD, tensorrt_error="libnvinfer.so.11: cannot open"), "bad tensorrt libnvinfer"),
        (replace(GOOD, gpus=(("Tesla P40", (6, 1)),)), "bad gpu Tesla P40.*7.5 or newer"),
        (replace(GOOD, gpus=()), "torch sees no GPU"),
        (replace(GOOD, versions={**GOOD.versions, "onnxruntime": "1", "onnxruntime-gpu": "1"}), "both installed"),
    ],
)
def test_usual_failures_are_told_apart(seen: Probe, expected: str) -> None:
    import re

    assert re.search(expected, words(seen)), words(seen)


def test_the_problem_is_empty_only_for_a_usable_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_health, "probe", lambda: GOOD)
    assert gpu_health.gpu_problem() == ""
    monkeypatch.setattr(gpu_health, "probe", Probe)
    assert "no NVIDIA GPU" in gpu_health.gpu_problem()
    monkeypatch.setattr(gpu_health, "probe", lambda: replace(GOOD, gpus=(("Tesla P40", (6, 1)),)))
    assert "P40" in gpu_health.gpu_problem()


def test_probing_this_pc_never_fails() -> None:
    assert judge(gpu_health.probe())


def test_without_a_driver_neither_torch_nor_tensorrt_is_loaded() -> None:
    code = (
        "import sys; from atomid_live.backends import gpu_health, device_open;"
        "gpu_health._driver = lambda: None; gpu_health.gpu_findings();"
        "print(sorted({'torch', 'tensorrt', 'onnx', 'cuda'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
