"""TensorRT's plans: built in three precisions, found again, refused when damaged; and a network of AtomID-Net's size."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from atomid_live.backends.device_networks import ModuleNetwork
from atomid_live.backends.engine import Engine
from atomid_live.backends.plan_cache import PlanCache
from atomid_live.backends.precision import PRECISIONS, graph_for, half
from atomid_live.backends.tensorrt_build import BuildRecipe, build_plan, import_tensorrt, obtain_plan
from atomid_live.gpu_check.machine import Machine
from atomid_live.gpu_check.table import NotHereError, Table, need

SIDES = ((1024, 1024),)


def build_plans(table: Table, engine: Engine, folder: Path) -> Mapping[str, bytes]:
    """Fill the lines on plans; returns those that could be built, by precision."""
    cache, plans = PlanCache(folder / "plans"), dict[str, bytes]()
    for precision in PRECISIONS:
        with table.step(f"TensorRT: build {precision}") as say:
            table.spare(60.0)
            trt, told = import_tensorrt(), list[str]()
            onnx, recipe = graph_for(engine, precision, cache), BuildRecipe(precision, SIDES)
            begun = time.monotonic()
            plans[precision], _ = obtain_plan(trt, onnx, recipe, cache, told.append)
            took = time.monotonic() - begun
            need(obtain_plan(trt, onnx, recipe, cache)[0] == plans[precision], "the stored plan is another")
            size = len(plans[precision]) / 1e6
            say(f"TensorRT {trt.__version__}, {took:.1f} s, {size:.2f} MB, {len(told)} notes of progress")
    with table.step("TensorRT: a damaged plan is built anew") as say:
        table.spare(60.0)
        if "fp32" not in plans:
            raise NotHereError("no plan")
        for path in cache.folder.glob("*.plan"):
            path.write_bytes(path.read_bytes()[:-1] + b"x")
        told = []
        obtain_plan(import_tensorrt(), graph_for(engine, "fp32"), BuildRecipe("fp32", SIDES), cache, told.append)
        need("changed or damaged" in told[0], told[0])
        say(told[0])
    return plans


def large_network(table: Table, machine: Machine, folder: Path) -> None:
    """Time a network of AtomID-Net's size, in torch and as a plan."""
    import torch

    from atomid_live.backends.tensorrt import TensorRtNetwork
    from atomid_live.train.atomid_net import AtomIdNet
    from atomid_live.train.export import write_onnx

    rows, cols = machine.large_shape
    module = AtomIdNet().eval()
    stream, image = machine.stream(), torch.zeros((1, 1, rows, cols), device=machine.device)
    with table.step(f"AtomID-Net size in torch fp16, {rows} x {cols}") as say, torch.cuda.stream(stream):
        table.spare()
        network = ModuleNetwork(module, torch.device(machine.device, 0), "atomid-net", 1, half=True)
        say(f"device {machine.device_ms(stream, network.bind(image), machine.repeats // 2):.2f} ms")
    with table.step(f"AtomID-Net size in TensorRT fp16, {rows} x {cols}") as say:
        table.spare(90.0)
        trt, path = import_tensorrt(), folder / "large.onnx"
        write_onnx(module.cpu(), path, {"confidence": {0: "batch", 2: "rows", 3: "cols"}, "spacing_px": {0: "batch"}})
        plan, _ = build_plan(trt, half(path.read_bytes()), BuildRecipe("fp16", (machine.large_shape,)))
        planned = TensorRtNetwork(trt, Engine("atomid-net", folder, {"output": {"stride": 1}}), plan, "fp16")
        with torch.cuda.stream(stream):
            say(f"device {machine.device_ms(stream, planned.bind(image), machine.repeats // 2):.2f} ms")
