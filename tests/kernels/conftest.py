"""Every version of the kernels that this machine can run."""

from __future__ import annotations

from typing import Any

import pytest

VERSIONS = [
    "processor",
    pytest.param("torch", marks=pytest.mark.torch),
    pytest.param("cuda_source_on_processor", marks=pytest.mark.torch),
    pytest.param("cuda_source_on_processor_threads_shuffled", marks=pytest.mark.torch),
    pytest.param("torch_on_gpu", marks=[pytest.mark.torch, pytest.mark.gpu]),
    pytest.param("cuda_on_gpu", marks=[pytest.mark.torch, pytest.mark.gpu]),
]


@pytest.fixture(scope="session", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Any:
    """One version of the kernels; skips with the reason where it cannot run."""
    from atomid_live.gpu_check.versions import CudaVersion, ProcessorVersion, TorchVersion

    name = request.param
    if name == "processor":
        return ProcessorVersion()
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if name == "torch":
        return TorchVersion()
    if name.startswith("cuda_source"):
        from host_kernels import HostLauncher

        return CudaVersion(HostLauncher(7919 if name.endswith("shuffled") else 1))
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    if name == "torch_on_gpu":
        return TorchVersion("cuda")
    from atomid_live.kernels.launch import CudaLauncher

    return CudaVersion(CudaLauncher())
