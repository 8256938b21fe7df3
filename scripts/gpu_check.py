"""Prove the GPU's part of atomid-live on this machine and print one table; under eight minutes, then exit.

    python scripts/gpu_check.py [--seconds 450] [--model NAME]

Needs this repository and the packages of `atomid-live[gpu]`; pytest and hypothesis, where installed, run the properties of the
kernels too. What cannot run here is a line that says why, never a pass. Exit code 0: everything that ran is right and TensorRT
was among it; 1: something is wrong; 4: no GPU, or no TensorRT.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import platform
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT / "tests" / "backends_gpu", ROOT / "tests" / "kernels", ROOT):
    sys.path.insert(0, str(folder))

import numpy as np  # noqa: E402
from scipy.spatial import cKDTree  # noqa: E402

from atomid_live.backends.gpu_health import gpu_findings, gpu_problem  # noqa: E402
from atomid_live.errors import AtomidError, DeviceAbsentError  # noqa: E402
from atomid_live.settings import DetectSettings  # noqa: E402

CHOICE = DetectSettings()
DEVICE = "cuda"
SHAPE = (1000, 1024)
MANY, LARGE = 1600, 1024
REPEATS = 40
TOLERANCE_PX = {"fp32": 0.01, "fp16": 0.02, "int8": 0.05}
LOST = {"fp32": 0.002, "fp16": 0.005, "int8": 0.02}


class NotHereError(Exception):
    """Something this machine does not have; the table says so."""


@dataclass
class Row:
    """One line of the table."""

    what: str
    verdict: str
    detail: str


@dataclass
class Check:
    """The table, the clock, and what the steps share."""

    until: float
    rows: list[Row] = field(default_factory=list)
    plans: dict[str, Any] = field(default_factory=dict)

    def spare(self, seconds: float) -> None:
        """Leave the step when there is less time than this."""
        if self.until - time.monotonic() < seconds:
            raise NotHereError("out of time")

    @contextmanager
    def step(self, what: str) -> Iterator[Callable[[str], None]]:
        """Run one step; whatever happens becomes a row."""
        said: list[str] = []
        begun = time.monotonic()
        verdict = "right"
        try:
            yield said.append
        except NotHereError as error:
            verdict, said = "NOT RUN", [str(error)]
        except DeviceAbsentError as error:
            verdict, said = "NOT RUN", [str(error)[:150]]
        except Exception as error:
            verdict = "WRONG"
            said.append(f"{type(error).__name__}: {error}"[:300])
            traceback.print_exc()
        self.rows.append(Row(what, verdict, "; ".join(said) or f"{time.monotonic() - begun:.1f} s"))
        print(f"{verdict:<8} {what}: {self.rows[-1].detail}", flush=True)


def launcher() -> Any:
    """Kernels on the GPU."""
    from atomid_live.kernels.launch import CudaLauncher

    return CudaLauncher()


def need(condition: bool, text: str) -> None:
    """Fail with words."""
    if not condition:
        raise AssertionError(text)


def closeness(found: Any, expected: Any, precision: str) -> str:
    """Compare columns with the processor's; raises when they are not the same."""
    need(len(expected) > 1000, f"the processor found {len(expected)} columns only: a poor scene")
    away, partner = cKDTree(expected.yx_px).query(found.yx_px)
    same = away < 0.5
    lost = 1.0 - len(set(partner[same])) / len(expected)
    extra = float(np.mean(~same))
    rms = float(np.sqrt(np.mean(away[same] ** 2) / 2))
    text = f"{len(found)} columns, {100 * lost:.2f} % lost, {100 * extra:.2f} % more, {rms:.4f} px rms per axis"
    need(max(lost, extra) <= LOST[precision] and rms <= TOLERANCE_PX[precision], f"disagrees with the processor: {text}")
    return text


def milliseconds(work: Callable[[], Any], repeats: int = REPEATS) -> tuple[float, float]:
    """Median and 95 % of wall-clock times after two warm runs."""
    for _ in range(2):
        work()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - begun))
    return float(np.median(times)), float(np.percentile(times, 95))


