"""fp16 and int8 files of one network: valid ONNX, symmetric, close to fp32 on the processor."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bandpass import lattice_frame

from atomid_live.backends import precision
from atomid_live.backends.engine import Engine
from atomid_live.detect.local_contrast import local_contrast
from atomid_live.errors import ModelError, UsageError

pytest.importorskip("onnx", reason="onnx is not installed")


def images(count: int = 6) -> Iterator[Any]:
    """Normalised frames (1, 1, 128, 192)."""
    for seed in range(count):
        yield local_contrast(lattice_frame((128, 192), seed=seed).pixels.astype(np.float32))[None, None]


def answers(data: bytes) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return [session.run(["confidence"], {"image": image})[0][0, 0] for image in images(3)]


@pytest.fixture
def files(engine: Engine) -> dict[str, bytes]:
    """The network in three precisions."""
    fp32 = engine.read("model.onnx")
    return {"fp32": fp32, "fp16": precision.half(fp32), "int8": precision.eight_bit(fp32, images())}


def test_fewer_bits_stay_close_to_fp32(files: dict[str, bytes]) -> None:
    exact = answers(files["fp32"])
    for kind, most in (("fp16", 2e-3), ("int8", 4e-2)):
        off = max(float(np.abs(a - b).max()) for a, b in zip(answers(files[kind]), exact, strict=True))
        assert 1e-7 < off < most, kind


def test_peaks_of_fewer_bits_are_those_of_fp32(files: dict[str, bytes]) -> None:
    from atomid_live.detect.peaks import find_peaks

    exact, half = ([find_peaks(heat, 0.4, 2.0)[0] for heat in answers(files[kind])] for kind in ("fp32", "fp16"))
    assert sum(map(len, exact)) > 100
    for a, b in zip(exact, half, strict=True):
        assert abs(len(a) - len(b)) <= max(1, len(a) // 50)


def test_fp16_is_a_half_graph_with_float_ends(files: dict[str, bytes]) -> None:
    import onnx

    model = onnx.load_from_string(files["fp16"])
    kinds = {item.type.tensor_type.elem_type for item in [*model.graph.input, *model.graph.output]}
    assert kinds == {onnx.TensorProto.FLOAT}
    assert any(item.data_type == onnx.TensorProto.FLOAT16 for item in model.graph.initializer)


def test_int8_is_explicit_and_symmetric(files: dict[str, bytes]) -> None:
    import onnx

    operators = [node.op_type for node in onnx.load_from_string(files["int8"]).graph.node]
    assert operators.count("QuantizeLinear") >= 1
    assert operators.count("DequantizeLinear") >= 2
    assert precision.asymmetric(files["int8"]) == []


def test_every_file_passes_the_onnx_checker_and_our_guard(files: dict[str, bytes]) -> None:
    import onnx

    from atomid_live.backends.onnx_guard import check_onnx

    for kind, data in files.items():
        onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
        check_onnx(Path(f"{kind}.onnx"), data)


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8"])
def test_polygraphy_finds_nothing_to_say(files: dict[str, bytes], kind: str, tmp_path: Path) -> None:
    if find_spec("polygraphy") is None:
        pytest.skip("polygraphy is not installed; the `test` extra has it")
    path = tmp_path / f"{kind}.onnx"
    path.write_bytes(files[kind])
    program = "import sys; from polygraphy.tools import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "check", "lint", str(path), "--input-shapes", "image:[1,1,128,192]"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "| error" not in ran.stdout.lower()


def test_uneven_int8_is_refused(files: dict[str, bytes], engine: Engine) -> None:
    import onnx

    model = onnx.load_from_string(files["int8"])
    points = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2}
    for item in model.graph.initializer:
        if item.name in points:
            item.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(item) + np.int8(3), item.name))
    data = bytes(model.SerializeToString())
    assert precision.asymmetric(data)
    import hashlib

    (engine.folder / precision.INT8_FILE).write_bytes(data)
    listed = {**engine.card["files"], precision.INT8_FILE: hashlib.sha256(data).hexdigest()}
    uneven = replace(engine, card={**engine.card, "files": listed})
    with pytest.raises(ModelError, match="TensorRT refuses"):
        precision.graph_for(uneven, "int8")


def test_unknown_and_missing_precisions_are_named(engine: Engine) -> None:
    with pytest.raises(UsageError, match="fp32, fp16, int8"):
        precision.graph_for(engine, "fp8")
    with pytest.raises(UsageError, match="int8"):
        precision.graph_for(engine, "int8")
