"""The network on OpenVINO: the fastest runtime on a processor for every network tried."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from atomid_live.backends.engine import Engine
from atomid_live.errors import ModelError
from atomid_live.protocols import Maps, Network

# Compiled once per image size; a session meets few, because sizes are rounded up before they come here.
_SIZES_KEPT = 8


class OpenVinoNetwork:
    """Engine compiled per image size on the processor; answers are copied out, so they stay valid."""

    def __init__(self, engine: Engine, threads: int, precision: str) -> None:
        self._core = openvino.Core()
        # Pinning puts parallel workers on one core.
        self._options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        file = engine.file_for(precision)
        self._data = engine.read(file)
        self._name = f"openvino:{engine.name}" + ("-int8" if "int8" in file else "")
        self._stride = engine.stride
        self._requests: OrderedDict[tuple[int, int], Any] = OrderedDict()

    @property
    def name(self) -> str:
        """Back end, engine and precision."""
        return self._name

    def _request(self, shape: tuple[int, int]) -> Any:
        if shape in self._requests:
            self._requests.move_to_end(shape)
            return self._requests[shape]
        try:
            model = self._core.read_model(self._data)
            model.reshape([1, 1, *shape])
            request = self._core.compile_model(model, "CPU", self._options).create_infer_request()
        except RuntimeError as error:
            raise ModelError(f"{self._name} cannot be compiled for images of {shape}: {error}") from error
        self._requests[shape] = request
        if len(self._requests) > _SIZES_KEPT:
            self._requests.popitem(last=False)
        return request

    def infer(self, image: NDArray[np.float32]) -> Maps:
        """Run one image of shape (rows, cols), both multiples of 16."""
        rows, cols = image.shape
        request = self._request((rows, cols))
        request.infer([np.ascontiguousarray(image, np.float32).reshape(1, 1, rows, cols)])
        confidence = request.get_tensor("confidence").data.reshape(rows // self._stride, cols // self._stride).copy()
        sizes = (float(request.get_tensor(name).data.ravel()[0]) for name in ("spacing_px", "column_sigma_px"))
        return Maps(confidence, self._stride, *sizes)

    def close(self) -> None:
        """Release the compiled models."""
        self._requests.clear()


def open_network(engine: Engine, threads: int, precision: str) -> Network:
    """Open an engine's network."""
    return OpenVinoNetwork(engine, threads, precision)