def device_milliseconds(stream: Any, work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median time between two events on the device."""
    import torch

    times = []
    with torch.cuda.stream(stream):
        for _ in range(repeats + 2):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
    return float(np.median(times[2:]))


def new_stream() -> Any:
    """A stream of our own."""
    import torch

    return torch.cuda.Stream()


def engine_of(model: str | None, folder: Path) -> Any:
    """The shipped engine, or the small one of the tests."""
    from atomid_live.backends.engine import find_engine, load_engine

    found = find_engine(model)
    if found is not None:
        return load_engine(found)
    from bandpass import bandpass_engine

    return bandpass_engine(folder / "bandpass")


def with_int8(engine: Any, folder: Path) -> Any:
    """The engine with a symmetric int8 file made here, calibrated on simulated frames."""
    from bandpass import lattice_frame

    from atomid_live.backends.precision import INT8_FILE, eight_bit
    from atomid_live.detect.local_contrast import local_contrast

    frames = (lattice_frame((256, 320), spacing, 2.0, seed).pixels for seed, spacing in enumerate((8.0, 9.5, 11.0, 14.0)))
    images = (local_contrast(pixels.astype(np.float32))[None, None, :256, :320] for pixels in frames)
    folder.mkdir()
    data = {name: (engine.folder / name).read_bytes() for name in engine.card["files"] if name != INT8_FILE}
    data[INT8_FILE] = eight_bit(engine.read("model.onnx"), images)
    for name, content in data.items():
        (folder / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}
    return replace(engine, folder=folder, card={**engine.card, "files": hashes})


def kernels_alone(check: Check) -> None:
    """Compile, compare with the reference, repeat, and run the tests that are marked for a GPU."""
    from test_kernels_refine import scene
    from versions import CudaVersion, NumpyVersion, TorchVersion

    from atomid_live.kernels.layout import Column

    with check.step("kernels compile and load (NVRTC)") as say:
        check.spare(10)
        begun = time.monotonic()
        run = launcher()
        CudaVersion(run).peaks(np.zeros((8, 8), np.float32), 0.5, 2.0)
        say(f"{time.monotonic() - begun:.1f} s for this GPU")
    for name, version in (("CUDA", lambda: CudaVersion(launcher(), 65536)), ("torch", lambda: TorchVersion(DEVICE))):
        with check.step(f"{name}: peaks, resampling, contrast, fit against NumPy") as say:
            check.spare(10)
            made, truth = version(), NumpyVersion()
            noise = np.random.default_rng(1).random((96, 160)).astype(np.float32)
            noise[3, 5], noise[10:14, 20:26] = np.nan, 0.7
            for a, b in zip(made.peaks(noise, 0.2, 2.4), truth.peaks(noise, 0.2, 2.4), strict=True):
                np.testing.assert_array_equal(a, b)
            image, places = scene((160, 220), 8.0, 1.9, 3)
            np.testing.assert_allclose(made.resample(image, (100, 131)), truth.resample(image, (100, 131)), atol=2e-2)
            np.testing.assert_allclose(made.contrast(image), truth.contrast(image), atol=3e-3)
            (a, wide), (b, wider) = made.refine(image, places, 1.9), truth.refine(image, places, 1.9)
            off = float(np.abs(a[:, :2] - b[:, :2]).max())
            need(off < 3e-3 and abs(wide - wider) < 1e-3, f"fits differ by {off} px, widths by {wide - wider}")
            need(bool((a[:, Column.OK] == b[:, Column.OK]).all()), "different fits failed")
            say(f"peaks equal, fit within {off:.1e} px of {len(a)} columns")
    with check.step("CUDA: 100 000 columns, the same bits each time") as say:
        check.spare(10)
        image, places = scene((MANY, MANY), 5.0, 1.5, 4)
        made = CudaVersion(launcher(), 131072)
        first, _ = made.refine(image, places, 1.5)
        for _ in range(3):
            again, _ = made.refine(image, places, 1.5)
            need(bool(np.array_equal(first, again)), "two runs gave different bits")
        say(f"{len(places)} columns, 4 runs equal")
    with check.step("property tests on the GPU (pytest)") as say:
        check.spare(60)
        if any(importlib.util.find_spec(name) is None for name in ("pytest", "hypothesis")):
            raise NotHereError("pytest or hypothesis is not installed")
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(ROOT / "tests" / "kernels")]
        left = max(30.0, min(150.0, check.until - time.monotonic() - 200.0))
        try:
            ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left, check=False)
        except subprocess.TimeoutExpired:
            raise NotHereError(f"did not end within {left:.0f} s") from None
        last = ran.stdout.strip().splitlines()[-1:] or [ran.stderr[-200:]]
        need(ran.returncode == 0, last[0] + ran.stdout[-1500:])
        say(last[0])


def networks(check: Check, engine: Any, eight: Any) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Name, precision and opener of each network on the GPU."""
    import torch

    from atomid_live.backends.device_networks import OrtCudaNetwork, torch_network

    device = torch.device(DEVICE, 0)

    def in_torch(half: bool) -> Any:
        if "weights.npz" in engine.card["files"]:
            return torch_network(engine, device, half=half)
        return bandpass_module(device, half)

    def in_tensorrt(precision: str) -> Any:
        from atomid_live.backends.tensorrt import TensorRtNetwork
        from atomid_live.backends.tensorrt_build import import_tensorrt

        if precision not in check.plans:
            raise NotHereError("no plan")
        return TensorRtNetwork(import_tensorrt(), engine, check.plans[precision], precision)

    yield "torch", "fp32", lambda: in_torch(False)
    yield "torch", "fp16", lambda: in_torch(True)
    yield "onnxruntime CUDA", "fp32", lambda: OrtCudaNetwork(engine, device, "fp32")
    for precision in ("fp32", "fp16", "int8"):
        yield "TensorRT", precision, lambda precision=precision: in_tensorrt(precision)


def bandpass_module(device: Any, half: bool) -> Any:
    """The tests' network as a torch module."""
    import torch
    from bandpass import bandpass_kernel

    from atomid_live.backends.device_networks import ModuleNetwork

    convolution = torch.nn.Conv2d(1, 1, 12, 2, 5)
    convolution.load_state_dict({"weight": torch.from_numpy(bandpass_kernel()), "bias": torch.tensor([-2.0])})
    module = torch.nn.Sequential(convolution, torch.nn.Sigmoid())

    class Alone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, image: Any) -> tuple[Any, ...]:
            return (self.inner(image),)

    return ModuleNetwork(Alone(), device, "torch-cuda:bandpass", 2, half=half)


