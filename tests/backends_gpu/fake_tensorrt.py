"""A stand-in for TensorRT that keeps its rules of call order and runs the ONNX file on the processor.

It proves that our calls come in a right order, with right names and numbers of arguments (`tensorrt_surface.json`, which the
real bindings confirm), and that every failure is turned into an error. It proves nothing about plans, speed or a GPU.
"""

from __future__ import annotations

import ctypes
import enum
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime

STAMP = b"FAKE PLAN "


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.made = True


class IProgressMonitor:
    def __init__(self) -> None:
        self.made = True


NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 0})
MemoryPoolType = enum.IntEnum("MemoryPoolType", {"WORKSPACE": 0})
BuilderFlag = enum.IntEnum("BuilderFlag", {"TF32": 6})
TensorIOMode = enum.IntEnum("TensorIOMode", {"INPUT": 1, "OUTPUT": 2})
DataType = enum.IntEnum("DataType", {"FLOAT": 0, "HALF": 1})


@dataclass
class Faults:
    """What is to go wrong, and what was called."""

    kinds: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    version: str = "11.4.0.106"

    def hit(self, kind: str, logger: Any = None, text: str = "") -> bool:
        """Whether this fails now; the reason goes to the log as TensorRT's would."""
        self.calls.append(kind)
        if kind in self.kinds and logger is not None:
            logger.log(Severity.ERROR, text or f"fake fault: {kind}")
        return kind in self.kinds


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class ITensor:
    name = "image"


class ITimingCache:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._data + b"+")


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: tuple[Any, ...] = ()

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes = (tuple(min), tuple(opt), tuple(max))


