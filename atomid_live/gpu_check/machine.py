"""What the check runs on and how large its frames are; tests put stand-ins in its place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atomid_live.gpu_check.table import device_milliseconds, wall_milliseconds


def cuda_launcher() -> Any:
    """Kernels on the first GPU."""
    from atomid_live.kernels.launch import CudaLauncher

    return CudaLauncher()


def cuda_stream() -> Any:
    """A stream of our own."""
    import torch

    return torch.cuda.Stream()


def gpu_tests(root: Path, limit_s: float) -> subprocess.CompletedProcess[str]:
    """Run the tests of the kernels that are marked for a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(root / "tests" / "kernels")]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=limit_s, check=False)


@dataclass(frozen=True)
class Machine:
    """The GPU, its clocks, and sizes.

    Attributes
    ----------
    device : str
        Torch's name.
    launcher, stream, tests : callable
    wall_ms, device_ms : callable
        See `table.wall_milliseconds` and `table.device_milliseconds`.
    shape, many_shape, large_shape : (int, int)
        Frame of the whole detectors; frame of about 100 000 columns; input of a network of AtomID-Net's size.
    other_shapes : tuple of (int, int)
        Frames that take turns.
    repeats : int
        Timed runs.
    """

    device: str = "cuda"
    launcher: Callable[[], Any] = cuda_launcher
    stream: Callable[[], Any] = cuda_stream
    tests: Callable[[Path, float], subprocess.CompletedProcess[str]] = gpu_tests
    wall_ms: Callable[[Callable[[], Any], int], tuple[float, float]] = wall_milliseconds
    device_ms: Callable[[Any, Callable[[], Any], int], float] = device_milliseconds
    shape: tuple[int, int] = (1000, 1024)
    many_shape: tuple[int, int] = (1600, 1604)
    other_shapes: tuple[tuple[int, int], ...] = ((500, 612), (700, 420))
    large_shape: tuple[int, int] = (1024, 1024)
    repeats: int = 40