def build_plans(check: Check, engine: Any, eight: Any, folder: Path) -> None:
    """Build the plans, find them again, and refuse a damaged one."""
    from atomid_live.backends.plan_cache import PlanCache
    from atomid_live.backends.precision import graph_for
    from atomid_live.backends.tensorrt_build import BuildRecipe, import_tensorrt, obtain_plan

    cache = PlanCache(folder / "plans")
    for precision in ("fp32", "fp16", "int8"):
        with check.step(f"TensorRT: build {precision}") as say:
            check.spare(60)
            trt, told = import_tensorrt(), list[str]()
            if precision == "int8" and eight is None:
                raise NotHereError("no int8 file could be made")
            onnx = graph_for(eight if precision == "int8" else engine, precision)
            recipe = BuildRecipe(precision, ((1024, 1024),))
            begun = time.monotonic()
            check.plans[precision], _ = obtain_plan(trt, onnx, recipe, cache, told.append)
            took = time.monotonic() - begun
            need(obtain_plan(trt, onnx, recipe, cache)[0] == check.plans[precision], "the stored plan is another")
            size = len(check.plans[precision]) / 1e6
            say(f"TensorRT {trt.__version__}, {took:.1f} s, {size:.2f} MB, {len(told)} notes of progress")
    with check.step("TensorRT: a damaged plan is built anew") as say:
        check.spare(10)
        if "fp32" not in check.plans:
            raise NotHereError("no plan")
        trt, recipe = import_tensorrt(), BuildRecipe("fp32", ((1024, 1024),))
        for path in cache.folder.glob("*.plan"):
            path.write_bytes(path.read_bytes()[:-1] + b"x")
        told = []
        obtain_plan(trt, graph_for(engine, "fp32"), recipe, cache, told.append)
        need("changed or damaged" in told[0], told[0])
        say(told[0])


