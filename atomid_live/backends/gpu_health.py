"""Whether a GPU can be used here and, if not, the usual causes with their cures; nothing heavy is loaded without a driver."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

_PACKAGES = (
    "torch", "tensorrt", "tensorrt-cu13", "cuda-core", "nvidia-cuda-nvrtc", "onnx", "onnxruntime", "onnxruntime-gpu",
)  # fmt: skip
_NVIDIA = "0x10de"
OLDEST = (7, 5)
INSTALL = "pip install 'atomid-live[gpu]' (see docs/gpu.md)"
# CUresult values of cuInit (cuda.h)
NO_DEVICE, INSUFFICIENT, MISMATCH, NOT_SUPPORTED, OS_CALL, UNKNOWN = 100, 35, 803, 804, 304, 999


@dataclass(frozen=True, slots=True)
class GpuFinding:
    """One line for `doctor`."""

    level: Literal["ok", "note", "bad"]
    topic: str
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """What was seen of GPU and packages; the judgement on it is a pure function.

    Attributes
    ----------
    card : bool
        An NVIDIA card sits on the bus, whether or not it can be used.
    library : bool
        The driver's library loads.
    init : int
        Result of cuInit; 0 is well, -1 not tried.
    locked : tuple of str
        Device files this user may not open.
    driver_cuda : (int, int)
        Newest CUDA the driver serves.
    gpus : tuple of (str, (int, int))
        Name and compute capability.
    versions : mapping
        Installed packages.
    torch_cuda : str
        CUDA version torch was built for; "" for a processor build.
    tensorrt_error : str
        Why `import tensorrt` fails; "" when it works or is not installed.
    """

    card: bool = False
    library: bool = False
    init: int = -1
    locked: tuple[str, ...] = ()
    driver_cuda: tuple[int, int] = (0, 0)
    gpus: tuple[tuple[str, tuple[int, int]], ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    torch_cuda: str = ""
    tensorrt_error: str = ""


def _driver() -> ctypes.CDLL | None:
    for name in ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _card() -> bool:
    for vendor in Path("/sys/bus/pci/devices").glob("*/vendor"):
        try:
            if vendor.read_text().strip() == _NVIDIA and (vendor.parent / "class").read_text().startswith("0x03"):
                return True
        except OSError:
            continue
    return False


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def probe() -> Probe:
    """Look at driver, devices and packages; torch and TensorRT are imported only where the driver works."""
    locked = tuple(
        str(p) for p in sorted(Path("/dev").glob("nvidia[0-9c]*")) if p.is_char_device() and not os.access(p, os.R_OK | os.W_OK)
    )
    library, versions = _driver(), _versions()
    if library is None:
        return Probe(_card(), False, -1, locked, versions=versions)
    status = int(library.cuInit(0))
    number = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    served = number.value // 1000, number.value % 1000 // 10
    if status:
        return Probe(_card(), True, status, locked, served, versions=versions)
    gpus, torch_cuda = _torch_view() if "torch" in versions else ((), "")
    return Probe(True, True, 0, locked, served, gpus, versions, torch_cuda, _tensorrt_error(versions))


def _torch_view() -> tuple[tuple[tuple[str, tuple[int, int]], ...], str]:
    import torch

    if not torch.cuda.is_available():
        return (), str(torch.version.cuda or "")
    names = [(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)) for i in range(torch.cuda.device_count())]
    return tuple(names), str(torch.version.cuda)


def _tensorrt_error(versions: dict[str, str]) -> str:
    if not any(name.startswith("tensorrt") for name in versions):
        return ""
    from atomid_live.backends.tensorrt_build import import_tensorrt
    from atomid_live.errors import DeviceAbsentError

    try:
        import_tensorrt()
    except DeviceAbsentError as error:
        return str(error)
    return ""


def _driver_findings(seen: Probe) -> list[GpuFinding]:
    if not seen.library:
        if not seen.card:
            return [GpuFinding("note", "gpu", "no NVIDIA GPU and no driver", "the processor is used; nothing to do")]
        advice = "install NVIDIA's driver (580 or newer for CUDA 13) and restart this PC"
        return [GpuFinding("bad", "gpu", "an NVIDIA card is here, but its driver is not", advice)]
    if seen.locked:
        advice = (
            "add this user to the group that owns them (often `video` or `render`), then log in again; "
            "in a container, pass the GPU in"
        )
        return [GpuFinding("bad", "gpu", f"this user may not open {', '.join(seen.locked)}", advice)]
    causes = {
        NO_DEVICE: (
            "the driver works but shows no GPU",
            "check that it is not hidden by CUDA_VISIBLE_DEVICES or held by another machine",
        ),
        INSUFFICIENT: ("the driver is too old for its own library", "update NVIDIA's driver and restart this PC"),
        MISMATCH: (
            "driver library and kernel module have different versions",
            "restart this PC; it was updated since it was started",
        ),
        NOT_SUPPORTED: (
            "the driver is older than the CUDA compatibility library in use",
            "update the driver, or remove the library",
        ),
        OS_CALL: ("the operating system refused the driver", "check permissions of /dev/nvidia*, and the container's settings"),
        UNKNOWN: ("the driver failed for an unknown reason", "restart this PC; after sleep the driver often needs it"),
    }
    if seen.init:
        text, advice = causes.get(seen.init, ("the driver does not start", "update NVIDIA's driver and restart this PC"))
        return [GpuFinding("bad", "gpu", f"{text} (cuInit {seen.init})", advice)]
    return []


def _package_findings(seen: Probe) -> list[GpuFinding]:
    found = []
    versions = seen.versions
    needed = ("torch", "cuda-core", "nvidia-cuda-nvrtc")
    missing = ", ".join(name for name in needed if name not in versions)
    if missing:
        found.append(GpuFinding("note", "gpu", f"the GPU is not used: {missing} not installed", INSTALL))
    elif not seen.torch_cuda:
        found.append(
            GpuFinding("bad", "gpu", f"torch {versions['torch']} is the build for processors", f"remove torch, then {INSTALL}")
        )
    elif int(seen.torch_cuda.split(".")[0]) > seen.driver_cuda[0]:
        served = ".".join(map(str, seen.driver_cuda))
        text = f"torch was built for CUDA {seen.torch_cuda}, the driver serves up to {served}"
        found.append(GpuFinding("bad", "gpu", text, "update NVIDIA's driver and restart this PC"))
    if "onnxruntime" in versions and "onnxruntime-gpu" in versions:
        text = "onnxruntime and onnxruntime-gpu are both installed; the one installed last has overwritten the other"
        found.append(GpuFinding("note", "gpu", text, "remove both, then install the one you want"))
    if seen.tensorrt_error:
        found.append(GpuFinding("bad", "tensorrt", seen.tensorrt_error, INSTALL))
    elif not any(name.startswith("tensorrt") for name in versions):
        found.append(GpuFinding("note", "tensorrt", "not installed; torch runs the network on the GPU", INSTALL))
    elif "onnx" not in versions:
        text = "onnx is not installed, so plans in 16 or 8 bits cannot be built"
        found.append(GpuFinding("bad", "tensorrt", text, INSTALL))
    return found


def judge(seen: Probe) -> list[GpuFinding]:
    """Findings for `doctor`, worst causes first; a working GPU is one line "ok" per card."""
    driver = _driver_findings(seen)
    if driver:
        return driver
    found = _package_findings(seen)
    for name, capability in seen.gpus:
        text = f"{name}, compute capability {capability[0]}.{capability[1]}"
        if capability < OLDEST:
            found.append(GpuFinding("bad", "gpu", text, "the kernels need 7.5 or newer; the processor is used"))
        else:
            found.append(GpuFinding("ok", "gpu", text))
    if not seen.gpus and not found:
        found.append(GpuFinding("bad", "gpu", "the driver works, but torch sees no GPU", "check CUDA_VISIBLE_DEVICES"))
    return found


def gpu_findings() -> list[GpuFinding]:
    """Findings on this PC's GPU, for `doctor`."""
    return judge(probe())


def gpu_problem() -> str:
    """Why the GPU cannot be used by this program; "" when it can."""
    seen = probe()
    if not seen.gpus:
        bad = [finding for finding in judge(seen) if finding.level != "ok"]
        return "; ".join(f"{finding.text}: {finding.advice}" for finding in bad) or "no GPU"
    return "; ".join(f.text for f in judge(seen) if f.level == "bad" and f.topic == "gpu")
