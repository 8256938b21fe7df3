"""The CUDA sources compile to machine code for every architecture in use; needs the compiler's library, no GPU."""

from __future__ import annotations

import re

import pytest

from atomid_live.errors import DeviceAbsentError
from atomid_live.kernels import launch
from atomid_live.kernels.layout import MOST_VECTORS, SPARE, Answer, Column, Fit, Param, Pool, State, Term

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


@pytest.fixture(scope="module")
def compiler() -> None:
    """Skip where CUDA's run-time compiler is not installed."""
    pytest.importorskip(
        "cuda.core", reason="cuda-core is not installed; the `test` extra has it on PCs with an x86-64 processor"
    )
    try:
        launch.compiled("sm_75")
    except DeviceAbsentError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sources_compile(architecture: str) -> None:
    code = bytes(launch.compiled(architecture).code)
    assert code[:4] == b"\x7fELF"
    for kernel in re.findall(r"__global__ void (\w+)\(", launch.source()):
        assert kernel == "NAME" or kernel.encode() in code, kernel


@pytest.mark.usefixtures("compiler")
def test_a_broken_source_is_an_error_with_the_compilers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "source", lambda: "__global__ void broken() { nonsense; }")
    with pytest.raises(Exception, match="nonsense"):
        launch.compiled.__wrapped__("sm_80")


def test_a_compiler_that_does_not_load_is_an_absent_device(monkeypatch: pytest.MonkeyPatch) -> None:
    core = pytest.importorskip("cuda.core")
    from cuda.pathfinder import DynamicLibNotFoundError

    def missing(*arguments: object) -> None:
        raise DynamicLibNotFoundError('Failure finding "libnvrtc.so.13"')

    monkeypatch.setattr(core, "Program", missing)
    with pytest.raises(DeviceAbsentError, match=r"libnvrtc\.so\.13.*pip install 'nvidia-cuda-nvrtc"):
        launch.compiled.__wrapped__("sm_80")


def test_sources_and_python_share_one_layout() -> None:
    text = launch.source()
    for letter, kind in (("P", Param), ("S", State), ("C", Column), ("A", Answer), ("Q", Pool), ("T", Term), ("F", Fit)):
        for name in set(re.findall(rf"\b{letter}_([A-Z_]+)\b", text)) - {"WIDTH"}:
            assert name in kind.__members__, f"{letter}_{name}"
    assert max(Param) + 2 * MOST_VECTORS <= SPARE
    assert max(Param) == Param.VECTOR_YX


def test_sources_need_no_header() -> None:
    """NVRTC would look for headers that a PC without CUDA's toolkit does not have."""
    assert "#include" not in launch.source()


def test_without_a_gpu_the_launcher_says_so() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(DeviceAbsentError, match="doctor"):
        launch.CudaLauncher()


def test_launches_hand_over_addresses_counts_and_the_current_stream() -> None:
    """On a stand-in for cuda.core: tensors as addresses, integers as 32-bit, threads appended and covered by blocks."""
    torch = pytest.importorskip("torch")
    import threading
    from types import SimpleNamespace

    import numpy as np

    made: list[tuple[object, ...]] = []
    launcher = object.__new__(launch.CudaLauncher)
    launcher.device, launcher._kernels = torch.device("cpu"), {}
    launcher._torch = SimpleNamespace(cuda=SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=77)))
    launcher._code = SimpleNamespace(get_kernel=lambda name: f"kernel {name} {threading.get_ident()}")
    launcher._config = lambda grid, block: (grid, block)
    launcher._launch = lambda *values: made.append(values)
    tensor = torch.zeros(5)
    launcher("suppress", 300, tensor, True, 7)
    stream, config, kernel, *values = made[0]
    assert stream.__cuda_stream__() == (0, 77)  # type: ignore[attr-defined]
    assert config == (3, launch.BLOCK)
    assert str(kernel).startswith("kernel suppress")
    assert values[0] == tensor.data_ptr()
    assert [(type(v), v) for v in values[1:]] == [(np.int32, 1), (np.int32, 7), (np.int32, 300)]
    for wrong in (0, -1, 2**31):
        with pytest.raises(ValueError, match="threads"):
            launcher("suppress", wrong, tensor)