def fake_module(faults: Faults) -> ModuleType:
    """Make the module; the classes below share the faults."""
    module = ModuleType("tensorrt")

    def checked(logger: Any) -> Any:
        if not isinstance(logger, ILogger) or not logger.made:
            raise TypeError("the base class of the logger was not initialised")
        return logger

    class INetworkDefinition:
        def __init__(self, logger: Any) -> None:
            self._logger, self._onnx = logger, b""

        @property
        def num_inputs(self) -> int:
            return 1

        def get_input(self, index: int) -> ITensor:
            return ITensor()

    class OnnxParser:
        def __init__(self, network: Any, logger: Any) -> None:
            self._network, self._logger = network, checked(logger)

        def parse(self, model: bytes) -> bool:
            self._network._onnx = bytes(model)
            return not faults.hit("parse", self._logger)

        @property
        def num_errors(self) -> int:
            return int("parse" in faults.kinds)

        def get_error(self, index: int) -> str:
            return "In node 3 (importModel): UNSUPPORTED_NODE"

    class IBuilderConfig:
        def __init__(self) -> None:
            self._profiles: list[Any] = []
            self._cache: Any = None
            self.builder_optimization_level = 3
            self.progress_monitor: Any = None

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            faults.calls.append(f"{pool.name} {pool_size}")

        def clear_flag(self, flag: Any) -> None:
            faults.calls.append(f"clear {flag.name}")

        def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
            return ITimingCache(bytes(serialized_timing_cache))

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            if faults.hit("timing cache") and not ignore_mismatch:
                return False
            self._cache = cache
            return True

        def get_timing_cache(self) -> Any:
            return self._cache

        def add_optimization_profile(self, profile: Any) -> int:
            if faults.hit("profile"):
                return -1
            self._profiles.append(profile)
            return len(self._profiles) - 1

    class Builder:
        def __init__(self, logger: Any) -> None:
            self._logger = checked(logger)
            if faults.hit("builder", self._logger, "CUDA initialization failure with error: 35"):
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def create_network(self, flags: int = 0) -> Any:
            assert flags == 1 << 0, "without STRONGLY_TYPED, TensorRT 10 chooses precisions by itself"
            return INetworkDefinition(self._logger)

        def create_builder_config(self) -> Any:
            return IBuilderConfig()

        def create_optimization_profile(self) -> Any:
            return IOptimizationProfile()

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            if faults.hit(
                "build", self._logger, "Could not find any implementation for node Conv_0 due to insufficient workspace"
            ):
                return None
            assert config._profiles, "a network with open shapes needs a profile"
            if config.progress_monitor is not None:
                config.progress_monitor.phase_start("Building engine", "", 2)
                assert config.progress_monitor.step_complete("Building engine", 0)
                config.progress_monitor.phase_finish("Building engine")
            shapes = repr([profile._shapes for profile in config._profiles]).encode()
            return IHostMemory(STAMP + faults.version.encode() + b"\n" + shapes + b"\n" + network._onnx)

    class IExecutionContext:
        def __init__(self, plan: Any) -> None:
            self._plan, self._shape, self._places = plan, (), dict[str, int]()
            self.active_optimization_profile = 0

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            self.active_optimization_profile = profile_index
            return not faults.hit("set profile", self._plan._logger)

        def set_input_shape(self, name: str, shape: Any) -> bool:
            least, _, most = self._plan._profiles[self.active_optimization_profile]
            self._shape = tuple(shape)
            fits = all(a <= b <= c for a, b, c in zip(least, self._shape, most, strict=True))
            return fits and not faults.hit("shape", self._plan._logger)

        def infer_shapes(self) -> list[str]:
            return ["confidence"] if faults.hit("infer") else []

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            assert self._shape, "shapes of outputs are known once that of the input is"
            if name == "image":
                return self._shape
            outputs = self._plan._session.run([name], {"image": np.zeros(self._shape, np.float32)})
            shape: tuple[int, ...] = outputs[0].shape
            return (1, 1, *self._shape[2:]) if "stride" in faults.kinds and name == "confidence" else shape

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self._places[name] = memory
            return not faults.hit("address", self._plan._logger)

        def execute_async_v3(self, stream_handle: int) -> bool:
            assert stream_handle != 0, "the default stream waits for the whole device"
            assert set(self._places) == set(self._plan._names), "every tensor needs an address"
            if faults.hit(
                "execute", self._plan._logger, "Error Code 1: Cuda Runtime (an illegal memory access was encountered)"
            ):
                return False
            image = _view(self._places["image"], self._shape).copy()
            outputs = self._plan._session.run(self._plan._names[1:], {"image": image})
            for name, value in zip(self._plan._names[1:], outputs, strict=True):
                _view(self._places[name], value.shape)[...] = value
            return True

    class ICudaEngine:
        def __init__(self, profiles: Any, onnx: bytes, logger: Any) -> None:
            self._profiles, self._logger = profiles, logger
            self._session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
            self._names = ["image", *(output.name for output in self._session.get_outputs())]

        @property
        def num_io_tensors(self) -> int:
            return len(self._names)

        @property
        def num_optimization_profiles(self) -> int:
            return len(self._profiles)

        def get_tensor_name(self, index: int) -> str:
            return str(self._names[index])

        def get_tensor_mode(self, name: str) -> Any:
            return TensorIOMode["INPUT" if name == "image" else "OUTPUT"]

        def get_tensor_dtype(self, name: str) -> Any:
            return DataType["HALF" if faults.hit("dtype") else "FLOAT"]

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
            return list(self._profiles[profile_index])

        def create_execution_context(self) -> Any:
            return None if faults.hit("context", self._logger, "OutOfMemory") else IExecutionContext(self)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = checked(logger)

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
            head, shapes, onnx = bytes(serialized_engine).split(b"\n", 2)
            if head != STAMP + faults.version.encode() or faults.hit("deserialise"):
                self._logger.log(Severity.ERROR, "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed")
                return None
            return ICudaEngine(eval(shapes), onnx, self._logger)

    parts = (
        ILogger, IProgressMonitor, Builder, INetworkDefinition, ITensor, OnnxParser, IBuilderConfig, IOptimizationProfile,
        ITimingCache, IHostMemory, Runtime, ICudaEngine, IExecutionContext, NetworkDefinitionCreationFlag, MemoryPoolType,
        BuilderFlag, TensorIOMode, DataType,
    )  # fmt: skip
    for part in parts:
        setattr(module, part.__name__, part)
    module.__dict__["__version__"] = faults.version
    return module


def _view(address: int, shape: tuple[int, ...]) -> Any:
    size = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * size).from_address(address)).reshape(shape)