def whole_detectors(check: Check, engine: Any, eight: Any) -> None:
    """Every network inside the whole detector: against the processor, and timed."""
    import torch
    from bandpass import lattice_frame

    from atomid_live.backends.onnxruntime import OnnxRuntimeNetwork
    from atomid_live.detect.unet import UnetDetector

    frame = lattice_frame(SHAPE, 17.0, 3.0)
    processor = UnetDetector(OnnxRuntimeNetwork(engine, 4, "fp32"), engine, CHOICE)
    expected = processor.detect(frame)
    with check.step("processor, for comparison") as say:
        check.spare(10)
        middle, most = milliseconds(lambda: processor.detect(frame), 10)
        say(f"{len(expected)} columns, end to end {middle:.2f} ms (95 %: {most:.2f})")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for name, precision, opened in networks(check, engine, eight):
        with check.step(f"{name} {precision}: whole detector") as say:
            check.spare(15)
            network = opened()
            say(one_detector(engine, network, precision, frame, expected))
            network.close()


def one_detector(engine: Any, network: Any, precision: str, frame: Any, expected: Any) -> str:
    """Check and time one network inside the whole detector."""
    from atomid_live.backends.device import DeviceDetector

    detector = DeviceDetector(engine, network, launcher(), CHOICE)
    begun = time.perf_counter()
    found = detector.detect(frame)
    first = time.perf_counter() - begun
    text = closeness(found, expected, precision)
    need(bool(np.array_equal(found.yx_px, detector.detect(frame).yx_px)), "a second run gave different bits")
    middle, most = milliseconds(lambda: detector.detect(frame))
    chain = next(reversed(detector._chains.values()))
    device = device_milliseconds(chain._stream, chain._replay)
    held = DeviceDetector(engine, network, launcher(), CHOICE, hold_scale=True)
    quick, _ = milliseconds(lambda: held.detect(frame))
    times = (
        f"device {device:.3f} ms, end to end {middle:.2f} ms (95 %: {most:.2f}), scale held {quick:.2f} ms, first {first:.1f} s"
    )
    return f"{text}; {times}"


def stages_alone(check: Check, engine: Any) -> None:
    """Time each stage between events, kernels launched one by one."""
    import torch
    from bandpass import lattice_frame

    from atomid_live.backends.device import DeviceDetector
    from atomid_live.kernels import stages

    with check.step("stages, launched one by one (no graph)") as say:
        check.spare(10)
        network = next(opened for name, _, opened in networks(check, engine, None) if name == "torch")()
        detector = DeviceDetector(engine, network, launcher())
        detector.detect(lattice_frame(SHAPE, 17.0, 3.0))
        chain = next(reversed(detector._chains.values()))
        run, b = chain._run, chain._buffers
        with torch.cuda.stream(chain._stream):
            heat, _ = chain._infer()
        parts = {
            "copy in": lambda: chain._raw.copy_(chain._staged, non_blocking=True),
            "normalise": lambda: stages.normalise(run, b, chain._raw),
            "network (torch fp32)": chain._infer,
            "peaks": lambda: stages.peaks(run, b, heat),
            "threshold": lambda: stages.starts(run, b, heat),
            "refine": lambda: stages.refine(run, b),
            "collect": lambda: stages.collect(run, b),
            "copy out": lambda: chain._answer.copy_(b.answer[: len(chain._answer)], non_blocking=True),
        }
        say(", ".join(f"{name} {device_milliseconds(chain._stream, work, 20):.3f} ms" for name, work in parts.items()))


def graph_beside_others(check: Check, engine: Any) -> None:
    """A graph is captured while another thread uses the legacy stream, and shapes alternate."""
    import torch
    from bandpass import lattice_frame

    from atomid_live.backends.device import DeviceDetector

    with check.step("CUDA graph: captured beside a busy thread, shapes alternate") as say:
        check.spare(10)
        stop = threading.Event()

        def busy() -> None:
            while not stop.is_set():
                torch.ones(1 << 16, device=DEVICE).sum().item()

        thread = threading.Thread(target=busy, daemon=True)
        thread.start()
        try:
            network = next(opened for name, _, opened in networks(check, engine, None) if name == "torch")()
            detector = DeviceDetector(engine, network, launcher())
            frames = [lattice_frame(shape, 13.0, 2.4) for shape in ((500, 612), (700, 420))]
            answers = [detector.detect(frame) for frame in frames]
            for _ in range(3):
                for frame, answer in zip(frames, answers, strict=True):
                    need(bool(np.array_equal(detector.detect(frame).yx_px, answer.yx_px)), "an answer changed between shapes")
        finally:
            stop.set()
            thread.join(5)
        say(f"{[len(answer) for answer in answers]} columns, 3 rounds equal")


