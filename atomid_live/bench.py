"""`bench`: the whole chain from file to written line, warm, stage by stage, on simulated frames in Velox layout."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from atomid_live import __version__
from atomid_live.assemble import Prepared
from atomid_live.errors import UsageError
from atomid_live.simulate.microscope import bench_frames

_LEAST_FRAMES = 16
_WARM_UP = 3
_PACKAGES = ("numpy", "scipy", "numba", "opencv-python-headless", "openvino", "onnxruntime", "pyfive")


def _quantiles(values: list[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {
        name: round(float(v), 2) for name, v in zip(("p50", "p95", "p99", "max"), (p50, p95, p99, max(values)), strict=True)
    }


def _machine() -> dict[str, Any]:
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {"processor": model, "cores": os.cpu_count(), "system": f"{platform.system()} {platform.release()}"}


def measure(prepared: Prepared, count: int, side: int) -> dict[str, Any]:
    """Write `count` different frames, run them through the chain, and return the object that `bench --json` prints.

    A frame is taken when the picture of the one before is finished, as happens at a live pace (a picture takes about 70 ms
    on another core, and is not part of a frame's latency).

    Parameters
    ----------
    prepared : Prepared
        Settings; the model, threads and recording are those of a session.
    count : int
        Frames measured, at least 16; three more warm the chain up.
    side : int
        Rows and columns of a frame in pixels.
    """
    if count < _LEAST_FRAMES:
        raise UsageError(f"--frames is {count}; a median and a 95 % value need at least {_LEAST_FRAMES} different frames")
    with tempfile.TemporaryDirectory(prefix="atomid-bench-") as text:
        folder = Path(text)
        files = bench_frames(folder / "frames", count + _WARM_UP, side)
        totals, stages, columns = [], dict[str, list[float]](), []
        with prepared.offline_chain(folder / "out") as chain:
            chain.warm_up((side, side))
            for number, file in enumerate(files):
                begun = perf_counter()
                frame = chain.read(file, number)
                read = perf_counter()
                result = chain.process(frame)
                done = perf_counter()
                chain.record(frame, result)
                end = perf_counter()
                chain.settle()
                if number < _WARM_UP:
                    continue
                totals.append((end - begun) * 1e3)
                columns.append(len(result.detections))
                parts = {"read": (read - begun) * 1e3, **result.timings_ms, "record": (end - done) * 1e3}
                for name, value in parts.items():
                    stages.setdefault(name, []).append(value)
            name = chain.detector_name
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {
        "schema": 1,
        "model": name,
        "frames": len(totals),
        "shape_xy": [side, side],
        "columns_mean": round(float(np.mean(columns)), 1),
        "threads": prepared.threads,
        "end_to_end_ms": _quantiles(totals),
        "stages_ms": {key: _quantiles(values) for key, values in stages.items()},
        "machine": _machine(),
        "versions": {"atomid-live": __version__, "python": platform.python_version(), **versions},
    }


def as_text(report: dict[str, Any]) -> str:
    """Return the report as a table."""
    head = f"{report['model']}: {report['frames']} frames of {report['shape_xy'][0]} x {report['shape_xy'][1]} pixels, "
    lines = [f"{head}{report['columns_mean']:.0f} columns each, {report['threads']} thread(s)"]
    lines.append(f"on {report['machine']['processor']}, {report['machine']['cores']} cores\n")
    lines.append(f"{'ms':<14}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}")
    for name, row in {**report["stages_ms"], "end to end": report["end_to_end_ms"]}.items():
        lines.append(f"{name:<14}" + "".join(f"{row[key]:9.2f}" for key in ("p50", "p95", "p99", "max")))
    return "\n".join(lines)


def run_bench(prepared: Prepared, count: int, side: int) -> int:
    """Print the report, as JSON with `--json`; always 0, since a time is never a verdict."""
    report = measure(prepared, count, side)
    print(json.dumps(report, indent=2) if prepared.settings.output.json_lines else as_text(report))
    return 0
