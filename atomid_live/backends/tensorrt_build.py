"""ONNX to a TensorRT plan, on TensorRT 10 and 11: strongly typed, so that precision is what the ONNX file says.

TensorRT reports failure by False or None and says why in its log; here that becomes an error with the log's lines.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from atomid_live.backends.plan_cache import PlanCache, PlanKey
from atomid_live.errors import DeviceAbsentError, ModelError

BUILDER = 1
INPUT = "image"
SMALLEST = 64
SIDES = ((1024, 1024), (2048, 2048), (4096, 4096))
KNOWN_MAJORS = (10, 11)
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BuildRecipe:
    """How a plan is built.

    Attributes
    ----------
    precision : str
        "fp32", "fp16" or "int8": which ONNX file is built; the file itself holds the types.
    sides : tuple of (int, int)
        Frame sizes in use (rows, cols), multiples of 64; each gets a profile that is best there and reaches down to 64.
    workspace_bytes, level : int, int
        Memory a layer may use, and TensorRT's optimisation level (0 to 5).
    """

    precision: str = "fp16"
    sides: tuple[tuple[int, int], ...] = SIDES
    workspace_bytes: int = 2 << 30
    level: int = 3

    @property
    def text(self) -> str:
        """One line for the plan's key."""
        return json.dumps(asdict(self), sort_keys=True)


def import_tensorrt() -> ModuleType:
    """Return the module.

    Raises
    ------
    DeviceAbsentError
        Not installed, its libraries do not load, or a version this program was not written for.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise DeviceAbsentError(
            f"TensorRT is not usable here ({error}); pip install 'atomid-live[gpu]', or take another --backend"
        ) from error
    found: ModuleType = tensorrt
    major = str(getattr(found, "__version__", "0")).split(".")[0]
    if not major.isdigit() or int(major) not in KNOWN_MAJORS:
        version = getattr(found, "__version__", "unknown")
        raise DeviceAbsentError(f"TensorRT {version} is installed; this program knows 10 and 11: install one of them")
    return found


def collecting_logger(trt: ModuleType) -> Any:
    """Make a TensorRT logger that keeps warnings and errors in `lines`."""

    class Log(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity <= trt.ILogger.Severity.WARNING:
                self.lines.append(f"{severity.name.lower()}: {msg}")
                del self.lines[:-200]

    return Log()


def said(logger: Any, since: int = 0) -> str:
    """Last lines of TensorRT's log, for an error message."""
    lines = logger.lines[since:][-8:]
    return "; ".join(lines) if lines else "TensorRT's log says nothing"


def plan_key(trt: ModuleType, onnx: bytes, recipe: BuildRecipe, device: Any = None) -> PlanKey:
    """Everything the plan of `onnx` on this machine's GPU depends on."""
    import torch

    found = torch.cuda.get_device_properties(device)
    return PlanKey(
        hashlib.sha256(onnx).hexdigest(), str(trt.__version__), found.name, f"{found.major}.{found.minor}", driver_version(),
        str(torch.version.cuda), f"{platform.system()} {platform.machine()}", recipe.text, BUILDER,
    )  # fmt: skip


def driver_version() -> str:
    """Driver's version as the kernel module or CUDA tells it; "unknown" otherwise."""
    from pathlib import Path

    try:
        return Path("/sys/module/nvidia/version").read_text(encoding="ascii").strip()
    except OSError:
        pass
    try:
        from cuda.bindings import driver

        status, version = driver.cuDriverGetVersion()
    except (ImportError, RuntimeError, OSError):
        return "unknown"
    return str(version) if int(status) == 0 else "unknown"


def _monitor(trt: ModuleType, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            if not parent_phase:
                progress(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(f"{phase_name}: {step + 1} of {self._steps.get(phase_name, 0)}")
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()


def _parse(trt: ModuleType, builder: Any, onnx: bytes, logger: Any) -> Any:
    # ignored by 11, where all networks are strongly typed
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise ModelError(f"TensorRT cannot read the network: {'; '.join(errors) or said(logger)}; take another --backend")
    if network.num_inputs != 1 or network.get_input(0).name != INPUT:
        raise ModelError(f"the network has {network.num_inputs} inputs; TensorRT plans are built for one, named {INPUT!r}")
    return network, parser


def _configure(trt: ModuleType, builder: Any, recipe: BuildRecipe, timings: bytes, progress: Progress | None) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace_bytes)
    config.builder_optimization_level = recipe.level
    if recipe.precision == "fp32":
        # on by default, it rounds the inputs of convolutions to 10 bits
        config.clear_flag(trt.BuilderFlag.TF32)
    if progress is not None:
        config.progress_monitor = _monitor(trt, progress)
    cache = config.create_timing_cache(timings)
    if cache is None or not config.set_timing_cache(cache, False):
        # written by another build of TensorRT: start an empty one
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, True)
    for rows, cols in recipe.sides:
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT, (1, 1, SMALLEST, SMALLEST), (1, 1, rows, cols), (1, 1, rows, cols))
        if config.add_optimization_profile(profile) < 0:
            raise ModelError(f"TensorRT refuses frames of {rows} x {cols}; sides are multiples of 64 that the network can take")
    return config


def build_plan(
    trt: ModuleType, onnx: bytes, recipe: BuildRecipe, timings: bytes = b"", progress: Progress | None = None
) -> tuple[bytes, bytes]:
    """Build a plan; returns it and the timing cache.

    Raises
    ------
    ModelError
        The network cannot be parsed or built; the message holds TensorRT's log.
    DeviceAbsentError
        TensorRT cannot use the GPU.
    """
    logger = collecting_logger(trt)
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError) as error:
        raise DeviceAbsentError(
            f"TensorRT cannot use this GPU ({error}; {said(logger)}); `atomid-live doctor` looks for the cause"
        ) from error
    network, _parser = _parse(trt, builder, onnx, logger)
    config = _configure(trt, builder, recipe, timings, progress)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelError(
            f"TensorRT built no plan: {said(logger)}; with less GPU memory in use it may, else take another --backend"
        )
    cache = config.get_timing_cache()
    measured = cache.serialize() if cache is not None else None
    return bytes(plan), bytes(measured) if measured is not None else b""


def obtain_plan(
    trt: ModuleType, onnx: bytes, recipe: BuildRecipe, cache: PlanCache, progress: Progress | None = None
) -> tuple[bytes, PlanKey]:
    """Return the stored plan, or build and store it; `progress` hears why."""
    key = plan_key(trt, onnx, recipe)
    plan, reason = cache.load(key)
    if plan is not None:
        return plan, key
    if progress is not None:
        progress(reason)
    plan, measured = build_plan(trt, onnx, recipe, cache.timings(key), progress)
    cache.store(key, plan)
    if measured:
        cache.store_timings(key, measured)
    return plan, key
