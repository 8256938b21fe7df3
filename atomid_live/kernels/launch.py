"""CUDA sources to machine code at run time (NVRTC), and machine code to launches on torch's current stream."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from atomid_live.errors import DeviceAbsentError
from atomid_live.kernels.layout import defines

FILES = ("normalise", "peaks", "significance", "refine", "judge", "columns")
BLOCK = 128
OLDEST_CAPABILITY = (7, 5)
_TENSOR_LIMIT = 2**31 - BLOCK


class Launcher(Protocol):
    """Runs a kernel by name over a number of threads, on the device where its tensors are."""

    @property
    def device(self) -> Any:
        """The torch device of the tensors it takes."""

    def __call__(self, kernel: str, threads: int, *arguments: Any) -> None:
        """Run `kernel` on tensors and Python integers; the thread count is appended as its last argument.

        A thread finds its number in `blockIdx.x * blockDim.x + threadIdx.x`.
        """


def source() -> str:
    """All kernels as one CUDA C++ text."""
    folder = Path(__file__).with_name("cuda")
    return defines() + "".join((folder / f"{name}.cu").read_text(encoding="utf-8") for name in FILES)


@cache
def compiled(architecture: str) -> Any:
    """Machine code for an architecture such as "sm_90"; needs the compiler's library but no GPU.

    Raises
    ------
    DeviceAbsentError
        The packages are not installed, or the compiler's library does not load.
    RuntimeError
        The sources do not compile; the message holds the compiler's log.
    """
    try:
        from cuda.core import Program, ProgramOptions
    except ImportError as error:
        raise DeviceAbsentError(f"GPU kernels need {error.name or error}; pip install 'atomid-live[gpu]'") from error
    options = ProgramOptions(std="c++17", arch=architecture)
    try:
        return Program(source(), "c++", options).compile("cubin")
    except RuntimeError as error:
        if type(error).__name__ != "DynamicLibNotFoundError":
            raise
        raise DeviceAbsentError(
            f"CUDA's run-time compiler does not load ({str(error).strip()}); pip install 'nvidia-cuda-nvrtc>=13,<14'"
        ) from error


class CudaLauncher:
    """Kernels on an NVIDIA GPU.

    Parameters
    ----------
    index : int
        Number of the GPU.

    Raises
    ------
    DeviceAbsentError
        No such GPU, too old a one, or the packages are not installed.
    """

    def __init__(self, index: int = 0) -> None:
        import torch

        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise DeviceAbsentError(f"no NVIDIA GPU number {index} can be used by torch here; `atomid-live doctor` says why")
        capability = torch.cuda.get_device_capability(index)
        if capability < OLDEST_CAPABILITY:
            raise DeviceAbsentError(
                f"GPU {index} has compute capability {capability[0]}.{capability[1]}; the kernels need 7.5 or newer; "
                "take another back end"
            )
        code = compiled(f"sm_{capability[0]}{capability[1]}")
        from cuda.core import Device, LaunchConfig, launch

        self.device = torch.device("cuda", index)
        with torch.cuda.device(self.device):
            torch.zeros(1, device=self.device)  # torch makes the context that the kernels are loaded into
            Device(index).set_current()
        self._torch, self._code, self._config, self._launch = torch, code, LaunchConfig, launch
        self._kernels: dict[str, Any] = {}

    def __call__(self, kernel: str, threads: int, *arguments: Any) -> None:
        """Run a kernel on torch's current stream."""
        if not 0 < threads < _TENSOR_LIMIT:
            raise ValueError(f"{kernel}: {threads} threads; one launch takes 1 to {_TENSOR_LIMIT - 1}")
        found = self._kernels.get(kernel)
        if found is None:
            found = self._kernels[kernel] = self._code.get_kernel(kernel)
        values = [np.int32(a) if isinstance(a, int) else a.data_ptr() for a in (*arguments, threads)]
        stream = _Stream(self._torch.cuda.current_stream(self.device).cuda_stream)
        blocks = -(-threads // BLOCK)
        self._launch(stream, self._config(grid=blocks, block=BLOCK), found, *values)


class _Stream:
    """A raw stream as cuda.core takes foreign ones."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._handle