def large_network(check: Check, folder: Path) -> None:
    """Time a network of AtomID-Net's size at 1024 x 1024, in torch and as a plan."""
    import torch

    from atomid_live.backends.device_networks import ModuleNetwork
    from atomid_live.backends.precision import half
    from atomid_live.train.atomid_net import AtomIdNet
    from atomid_live.train.export import write_onnx

    module = AtomIdNet().eval()
    stream, image = new_stream(), torch.zeros((1, 1, LARGE, LARGE), device=DEVICE)
    with check.step("AtomID-Net size in torch fp16, 1024 x 1024") as say, torch.cuda.stream(stream):
        check.spare(10)
        network = ModuleNetwork(module, torch.device(DEVICE, 0), "atomid-net", 1, half=True)
        say(f"device {device_milliseconds(stream, network.bind(image), 20):.2f} ms")
    with check.step("AtomID-Net size in TensorRT fp16, 1024 x 1024") as say:
        check.spare(90)
        from types import SimpleNamespace

        from atomid_live.backends.tensorrt import TensorRtNetwork
        from atomid_live.backends.tensorrt_build import BuildRecipe, build_plan, import_tensorrt

        trt, path = import_tensorrt(), folder / "large.onnx"
        write_onnx(module.cpu(), path, {"confidence": {0: "batch", 2: "rows", 3: "cols"}, "spacing_px": {0: "batch"}})
        plan, _ = build_plan(trt, half(path.read_bytes()), BuildRecipe("fp16", ((1024, 1024),)))
        plan_network = TensorRtNetwork(trt, SimpleNamespace(name="atomid-net", stride=1), plan, "fp16")
        with torch.cuda.stream(stream):
            say(f"device {device_milliseconds(stream, plan_network.bind(image), 20):.2f} ms")


def table(check: Check) -> int:
    """Print the table; returns the exit code."""
    width = max(len(row.what) for row in check.rows)
    print("\n" + "=" * 100)
    for row in check.rows:
        print(f"{row.verdict:<8} {row.what:<{width}}  {row.detail}")
    wrong = sum(row.verdict == "WRONG" for row in check.rows)
    idle = sum(row.verdict == "NOT RUN" for row in check.rows)
    print("=" * 100)
    print(f"{len(check.rows) - wrong - idle} right, {wrong} wrong, {idle} not run")
    if wrong:
        return 1
    return 0 if check.plans else 4


def main() -> int:
    """Run everything that this machine has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=450.0, help="begin no step after this long")
    parser.add_argument("--model", default=None, help="engine by name or folder; default the shipped one, else the tests' own")
    chosen = parser.parse_args()
    print(f"Python {platform.python_version()} on {platform.platform()}")
    for finding in gpu_findings():
        print(f"{finding.level:<4} {finding.topic}: {finding.text}" + (f" -> {finding.advice}" if finding.advice else ""))
    problem = gpu_problem()
    if problem:
        print(f"Nothing can be proven here: {problem}")
        return DeviceAbsentError.exit_code
    check = Check(time.monotonic() + chosen.seconds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            engine = engine_of(chosen.model, folder)
        except AtomidError as error:
            print(error)
            return error.exit_code
        eight = None
        with check.step("int8 file, calibrated here") as say:
            check.spare(10)
            eight = with_int8(engine, folder / "int8")
            say(f"{engine.name}, symmetric")
        kernels_alone(check)
        build_plans(check, engine, eight, folder)
        whole_detectors(check, engine, eight)
        stages_alone(check, engine)
        graph_beside_others(check, engine)
        large_network(check, folder)
    return table(check)


if __name__ == "__main__":
    sys.exit(main())
