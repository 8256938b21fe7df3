"""`bench`: the whole chain from file to written line, warm, stage by stage, on simulated frames in Velox layout."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from atomid_live import __version__
from atomid_live.assemble import Chain, Prepared
from atomid_live.endurance import growth_mb, idle_percent, peak_mb, resident_mb
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


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes
    ----------
    frames : int
        Different frames that are timed, at least 16; three more come before them and are told apart.
    side : int
        Rows and columns of a frame in pixels.
    endurance : int
        Frames more, to see memory grow; 0 leaves it out, and under 200 show nothing.
    idle_s : float
        Seconds over an empty folder; 0 leaves it out.
    """

    frames: int = 24
    side: int = 1024
    endurance: int = 0
    idle_s: float = 0.0


@dataclass(slots=True)
class _Times:
    totals: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    columns: list[int] = field(default_factory=list)

    def take(self, chain: Chain, file: Path, number: int) -> None:
        """Run one frame from file to written line; the picture is waited for outside the time."""
        begun = perf_counter()
        frame = chain.read(file, number)
        read = perf_counter()
        result = chain.process(frame)
        done = perf_counter()
        chain.record(frame, result)
        end = perf_counter()
        chain.settle()
        self.totals.append((end - begun) * 1e3)
        self.columns.append(len(result.detections))
        parts = {"read": (read - begun) * 1e3, **result.timings_ms, "record": (end - done) * 1e3}
        for name, value in parts.items():
            self.stages.setdefault(name, []).append(value)


def measure(prepared: Prepared, plan: Plan) -> dict[str, Any]:
    """Write different frames, run them through the chain, and return the object that `bench --json` prints.

    A frame is taken when the picture of the one before is finished, as happens at a live pace (a picture takes about 70 ms
    on another core, and is not part of a frame's latency). With two lanes GPA runs beside drift, so that the stages add up
    to more than the whole.

    Parameters
    ----------
    prepared : Prepared
        Settings; the model, threads and recording are those of a session.
    plan : Plan
    """
    if plan.frames < _LEAST_FRAMES:
        raise UsageError(f"--frames is {plan.frames}; a median and a 95 % value need at least {_LEAST_FRAMES} different frames")
    shape, before, longer = (plan.side, plan.side), resident_mb(), dict[str, float]()
    with tempfile.TemporaryDirectory(prefix="atomid-bench-") as text:
        folder = Path(text)
        files = bench_frames(folder / "frames", plan.frames + _WARM_UP, plan.side)
        with prepared.offline_chain(folder / "out") as chain:
            begun = perf_counter()
            chain.warm_up(shape)
            warm_up_s, first, times = perf_counter() - begun, _Times(), _Times()
            for number, file in enumerate(files):
                (first if number < _WARM_UP else times).take(chain, file, number)
            name = chain.detector_name
            if plan.endurance:
                growth = growth_mb(chain, files, plan.endurance, len(files))
                longer = {"frames": plan.endurance, "growth_per_1000_frames": round(growth, 1)}
    report = {
        "schema": 1,
        "model": name,
        "frames": len(times.totals),
        "shape_xy": list(shape),
        "columns_mean": round(float(np.mean(times.columns)), 1),
        "threads": prepared.threads,
        "end_to_end_ms": _quantiles(times.totals),
        "stages_ms": {key: _quantiles(values) for key, values in times.stages.items()},
        "with_first_frames_ms": _quantiles(first.totals + times.totals),
        "start": {"warm_up_s": round(warm_up_s, 2), "first_frame_ms": round(first.totals[0], 2)},
        "memory_mb": {"before": round(before), "peak": round(peak_mb()), **longer},
        "machine": _machine(),
        "versions": _versions(),
    }
    if plan.idle_s > 0:
        report["idle_percent_of_a_core"] = round(idle_percent(prepared, plan.idle_s), 2)
    return report


def _versions() -> dict[str, str]:
    packages = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {"atomid-live": __version__, "python": platform.python_version(), **packages}


def as_text(report: dict[str, Any]) -> str:
    """Return the report as a table."""
    head = f"{report['model']}: {report['frames']} frames of {report['shape_xy'][0]} x {report['shape_xy'][1]} pixels, "
    lines = [f"{head}{report['columns_mean']:.0f} columns each, {report['threads']} thread(s)"]
    lines.append(f"on {report['machine']['processor']}, {report['machine']['cores']} cores\n")
    lines.append(f"{'ms':<14}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}")
    rows = {**report["stages_ms"], "end to end": report["end_to_end_ms"], "with the first": report["with_first_frames_ms"]}
    for name, row in rows.items():
        lines.append(f"{name:<14}" + "".join(f"{row[key]:9.2f}" for key in ("p50", "p95", "p99", "max")))
    return "\n".join([*lines, "", *_about(report)])


def _about(report: dict[str, Any]) -> list[str]:
    start, memory, idle = report["start"], report["memory_mb"], report.get("idle_percent_of_a_core")
    lines = [f"warm-up {start['warm_up_s']} s, then the first frame {start['first_frame_ms']} ms"]
    grown = ""
    if "frames" in memory:
        grown = f", {memory['growth_per_1000_frames']:+} MB per 1000 frames over {memory['frames']} frames"
    lines.append(f"memory {memory['before']} MB before, {memory['peak']} MB at most{grown}")
    return lines if idle is None else [*lines, f"over an empty folder {idle} % of one core"]


def run_bench(prepared: Prepared, plan: Plan) -> int:
    """Print the report, as JSON with `--json`; always 0, since a time is never a verdict."""
    report = measure(prepared, plan)
    print(json.dumps(report, indent=2) if prepared.settings.output.json_lines else as_text(report))
    return 0
