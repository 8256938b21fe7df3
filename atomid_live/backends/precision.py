"""The same network in fewer bits, as ONNX files that say so themselves, for strongly typed builders and ONNX Runtime alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomid_live.backends.calibration_frames import calibration_recipe
from atomid_live.backends.engine import Engine
from atomid_live.backends.onnx_guard import check_onnx
from atomid_live.backends.plan_cache import PlanCache
from atomid_live.errors import ModelError, UsageError

PRECISIONS = ("fp32", "fp16", "int8")
INT8_FILE = "model_int8.onnx"
# The last layers decide the height of a peak and the sizes, and cost little: they stay in float.
EXACT_PARTS = ("/head/", "/sizes/")
# Rises when `eight_bit` changes.
QUANTISER = 1


def _packages() -> Any:
    try:
        import onnx
        from onnxruntime.transformers import float16
    except ImportError as error:
        raise UsageError(f"other precisions need the package {error.name!r}; pip install 'atomid-live[gpu]'") from error
    return onnx, float16


def _sort(graph: Any) -> None:
    """Put each node after those it reads from, which the converter does not see to."""
    known = {item.name for item in [*graph.input, *graph.initializer]} | {""}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        if not ready:
            raise ModelError("the network's nodes read from each other in a circle; export the model again")
        for node in ready:
            known.update(node.output)
        ordered += ready
        waiting = [node for node in waiting if not any(node is other for other in ready)]
    del graph.node[:]
    graph.node.extend(ordered)


def _plain(onnx_bytes: bytes) -> bytes:
    """Without imports of operator sets that no node uses; our guard and others refuse foreign ones."""
    onnx, _ = _packages()
    model = onnx.load_from_string(onnx_bytes)
    used = {node.domain for node in model.graph.node}
    kept = [item for item in model.opset_import if item.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def half(onnx_bytes: bytes) -> bytes:
    """Network with 16-bit weights and activations; inputs and outputs stay 32-bit."""
    onnx, float16 = _packages()
    model = float16.convert_float_to_float16(onnx.load_from_string(onnx_bytes), keep_io_types=True)
    _sort(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def eight_bit(onnx_bytes: bytes, images: Iterable[NDArray[np.float32]], keep_float: tuple[str, ...] = ()) -> bytes:
    """Network with explicit, symmetric quantise and dequantise nodes (zero points 0, as TensorRT wants them).

    Parameters
    ----------
    onnx_bytes : bytes
    images : iterable of ndarray, shape (1, 1, rows, cols), float32
        For the ranges; some dozens of normalised frames.
    keep_float : tuple of str
        Names of nodes that stay in float.
    """
    _packages()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._rest: Iterator[NDArray[np.float32]] = iter(images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self._rest, None)
            return None if image is None else {"image": image}

    with TemporaryDirectory() as folder:
        source, ready, target = (Path(folder, name) for name in ("a.onnx", "b.onnx", "c.onnx"))
        source.write_bytes(onnx_bytes)
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Add"],
            nodes_to_exclude=list(keep_float),
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "AddQDQPairToWeight": True},
        )
        return _plain(target.read_bytes())


def asymmetric(onnx_bytes: bytes) -> list[str]:
    """Names of nodes whose zero point is not nought: TensorRT refuses them."""
    onnx, _ = _packages()
    graph = onnx.load_from_string(onnx_bytes).graph
    values = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2]
    return [node.name for node in nodes if np.any(values.get(node.input[2], np.zeros(1)))]


def exact_nodes(onnx_bytes: bytes) -> tuple[str, ...]:
    """Names of the convolutions that stay in float."""
    onnx, _ = _packages()
    nodes = onnx.load_from_string(onnx_bytes).graph.node
    return tuple(node.name for node in nodes if node.op_type == "Conv" and any(part in node.name for part in EXACT_PARTS))


def calibrated(onnx_bytes: bytes, cache: PlanCache | None = None) -> bytes:
    """Symmetric eight-bit network, calibrated on the simulated frames of `calibration/int8`; kept in `cache` if given.

    Made once, so that its hash, and with it the plan's key, does not hang on the order of this PC's sums.
    """
    recipe = calibration_recipe()
    network = hashlib.sha256(onnx_bytes).hexdigest()
    name = hashlib.sha256(f"{network} {recipe.digest} {QUANTISER}".encode()).hexdigest()
    kept = cache.graph(name) if cache is not None else b""
    if kept:
        check_onnx(Path(name), kept)
        return kept
    made = eight_bit(onnx_bytes, recipe.images(), exact_nodes(onnx_bytes))
    if cache is not None:
        cache.store_graph(name, made)
    return made


def graph_for(engine: Engine, precision: str, cache: PlanCache | None = None) -> bytes:
    """ONNX file of an engine in a precision, for the plan builder.

    Parameters
    ----------
    engine : Engine
    precision : str
        "fp32", "fp16" or "int8". An engine whose own eight-bit file is not symmetric, or is not there, is calibrated here,
        which takes seconds.
    cache : PlanCache or None
        Keeps what was calibrated.

    Raises
    ------
    UsageError
        Unknown precision, or a package for the conversion is not installed.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    whole = engine.read(engine.file_for("fp32"))
    if precision == "fp32":
        return whole
    if precision == "fp16":
        return half(whole)
    if INT8_FILE in engine.card["files"]:
        shipped = engine.read(INT8_FILE)
        if not asymmetric(shipped):
            return shipped
    return calibrated(whole, cache)
