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

from atomid_live.backends import calibration_frames, precision
from atomid_live.backends.engine import Engine
from atomid_live.detect.local_contrast import local_contrast
from atomid_live.errors import ModelError, UsageError
from atomid_live.gpu_check.bandpass import lattice_frame

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


@pytest.mark.slow
def test_the_shipped_network_in_fewer_bits_finds_the_same_columns() -> None:
    """Whole detector, shipped engine, a crystal, a dirty one and noise: the bars are those a plan is shipped by."""
    from itertools import islice

    from atomid_live.backends.engine import find_engine, load_engine
    from atomid_live.evaluate.parity import compare, parity_table, small_frames, versions

    folder = find_engine()
    if folder is None:
        pytest.skip("no engine ships")
    shipped = load_engine(folder)
    rows = compare(shipped, versions(shipped), islice(small_frames(700_000), 0, None, 4))
    exact, half, eight, *_ = rows
    assert exact.columns > 1000
    assert (exact.lost, exact.more, exact.rms_px) == (0, 0, 0.0)
    assert half.lost + half.more <= 0.002 * exact.columns, parity_table(rows)
    assert eight.lost + eight.more <= 0.03 * exact.columns, parity_table(rows)
    assert half.rms_px < 0.03
    assert eight.rms_px < 0.16
    # one frame in which the judge changes its mind moves the mean of seven by a hundredth
    assert abs(half.f1_change) < 0.002 + 2.0 * half.f1_change_sem
    assert abs(eight.f1_change) < 0.004 + 2.0 * eight.f1_change_sem
    assert "| fp16 |" in parity_table(rows)


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


def test_polygraphy_finds_nothing_to_say_of_the_shipped_network(tmp_path: Path) -> None:
    """The three files that plans are built from, linted as a user of TensorRT would; and a broken one, which it must notice."""
    from atomid_live.backends.engine import find_engine, load_engine

    if find_spec("polygraphy") is None:
        pytest.skip("polygraphy is not installed; the `test` extra has it")
    folder = find_engine()
    if folder is None:
        pytest.skip("no engine ships")
    shipped = load_engine(folder)
    data = {kind: precision.graph_for(shipped, kind) for kind in precision.PRECISIONS}
    for kind in precision.PRECISIONS:
        (tmp_path / f"{kind}.onnx").write_bytes(data[kind])
    (tmp_path / "broken.onnx").write_bytes(_without_its_first_weight(data["fp32"]))
    ran = subprocess.run([sys.executable, "-c", _LINT, *map(str, sorted(tmp_path.glob("*.onnx")))],
                         capture_output=True, text=True, check=False, timeout=120)  # fmt: skip
    verdicts = dict(line.split()[1:] for line in ran.stdout.splitlines() if line.startswith("VERDICT "))
    assert verdicts == {"broken": "1", "fp16": "0", "fp32": "0", "int8": "0"}, ran.stdout + ran.stderr


_LINT = """
import sys
from pathlib import Path
from polygraphy.tools import main
for path in sys.argv[1:]:
    sys.argv = ["polygraphy", "check", "lint", path, "--input-shapes", "image:[1,1,128,192]"]
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    print("VERDICT", Path(path).stem, int(bool(code)), flush=True)
"""


def _without_its_first_weight(data: bytes) -> bytes:
    import onnx

    model = onnx.load_from_string(data)
    del model.graph.initializer[0]
    return bytes(model.SerializeToString())


def test_an_uneven_int8_file_is_replaced_by_one_made_here(files: dict[str, bytes], engine: Engine, tmp_path: Path) -> None:
    """OpenVINO's files may shift their zero points, which TensorRT refuses; what is made here does not, and is made once."""
    import hashlib

    import onnx

    from atomid_live.backends.plan_cache import PlanCache

    model = onnx.load_from_string(files["int8"])
    points = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2}
    for item in model.graph.initializer:
        if item.name in points:
            item.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(item) + np.int8(3), item.name))
    data = bytes(model.SerializeToString())
    assert precision.asymmetric(data)
    (engine.folder / precision.INT8_FILE).write_bytes(data)
    listed = {**engine.card["files"], precision.INT8_FILE: hashlib.sha256(data).hexdigest()}
    uneven = replace(engine, card={**engine.card, "files": listed})
    cache = PlanCache(tmp_path / "plans")
    made = precision.graph_for(uneven, "int8", cache)
    assert precision.asymmetric(made) == []
    assert [path.read_bytes() for path in cache.folder.glob("graph-*")] == [made]
    stored = next(cache.folder.glob("graph-*"))
    stored.write_bytes(files["int8"])
    assert precision.graph_for(uneven, "int8", cache) == files["int8"]
    stored.chmod(0o666)
    assert precision.graph_for(uneven, "int8", cache) == made


def test_a_symmetric_int8_file_is_taken_as_it_is(files: dict[str, bytes], engine: Engine) -> None:
    import hashlib

    (engine.folder / precision.INT8_FILE).write_bytes(files["int8"])
    listed = {**engine.card["files"], precision.INT8_FILE: hashlib.sha256(files["int8"]).hexdigest()}
    own = replace(engine, card={**engine.card, "files": listed})
    assert precision.graph_for(own, "int8") == files["int8"]


def test_calibration_frames_are_the_same_anywhere_and_cover_the_range() -> None:
    recipe = calibration_frames.calibration_recipe()
    first, second = ([image.copy() for image in recipe.images()] for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert {frame.crystal for frame in recipe.frames} >= {"", "mos2", "res2", "srtio3"}
    assert min(f.column_sigma_px for f in recipe.frames) <= 1.3
    assert max(f.column_sigma_px for f in recipe.frames) >= 2.9
    assert max(float(np.abs(image).max()) for image in first) > 5.5


def test_a_broken_list_of_calibration_frames_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "frames.toml"
    monkeypatch.setattr(calibration_frames, "_file", lambda: path)
    for text in ("schema = 2", "schema = 1\nseed = 1\nshape = [8, 8]\nframes = [[1]]", "schema = "):
        path.write_text(text)
        with pytest.raises(ModelError, match="install the program again"):
            calibration_frames.calibration_recipe.__wrapped__()


def test_an_unknown_precision_is_named(engine: Engine) -> None:
    with pytest.raises(UsageError, match="fp32, fp16, int8"):
        precision.graph_for(engine, "fp8")
