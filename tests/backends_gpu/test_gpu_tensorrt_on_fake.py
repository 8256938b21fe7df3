"""The TensorRT back end against a fake: order of calls and treatment of failures, on both major versions. No plan, no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_tensorrt import Faults, fake_module

from atomid_live.backends import tensorrt_build
from atomid_live.backends.engine import Engine
from atomid_live.backends.plan_cache import PlanCache
from atomid_live.backends.tensorrt import StalePlanError, TensorRtNetwork
from atomid_live.backends.tensorrt_build import BuildRecipe, build_plan, obtain_plan
from atomid_live.errors import DeviceAbsentError, ModelError
from atomid_live.gpu_check.bandpass import lattice_frame

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("pretended_gpu")]
RECIPE = BuildRecipe("fp32", ((256, 256), (512, 512)))


@pytest.fixture(params=["10.16.1.11", "11.4.0.106"])
def faults(request: pytest.FixtureRequest) -> Faults:
    """Nothing goes wrong yet."""
    return Faults(version=request.param)


def network(faults: Faults, engine: Engine) -> TensorRtNetwork:
    trt = fake_module(faults)
    return TensorRtNetwork(trt, engine, build_plan(trt, engine.read("model.onnx"), RECIPE)[0], "fp32")


def image(rows: int = 256, cols: int = 192) -> Any:
    import torch

    return torch.zeros((1, 1, rows, cols))


def test_fake_build_calls_in_order_and_tells_progress(faults: Faults, engine: Engine) -> None:
    told: list[str] = []
    plan, timings = build_plan(fake_module(faults), engine.read("model.onnx"), RECIPE, b"old", told.append)
    assert faults.calls == [
        "builder",
        "parse",
        f"WORKSPACE {2 << 30}",
        "clear TF32",
        "timing cache",
        "profile",
        "profile",
        "build",
    ]
    assert told == ["Building engine", "Building engine: 1 of 2"]
    assert timings == b"old+"
    assert b"(1, 1, 64, 64), (1, 1, 256, 256)" in plan


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("builder", DeviceAbsentError, "CUDA initialization failure.*doctor"),
        ("parse", ModelError, "UNSUPPORTED_NODE.*--backend"),
        ("profile", ModelError, "refuses frames of 256 x 256"),
        ("build", ModelError, "insufficient workspace"),
    ],
)
def test_fake_build_failures_carry_tensorrts_words(faults: Faults, engine: Engine, kind: str, error: type, words: str) -> None:
    faults.kinds.add(kind)
    with pytest.raises(error, match=words):
        build_plan(fake_module(faults), engine.read("model.onnx"), RECIPE)


def test_fake_timing_cache_of_another_build_is_left_aside(faults: Faults, engine: Engine) -> None:
    faults.kinds.add("timing cache")
    _, timings = build_plan(fake_module(faults), engine.read("model.onnx"), RECIPE, b"foreign")
    assert timings == b"+"


def test_fake_run_gives_the_onnx_files_answer_in_memory_that_stays(faults: Faults, engine: Engine) -> None:
    from atomid_live.backends.onnxruntime import OnnxRuntimeNetwork

    picture = image()
    picture[0, 0, 100:104, 90:94] = 3.0
    infer = network(faults, engine).bind(picture)
    heat, sizes = infer()
    again, _ = infer()
    assert again.data_ptr() == heat.data_ptr()
    expected = OnnxRuntimeNetwork(engine, 1, "fp32").infer(picture[0, 0].numpy())
    np.testing.assert_allclose(heat.numpy(), expected.confidence, atol=1e-6)
    assert sizes.tolist() == pytest.approx([8.0, 1.9])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("context", "OutOfMemory.*close other programs"),
        ("set profile", "profile 1 cannot be used"),
        ("shape", "refuses frames of 320 x 192"),
        ("infer", "leaves the shapes of confidence open"),
        ("address", "refuses the memory"),
        ("stride", "stride 2 asks for"),
    ],
)
def test_fake_binding_failures_are_errors(faults: Faults, engine: Engine, kind: str, words: str) -> None:
    made = network(faults, engine)
    faults.kinds.add(kind)
    with pytest.raises(ModelError, match=words):
        made.bind(image(320))


def test_fake_execution_failure_is_an_error_with_the_log(faults: Faults, engine: Engine) -> None:
    infer = network(faults, engine).bind(image())
    faults.kinds.add("execute")
    with pytest.raises(ModelError, match="illegal memory access"):
        infer()


def test_fake_frame_beyond_all_profiles_names_the_way_out(faults: Faults, engine: Engine) -> None:
    with pytest.raises(ModelError, match=r"no profile for frames of 1024 x 64.*engine build"):
        network(faults, engine).bind(image(1024, 64))


def test_fake_tightest_profile_is_taken(faults: Faults, engine: Engine) -> None:
    made = network(faults, engine)
    made.bind(image(256, 256))
    assert "set profile" not in faults.calls
    made.bind(image(256, 320))
    assert "set profile" in faults.calls


def test_fake_outputs_in_half_precision_are_refused(faults: Faults, engine: Engine) -> None:
    faults.kinds.add("dtype")
    with pytest.raises(ModelError, match="32-bit float"):
        network(faults, engine)


def test_fake_input_of_another_type_is_refused(faults: Faults, engine: Engine) -> None:
    with pytest.raises(ModelError, match="float64"):
        network(faults, engine).bind(image().double())


def test_fake_refused_plan_is_stale(faults: Faults, engine: Engine) -> None:
    trt = fake_module(faults)
    plan, _ = build_plan(trt, engine.read("model.onnx"), RECIPE)
    other = fake_module(Faults(version="10.9.0"))
    with pytest.raises(StalePlanError, match="kSERIALIZATION_VERSION"):
        TensorRtNetwork(other, engine, plan, "fp32")


def test_fake_plan_is_built_once_and_again_when_anything_changes(
    faults: Faults, engine: Engine, tmp_path: Path, pretended_gpu: Any
) -> None:
    cache, told = PlanCache(tmp_path / "plans"), list[str]()
    trt, onnx = fake_module(faults), engine.read("model.onnx")
    first, _ = obtain_plan(trt, onnx, RECIPE, cache, told.append)
    assert obtain_plan(trt, onnx, RECIPE, cache, told.append)[0] == first
    assert faults.calls.count("build") == 1
    assert told[0] == "no plan of this network was built here yet"
    pretended_gpu.minor = 9
    obtain_plan(trt, onnx, RECIPE, cache, told.append)
    assert faults.calls.count("build") == 2
    assert "capability 9.0 instead of 9.9" in "".join(told)
    obtain_plan(trt, onnx, BuildRecipe("fp16", RECIPE.sides), cache)
    assert faults.calls.count("build") == 3


def test_unknown_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", fake_module(Faults(version="9.3.0")))
    with pytest.raises(DeviceAbsentError, match=r"9\.3\.0.*10 and 11"):
        tensorrt_build.import_tensorrt()


def test_absent_tensorrt_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(DeviceAbsentError, match="pip install"):
        tensorrt_build.import_tensorrt()


def test_fake_whole_chain_finds_the_columns_of_the_processor(faults: Faults, engine: Engine) -> None:
    """Kernels run from their CUDA source on the processor; only the plan is pretended."""
    from device_scenes import agree, device_detector, processor_detector

    frame = lattice_frame((250, 310))
    with device_detector(engine, network(faults, engine)) as detector:
        assert detector.name == "tensorrt:bandpass-fp32"
        agree(detector.detect(frame), processor_detector(engine).detect(frame), 100)
