"""A small engine, and a stand-in for the GPU's numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atomid_live.backends.engine import Engine
from atomid_live.gpu_check.bandpass import bandpass_engine


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """The band-pass network as an engine with card and hash."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    return bandpass_engine(tmp_path / "bandpass")


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Torch's answers about a GPU, so that code around TensorRT can be called where there is none."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    properties = SimpleNamespace(name="NVIDIA Pretended", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: properties)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: SimpleNamespace(cuda_stream=77))
    return properties
