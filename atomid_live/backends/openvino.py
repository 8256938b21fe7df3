"""The network on OpenVINO: the fastest runtime on a processor for every network tried."""

from __future__ import annotations

from collections import Counter, OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from atomid_live.backends.engine import Engine
from atomid_live.errors import ModelError
from atomid_live.protocols import Maps, Network

# A session meets few sizes, because they are rounded up to a multiple of this before they come here.
_SIDE_STEP = 64
_SIZES_KEPT = 16
# A size used so often belongs to a session that goes on, rather than to a single file.
_SESSION_USES = 3
_Shape = tuple[int, int]


def neighbours(shape: _Shape) -> list[_Shape]:
    """Sizes a session may ask for next, as the scale of its frames wavers: one step up or down along each side or both."""
    rows, cols = shape
    moves = [(1, 1), (-1, -1)] if rows == cols else [(1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0)]
    near = [(rows + _SIDE_STEP * y, cols + _SIDE_STEP * x) for y, x in moves]
    return [size for size in near if min(size) >= _SIDE_STEP]


class OpenVinoNetwork:
    """Engine compiled per image size on the processor; answers are copied out, so they stay valid.

    A size takes some 100 ms to compile. When one is used again and again, its neighbours are compiled behind the session's
    back, so that a scale that wavers about a step does not hold up a frame. A model of open size would need no such care,
    but takes a fifth longer for every frame.
    """

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
        self._compiled: OrderedDict[_Shape, Future[Any]] = OrderedDict()
        self._uses: Counter[_Shape] = Counter()
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="network sizes")

    @property
    def name(self) -> str:
        """Back end, engine and precision."""
        return self._name

    def _compile(self, shape: _Shape) -> Any:
        try:
            model = self._core.read_model(self._data)
            model.reshape([1, 1, *shape])
            return self._core.compile_model(model, "CPU", self._options).create_infer_request()
        except RuntimeError as error:
            raise ModelError(f"{self._name} cannot be compiled for images of {shape}: {error}") from error

    def _request(self, shape: _Shape) -> Any:
        known = self._compiled.get(shape)
        if known is None or known.cancel() or (known.done() and known.exception() is not None):
            known = Future()
            known.set_result(self._compile(shape))
            self._compiled[shape] = known
        request = known.result()
        self._uses[shape] += 1
        if self._uses[shape] == _SESSION_USES:
            self._foresee(shape)
        self._compiled.move_to_end(shape)
        while len(self._compiled) > _SIZES_KEPT:
            gone, request_gone = self._compiled.popitem(last=False)
            request_gone.cancel()
            del self._uses[gone]
        return request

    def _foresee(self, shape: _Shape) -> None:
        for size in neighbours(shape):
            if size not in self._compiled:
                self._compiled[size] = self._compiler.submit(self._compile, size)

    def infer(self, image: NDArray[np.float32]) -> Maps:
        """Run one image of shape (rows, cols), both multiples of 16."""
        rows, cols = image.shape
        request = self._request((rows, cols))
        request.infer([np.ascontiguousarray(image, np.float32).reshape(1, 1, rows, cols)])
        confidence = request.get_tensor("confidence").data.reshape(rows // self._stride, cols // self._stride).copy()
        sizes = (float(request.get_tensor(name).data.ravel()[0]) for name in ("spacing_px", "column_sigma_px"))
        return Maps(confidence, self._stride, *sizes)

    @property
    def sizes(self) -> set[_Shape]:
        """Sizes for which no frame has to wait."""
        return {shape for shape, one in self._compiled.items() if one.done() and not one.cancelled() and not one.exception()}

    def close(self) -> None:
        """Release the compiled models; what is being compiled is waited for."""
        self._compiler.shutdown(cancel_futures=True)
        self._compiled.clear()


def open_network(engine: Engine, threads: int, precision: str) -> Network:
    """Open an engine's network."""
    return OpenVinoNetwork(engine, threads, precision)
