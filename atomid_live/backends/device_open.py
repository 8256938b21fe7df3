"""Opening the GPU by name or automatically; until a plan is built another detector serves, and is then replaced."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from atomid_live.backends.engine import Engine
from atomid_live.backends.gpu_health import gpu_problem
from atomid_live.errors import AtomidError, DeviceAbsentError, UsageError
from atomid_live.protocols import Detector
from atomid_live.settings import DetectSettings, FrameSettings
from atomid_live.types import Detections, Frame

log = logging.getLogger(__name__)

DEVICE_BACKENDS = ("tensorrt", "torch-cuda", "onnxruntime-cuda")
Tell = Callable[[str], None]


class ServingDetector:
    """One detector now and a better one as soon as it is ready (protocols.Detector).

    Parameters
    ----------
    first : Detector
        Serves until then.
    build : callable
        Makes the better one; runs in a thread of its own.
    asked : bool
        The better one was asked for by name: when it cannot be made, that is an error of the next frame, not a note.
    tell : callable
        Hears what happens, in plain words.
    """

    def __init__(self, first: Detector, build: Callable[[], Detector], *, asked: bool, tell: Tell = log.info) -> None:
        self._now, self._asked, self._tell = first, asked, tell
        self._next: Detector | None = None
        self._problem: AtomidError | None = None
        self._shape: tuple[int, int] | None = None
        self._thread = threading.Thread(target=self._make, args=(build,), name="plan", daemon=True)
        self._thread.start()

    def _make(self, build: Callable[[], Detector]) -> None:
        try:
            ready = build()
            if self._shape is not None:
                ready.warm_up(self._shape)
            self._next = ready
        except AtomidError as error:
            self._problem = error
        except Exception as error:  # the thread must not end without a word
            log.exception("plan")
            self._problem = AtomidError(f"the GPU's detector could not be made: {type(error).__name__}: {error}")

    @property
    def name(self) -> str:
        """Name of the detector that serves at the moment."""
        return self._now.name

    @property
    def card(self) -> dict[str, object]:
        """What the session file records of the model."""
        card: dict[str, object] = getattr(self._now, "card", {})
        return card

    @property
    def ready(self) -> bool:
        """Whether nothing is being made any more."""
        return not self._thread.is_alive()

    def detect(self, frame: Frame) -> Detections:
        """Find columns with the best detector that is ready."""
        self._swap()
        return self._now.detect(frame)

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Warm up what serves now; what comes later is warmed up before it takes over."""
        self._shape = shape
        self._swap()
        self._now.warm_up(shape)

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for the better detector and let it take over."""
        self._thread.join(timeout_s)
        self._swap()

    def close(self) -> None:
        """Release what holds a device; a build under way ends by itself with the process."""
        for detector in (self._now, self._next):
            closing = getattr(detector, "close", None)
            if closing is not None:
                closing()

    def _swap(self) -> None:
        problem, self._problem = self._problem, None
        if problem is not None:
            if self._asked:
                raise problem
            self._tell(f"{self._now.name} goes on serving: {problem}")
        if self._next is not None:
            former, self._now, self._next = self._now, self._next, None
            self._tell(f"{self._now.name} takes over from {former.name}")


def _device() -> Any:
    problem = gpu_problem()
    if problem:
        raise DeviceAbsentError(f"no GPU can be used here: {problem}")
    import torch

    return torch.device("cuda", torch.cuda.current_device())


def _tensorrt_network(engine: Engine, precision: str, tell: Tell) -> Any:
    from atomid_live.backends.plan_cache import PlanCache
    from atomid_live.backends.precision import graph_for
    from atomid_live.backends.tensorrt import StalePlanError, TensorRtNetwork
    from atomid_live.backends.tensorrt_build import SIDES, BuildRecipe, import_tensorrt, obtain_plan

    trt, cache = import_tensorrt(), PlanCache()
    chosen = cache.choice()
    precision = chosen.precision if precision == "auto" else precision
    recipe = BuildRecipe(precision, chosen.sides or SIDES)
    onnx = graph_for(engine, precision, cache)
    plan, key = obtain_plan(trt, onnx, recipe, cache, tell)
    try:
        return TensorRtNetwork(trt, engine, plan, precision)
    except StalePlanError as error:
        tell(f"{error}; it is built anew")
        cache.drop(key)
        plan, _ = obtain_plan(trt, onnx, recipe, cache, tell)
        return TensorRtNetwork(trt, engine, plan, precision)


def open_device(
    engine: Engine, backend: str, detect: DetectSettings | None = None, frame: FrameSettings | None = None, *,
    precision: str = "auto", tell: Tell = log.info,
) -> Detector:  # fmt: skip
    """Open the GPU's detector on a back end of `DEVICE_BACKENDS`; for TensorRT this may take minutes, while the plan is built.

    Raises
    ------
    DeviceAbsentError
        No GPU, or the back end is not installed: nothing else is taken in its place.
    UsageError
        Unknown back end.
    ModelError
        The network cannot be built or run there.
    """
    if backend not in DEVICE_BACKENDS:
        raise UsageError(f"unknown back end {backend!r} for a GPU; known: {', '.join(DEVICE_BACKENDS)}")
    device = _device()
    from atomid_live.backends.device import DeviceDetector
    from atomid_live.backends.device_networks import OrtCudaNetwork, torch_network
    from atomid_live.kernels.launch import CudaLauncher

    run = CudaLauncher(device.index)
    if backend == "tensorrt":
        network: Any = _tensorrt_network(engine, precision, tell)
    elif backend == "torch-cuda":
        network = torch_network(engine, device, half=precision == "fp16")
    else:
        network = OrtCudaNetwork(engine, device, "fp32" if precision == "auto" else precision)
    return DeviceDetector(engine, network, run, detect, frame)


def serve_tensorrt(
    engine: Engine, first: Detector, detect: DetectSettings | None = None, frame: FrameSettings | None = None, *,
    asked: bool, tell: Tell = log.info,
) -> Detector:  # fmt: skip
    """Serve with `first` until TensorRT is ready; when `asked` for by name, an absent device is an error at once.

    Returns `first` itself when no GPU or no TensorRT is here and it was not asked for.
    """
    try:
        _device()
        from atomid_live.backends.tensorrt_build import import_tensorrt

        import_tensorrt()
    except DeviceAbsentError as error:
        if asked:
            raise
        log.debug("no GPU: %s", error)
        return first
    return ServingDetector(first, lambda: open_device(engine, "tensorrt", detect, frame, tell=tell), asked=asked, tell=tell)


def detector_for(
    engine: Engine, backend: str, on_processor: Callable[[], Detector], detect: DetectSettings | None = None,
    frame: FrameSettings | None = None, *, tell: Tell = log.info,
) -> Detector:  # fmt: skip
    """Return the detector of an engine for any value of `--backend`.

    Parameters
    ----------
    engine : Engine
    backend : str
        "auto" takes the GPU when it and TensorRT are healthy; a name of `DEVICE_BACKENDS` insists on it; others do not ask.
    on_processor : callable
        Makes the detector that serves without a GPU, and until TensorRT's plan is ready.
    detect, frame : DetectSettings, FrameSettings
    tell : callable
        Hears when another detector takes over, and the steps of a build.

    Raises
    ------
    DeviceAbsentError
        A GPU was asked for by name and cannot be used.
    """
    if backend in ("torch-cuda", "onnxruntime-cuda"):
        return open_device(engine, backend, detect, frame, tell=tell)
    if backend == "tensorrt":
        _device()  # before time is spent on the processor's detector
        return serve_tensorrt(engine, on_processor(), detect, frame, asked=True, tell=tell)
    if backend == "auto":
        return serve_tensorrt(engine, on_processor(), detect, frame, asked=False, tell=tell)
    return on_processor()
