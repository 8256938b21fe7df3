"""Whole detectors on the GPU: against the processor's, timed, stage by stage, and beside a busy thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from atomid_live.backends.device import DeviceDetector, DeviceNetwork
from atomid_live.backends.device_networks import ModuleNetwork, OrtCudaNetwork, torch_network
from atomid_live.backends.engine import Engine
from atomid_live.backends.precision import PRECISIONS
from atomid_live.gpu_check.bandpass import bandpass_module, lattice_frame
from atomid_live.gpu_check.machine import Machine
from atomid_live.gpu_check.table import NotHereError, Table, closeness, need
from atomid_live.kernels import stages
from atomid_live.types import Detections, Frame

Opened = Callable[[], DeviceNetwork]


def _in_torch(engine: Engine, machine: Machine, *, half: bool) -> DeviceNetwork:
    import torch

    device = torch.device(machine.device, 0)
    if "weights.npz" in engine.card["files"]:
        return torch_network(engine, device, half=half)
    return ModuleNetwork(bandpass_module(), device, f"torch:{engine.name}", engine.stride, half=half)


def _in_tensorrt(engine: Engine, plans: Mapping[str, bytes], precision: str) -> DeviceNetwork:
    from atomid_live.backends.tensorrt import TensorRtNetwork
    from atomid_live.backends.tensorrt_build import import_tensorrt

    if precision not in plans:
        raise NotHereError("no plan")
    return TensorRtNetwork(import_tensorrt(), engine, plans[precision], precision)


def networks(machine: Machine, engine: Engine, plans: Mapping[str, bytes]) -> Iterator[tuple[str, str, Opened]]:
    """Name, precision and opener of each network on the GPU."""
    import torch

    yield "torch", "fp32", lambda: _in_torch(engine, machine, half=False)
    yield "torch", "fp16", lambda: _in_torch(engine, machine, half=True)
    yield "onnxruntime CUDA", "fp32", lambda: OrtCudaNetwork(engine, torch.device(machine.device, 0), "fp32")
    for precision in PRECISIONS:
        yield "TensorRT", precision, partial(_in_tensorrt, engine, plans, precision)


def whole_detectors(table: Table, machine: Machine, engine: Engine, plans: Mapping[str, bytes]) -> None:
    """Every network inside the whole detector: against the processor, and timed."""
    import torch

    from atomid_live.backends.onnxruntime import OnnxRuntimeNetwork
    from atomid_live.detect.unet import UnetDetector

    frame = lattice_frame(machine.shape, 17.0, 3.0)
    processor = UnetDetector(OnnxRuntimeNetwork(engine, 4, "fp32"), engine)
    expected = processor.detect(frame)
    with table.step("processor, for comparison") as say:
        table.spare()
        middle, most = machine.wall_ms(lambda: processor.detect(frame), machine.repeats // 4)
        say(f"{len(expected)} columns, end to end {middle:.2f} ms (95 %: {most:.2f})")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for name, precision, opened in networks(machine, engine, plans):
        with table.step(f"{name} {precision}: whole detector") as say:
            table.spare(15.0)
            network = opened()
            say(_one_detector(machine, engine, network, precision, frame, expected))
            network.close()


def _one_detector(
    machine: Machine, engine: Engine, network: DeviceNetwork, precision: str, frame: Frame, expected: Detections
) -> str:
    """Check and time one network inside the whole detector."""
    detector = DeviceDetector(engine, network, machine.launcher())
    begun = time.perf_counter()
    found = detector.detect(frame)
    first = time.perf_counter() - begun
    text = closeness(found, expected, precision)
    need(bool(np.array_equal(found.yx_px, detector.detect(frame).yx_px)), "a second run gave different bits")
    middle, most = machine.wall_ms(lambda: detector.detect(frame), machine.repeats)
    chain = detector.last_chain
    device = machine.device_ms(chain.stream, chain.replay, machine.repeats)
    held = DeviceDetector(engine, network, machine.launcher(), hold_scale=True)
    quick, _ = machine.wall_ms(lambda: held.detect(frame), machine.repeats)
    return (
        f"{text}; device {device:.3f} ms, end to end {middle:.2f} ms (95 %: {most:.2f}), scale held {quick:.2f} ms, "
        f"first {first:.1f} s"
    )


def stages_alone(table: Table, machine: Machine, engine: Engine) -> None:
    """Time each stage between events, kernels launched one by one."""
    import torch

    with table.step("stages, launched one by one (no graph)") as say:
        table.spare()
        detector = DeviceDetector(engine, _in_torch(engine, machine, half=False), machine.launcher())
        detector.detect(lattice_frame(machine.shape, 17.0, 3.0))
        chain = detector.last_chain
        run, b = chain.run, chain.buffers
        with torch.cuda.stream(chain.stream):
            heat, _ = chain.infer()
        parts: dict[str, Callable[[], Any]] = {
            "copy in": chain.copy_in,
            "normalise": lambda: stages.normalise(run, b, chain.raw),
            "network (torch fp32)": chain.infer,
            "peaks": lambda: stages.peaks(run, b, heat),
            "place": lambda: stages.place(run, b, heat),
            "refine": lambda: stages.refine(run, b),
            "judge": lambda: stages.choose(run, b, heat, chain.judge, "lattice"),
            "collect": lambda: stages.collect(run, b),
            "copy out": chain.copy_out,
        }
        repeats = machine.repeats // 2
        say(", ".join(f"{name} {machine.device_ms(chain.stream, work, repeats):.3f} ms" for name, work in parts.items()))


def graph_beside_others(table: Table, machine: Machine, engine: Engine) -> None:
    """A graph is captured while another thread uses the legacy stream, and shapes alternate."""
    import torch

    with table.step("CUDA graph: captured beside a busy thread, shapes alternate") as say:
        table.spare()
        stop = threading.Event()

        def busy() -> None:
            while not stop.is_set():
                torch.ones(1 << 16, device=machine.device).sum().item()

        thread = threading.Thread(target=busy, daemon=True)
        thread.start()
        try:
            detector = DeviceDetector(engine, _in_torch(engine, machine, half=False), machine.launcher())
            frames = [lattice_frame(shape, 13.0, 2.4) for shape in machine.other_shapes]
            answers = [detector.detect(frame) for frame in frames]
            for _ in range(3):
                for frame, answer in zip(frames, answers, strict=True):
                    need(bool(np.array_equal(detector.detect(frame).yx_px, answer.yx_px)), "an answer changed between shapes")
        finally:
            stop.set()
            thread.join(5)
        say(f"{[len(answer) for answer in answers]} columns, 3 rounds equal")
