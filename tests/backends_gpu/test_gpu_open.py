"""Opening by name or automatically, and serving until a better detector is ready."""

from __future__ import annotations

import threading

import pytest

from atomid_live.backends import device_open
from atomid_live.backends.device_open import DEVICE_BACKENDS, ServingDetector, detector_for, open_device, serve_tensorrt
from atomid_live.backends.engine import Engine
from atomid_live.errors import DeviceAbsentError, ModelError, UsageError
from atomid_live.gpu_check.bandpass import lattice_frame
from atomid_live.types import Detections, Frame

FRAME = lattice_frame((40, 50))


class Named:
    """A detector that finds nothing, under a name."""

    def __init__(self, name: str) -> None:
        self.name, self.card, self.warmed, self.closed = name, {"engine": name}, list[tuple[int, int]](), False

    def detect(self, frame: Frame) -> Detections:
        return Detections.empty()

    def warm_up(self, shape: tuple[int, int]) -> None:
        self.warmed.append(shape)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a PC without one."""
    monkeypatch.setattr(device_open, "gpu_problem", lambda: "no NVIDIA GPU and no driver")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", DEVICE_BACKENDS)
def test_asked_for_by_name_an_absent_gpu_is_exit_code_4(engine: Engine, name: str) -> None:
    with pytest.raises(DeviceAbsentError, match="no NVIDIA GPU") as caught:
        open_device(engine, name)
    assert caught.value.exit_code == 4


@pytest.mark.usefixtures("no_gpu")
def test_tensorrt_by_name_never_falls_to_the_processor(engine: Engine) -> None:
    with pytest.raises(DeviceAbsentError):
        serve_tensorrt(engine, Named("cpu"), asked=True)


@pytest.mark.usefixtures("no_gpu")
def test_automatically_the_processor_serves(engine: Engine) -> None:
    first = Named("cpu")
    assert serve_tensorrt(engine, first, asked=False) is first


@pytest.mark.usefixtures("no_gpu")
def test_one_function_serves_every_name(engine: Engine) -> None:
    first = Named("cpu")
    for name in ("auto", "openvino", "onnxruntime", "torch"):
        assert detector_for(engine, name, lambda: first) is first
    for name in DEVICE_BACKENDS:
        with pytest.raises(DeviceAbsentError):
            detector_for(engine, name, lambda: pytest.fail("the processor's detector was made"))


def test_settings_know_every_name() -> None:
    from atomid_live.settings import DetectSettings

    assert [DetectSettings(backend=name).backend for name in DEVICE_BACKENDS] == list(DEVICE_BACKENDS)


def test_unknown_back_end_lists_the_known(engine: Engine) -> None:
    with pytest.raises(UsageError, match="tensorrt, torch-cuda, onnxruntime-cuda"):
        open_device(engine, "cuda")


def test_the_first_serves_until_the_second_is_warm() -> None:
    go, told, better = threading.Event(), list[str](), Named("gpu")

    def build() -> Named:
        go.wait(10)
        return better

    serving = ServingDetector(Named("cpu"), build, asked=True, tell=told.append)
    serving.warm_up((40, 50))
    assert len(serving.detect(FRAME)) == 0
    assert (serving.name, serving.ready, better.warmed) == ("cpu", False, [])
    go.set()
    serving.wait(10)
    assert (serving.name, serving.card, serving.ready) == ("gpu", {"engine": "gpu"}, True)
    assert better.warmed == [(40, 50)]
    assert told == ["gpu takes over from cpu"]
    serving.close()
    assert better.closed


def failing() -> Named:
    raise ModelError("TensorRT built no plan: out of memory")


def test_a_failed_build_is_an_error_once_when_asked_for() -> None:
    serving = ServingDetector(Named("cpu"), failing, asked=True)
    serving._thread.join(10)
    with pytest.raises(ModelError, match="out of memory"):
        serving.detect(FRAME)
    assert serving.name == "cpu"


def test_a_failed_build_is_told_when_automatic() -> None:
    told: list[str] = []
    serving = ServingDetector(Named("cpu"), failing, asked=False, tell=told.append)
    serving._thread.join(10)
    serving.detect(FRAME)
    serving.detect(FRAME)
    assert told == ["cpu goes on serving: TensorRT built no plan: out of memory"]


def test_a_bug_in_the_build_does_not_end_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Named:
        raise ZeroDivisionError("oops")

    serving = ServingDetector(Named("cpu"), broken, asked=True)
    serving._thread.join(10)
    with pytest.raises(Exception, match="ZeroDivisionError: oops"):
        serving.detect(FRAME)
    assert "plan" in caplog.text


def test_onnx_runtime_without_cuda_is_refused_not_replaced(engine: Engine) -> None:
    import onnxruntime

    from atomid_live.backends.device_networks import PROVIDER, OrtCudaNetwork

    if PROVIDER in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    from types import SimpleNamespace

    with pytest.raises(DeviceAbsentError, match="onnxruntime-gpu"):
        OrtCudaNetwork(engine, SimpleNamespace(index=0))


def test_onnx_runtime_that_took_the_processor_all_the_same_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    import onnxruntime

    from atomid_live.backends.device_networks import PROVIDER, OrtCudaNetwork

    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [PROVIDER, "CPUExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda data, options, providers: real(data, providers=["CPUExecutionProvider"])
    )
    with pytest.raises(DeviceAbsentError, match="took CPUExecutionProvider instead"):
        OrtCudaNetwork(engine, SimpleNamespace(index=0))


@pytest.mark.torch
def test_torch_network_reads_an_engines_arrays(engine: Engine) -> None:
    """The compact network, untrained: the device's network (here on the processor) gives the map of the processor's."""
    import hashlib
    from dataclasses import replace

    import numpy as np
    import torch

    from atomid_live.backends.device_networks import torch_network
    from atomid_live.backends.torch import TorchNetwork
    from atomid_live.train.network import CompactUnet

    torch.manual_seed(3)
    path = engine.folder / "weights.npz"
    np.savez(path, **{key: value.numpy() for key, value in CompactUnet((8, 12, 16), 1).state_dict().items()})
    files = {**engine.card["files"], path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    compact = replace(engine, card={**engine.card, "files": files, "network": {"channels": [8, 12, 16], "blocks": 1}})
    image = torch.randn(1, 1, 64, 96)
    network = torch_network(compact, torch.device("cpu"))
    heat, sizes = network.bind(image)()
    expected = TorchNetwork(compact, 1, "fp32").infer(image[0, 0].numpy())
    assert network.name == "torch-cpu:bandpass"
    assert heat.is_contiguous()
    np.testing.assert_allclose(heat.numpy(), expected.confidence, atol=1e-6)
    np.testing.assert_allclose(sizes.numpy(), [expected.spacing_px, expected.column_sigma_px], rtol=1e-5)
