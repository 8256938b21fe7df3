"""The network on ONNX Runtime: the alternative where OpenVINO is not to be had."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from atomid_live.backends.engine import Engine
from atomid_live.errors import ModelError
from atomid_live.protocols import Maps, Network


class OnnxRuntimeNetwork:
    """Engine in an inference session on the processor; `data` is an ONNX file made of the engine's, in place of its own."""

    def __init__(self, engine: Engine, threads: int, precision: str, data: bytes | None = None) -> None:
        # Eight-bit is slower than float in this runtime on networks this small.
        file = engine.file_for("fp32" if precision == "auto" else precision)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # A waiting thread that spins takes the core from the rest of the chain.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(data or engine.read(file), options, providers=["CPUExecutionProvider"])
        except (RuntimeError, onnxruntime.capi.onnxruntime_pybind11_state.Fail) as error:
            raise ModelError(f"{engine.folder / file}: ONNX Runtime cannot open it: {error}") from error
        self._name = f"onnxruntime:{engine.name}" + ("-int8" if "int8" in file else "")
        self._stride = engine.stride

    @property
    def name(self) -> str:
        """Back end, engine and precision."""
        return self._name

    def infer(self, image: NDArray[np.float32]) -> Maps:
        """Run one image of shape (rows, cols), both multiples of 16."""
        feed = {"image": np.ascontiguousarray(image, np.float32)[None, None]}
        confidence, spacing, sigma = self._session.run(["confidence", "spacing_px", "column_sigma_px"], feed)
        return Maps(confidence[0, 0], self._stride, float(np.ravel(spacing)[0]), float(np.ravel(sigma)[0]))

    def close(self) -> None:
        """Nothing to release before the object goes."""


def open_network(engine: Engine, threads: int, precision: str) -> Network:
    """Open an engine's network."""
    return OnnxRuntimeNetwork(engine, threads, precision)
