"""An engine is opened when its files fit its card and hold plain arithmetic, and refused with the reason otherwise."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from atomid_live.backends import BACKENDS, open_network  # noqa: E402
from atomid_live.backends.engine import CARD, engine_names, find_engine, load_engine  # noqa: E402
from atomid_live.errors import ModelError, UsageError  # noqa: E402


def _model(domain: str = "") -> Any:
    """A quarter of the image's mean over 2x2 cells as confidence, and fixed sizes: small, but run for real."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, None, None])
    outputs = [
        helper.make_tensor_value_info("confidence", TensorProto.FLOAT, [1, 1, None, None]),
        helper.make_tensor_value_info("spacing_px", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("column_sigma_px", TensorProto.FLOAT, [1]),
    ]
    quarter = numpy_helper.from_array(np.array(0.25, np.float32), "quarter")
    fixed = [numpy_helper.from_array(np.array([value], np.float32), f"fixed{value}") for value in (11.0, 2.0)]
    nodes = [
        helper.make_node("AveragePool", ["image"], ["mean"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Mul", ["mean", "quarter"], ["confidence"], domain=domain),
        helper.make_node("Identity", ["fixed11.0"], ["spacing_px"]),
        helper.make_node("Identity", ["fixed2.0"], ["column_sigma_px"]),
    ]
    graph = helper.make_graph(nodes, "g", [image], outputs, [quarter, *fixed])
    imports = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def _write(folder: Path, data: bytes, **changes: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    digest = changes.get("digest", hashlib.sha256(data).hexdigest())
    schema = changes.get("schema", "1")
    (folder / CARD).write_text(
        f'schema = {schema}\nname = "probe"\n[files]\n"model.onnx" = "{digest}"\n[input]\ncanonical_sigma_px = 1.9\n'
        "[output]\nstride = 2\n[threshold]\nx = 0.5\n",
        encoding="utf-8",
    )
    return folder


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_runs_any_size_on_each_runtime(tmp_path: Path, backend: str) -> None:
    network = open_network(load_engine(_write(tmp_path / "m", _model().SerializeToString())), backend, 1)
    rng = np.random.default_rng(0)
    kept = None
    for shape in ((32, 48), (64, 32), (32, 48)):
        image = rng.random(shape, dtype=np.float32)
        maps = network.infer(image)
        expected = image.reshape(shape[0] // 2, 2, shape[1] // 2, 2).mean((1, 3)) / 4
        assert maps.confidence == pytest.approx(expected, abs=1e-6)
        assert (maps.stride, maps.spacing_px, maps.column_sigma_px) == (2, 11.0, 2.0)
        if kept is not None:
            assert kept[0] == pytest.approx(kept[1], abs=1e-6)  # an answer outlives the next call
        kept = (maps.confidence, expected)
    network.close()
    network.close()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((128, 128), {(64, 64), (128, 128), (192, 192)}),
        ((64, 128), {(64, 128), (128, 192), (64, 192), (64, 64), (128, 128)}),
    ],
)
def test_sizes_beside_one_that_is_used_often_are_compiled_ahead(
    tmp_path: Path, shape: tuple[int, int], expected: set[tuple[int, int]]
) -> None:
    """So that a scale that wavers holds up no frame; but not for a single file."""
    from atomid_live.backends.openvino import OpenVinoNetwork

    network = OpenVinoNetwork(load_engine(_write(tmp_path / "m", _model().SerializeToString())), 1, "auto")
    image = np.ones(shape, np.float32)
    for _ in range(2):
        network.infer(image)
    assert network.sizes == {shape}
    network.infer(image)
    until = time.monotonic() + 20
    while network.sizes != expected and time.monotonic() < until:
        time.sleep(0.01)
    assert network.sizes == expected
    assert network.infer(np.ones((64, 64), np.float32)).confidence == pytest.approx(0.25)
    network.close()


def test_few_sizes_are_kept(tmp_path: Path) -> None:
    """However many a session meets, and one that was given up is compiled again when it returns."""
    from atomid_live.backends.openvino import _SIZES_KEPT, OpenVinoNetwork

    network = OpenVinoNetwork(load_engine(_write(tmp_path / "m", _model().SerializeToString())), 1, "auto")
    for cols in range(1, _SIZES_KEPT + 4):
        network.infer(np.ones((16, 16 * cols), np.float32))
    assert len(network.sizes) == _SIZES_KEPT
    assert (16, 16) not in network.sizes
    assert network.infer(np.ones((16, 16), np.float32)).confidence == pytest.approx(0.25)
    network.close()


def test_card_gives_name_scale_and_hash(tmp_path: Path) -> None:
    data = _model().SerializeToString()
    engine = load_engine(_write(tmp_path / "m", data))
    assert (engine.name, engine.canonical_sigma_px, engine.stride) == ("probe", 1.9, 2)
    assert engine.sha256 == hashlib.sha256(data).hexdigest()
    with pytest.raises(UsageError, match=r"no precision 'int8'.*model\.onnx"):
        engine.file_for("int8")


def test_changed_file_is_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path / "m", _model().SerializeToString())
    data = bytearray((folder / "model.onnx").read_bytes())
    data[-10] ^= 1
    (folder / "model.onnx").write_bytes(bytes(data))
    with pytest.raises(ModelError, match=r"SHA-256 is .*card says.*fetch or train"):
        open_network(load_engine(folder), "onnxruntime")
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match="the card lists it"):
        open_network(load_engine(folder), "onnxruntime")


def _external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def _local_function(model: Any) -> None:
    body = [helper.make_node("Identity", ["a"], ["b"])]
    model.functions.add().CopyFrom(helper.make_function("local", "f", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))


def _external_in_branch(model: Any) -> None:
    inner = helper.make_graph([], "inner", [], [], [numpy_helper.from_array(np.zeros(3, np.float32), "w")])
    inner.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(_external, "second file"), (_local_function, "functions"), (_external_in_branch, "second file")],
)
def test_models_that_reach_outside_are_refused(tmp_path: Path, spoil: Callable[[Any], None], reason: str) -> None:
    model = _model()
    spoil(model)
    with pytest.raises(ModelError, match=reason):
        open_network(load_engine(_write(tmp_path / "m", model.SerializeToString())), "onnxruntime")


def test_foreign_operators_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"domain 'com\.evil'"):
        open_network(load_engine(_write(tmp_path / "m", _model("com.evil").SerializeToString())), "onnxruntime")


@pytest.mark.parametrize("data", [b"", b"not onnx at all", b"\x3a\xff\xff\xff\xff\x7f", b"\x00" * 40])
def test_other_files_are_not_taken_for_models(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelError, match="not a valid ONNX"):
        open_network(load_engine(_write(tmp_path / "m", data)), "openvino")


def test_bad_cards_are_refused(tmp_path: Path) -> None:
    data = _model().SerializeToString()
    with pytest.raises(ModelError, match="schema 9, this program reads 1"):
        load_engine(_write(tmp_path / "a", data, schema="9"))
    folder = _write(tmp_path / "b", data)
    (folder / CARD).write_text("schema = 1\n", encoding="utf-8")
    with pytest.raises(ModelError, match="needs 'name'"):
        load_engine(folder)
    (folder / CARD).write_text("schema = ", encoding="utf-8")
    with pytest.raises(ModelError, match="not a readable card"):
        load_engine(folder)


def test_names_are_looked_up_and_paths_do_not_escape(tmp_path: Path) -> None:
    folder = _write(tmp_path / "m", _model().SerializeToString())
    assert find_engine(str(folder)) == folder
    for name in engine_names():
        found = find_engine(name)
        assert found is not None and load_engine(found).name == name
    for wrong in ("no-such-model", "../engines", "..", ""):
        with pytest.raises(UsageError, match="known: dog"):
            find_engine(wrong)


def test_unknown_back_end_names_the_known(tmp_path: Path) -> None:
    engine = load_engine(_write(tmp_path / "m", _model().SerializeToString()))
    with pytest.raises(UsageError, match=", ".join(BACKENDS)):
        open_network(engine, "cuda")
