"""The kernels alone: compile, compare with the NumPy reference, repeat, and run the tests that are marked for a GPU."""

from __future__ import annotations

import importlib.util
import subprocess
import time
from pathlib import Path

import numpy as np

from atomid_live.gpu_check.bandpass import jittered_scene
from atomid_live.gpu_check.machine import Machine
from atomid_live.gpu_check.table import NotHereError, Table, need
from atomid_live.gpu_check.versions import CudaVersion, NumpyVersion, TorchVersion
from atomid_live.kernels.layout import Column

MANY_ROOM = 1 << 17


def kernels_alone(table: Table, machine: Machine, root: Path) -> None:
    """Fill the lines on kernels."""
    with table.step("kernels compile and load (NVRTC)") as say:
        table.spare()
        begun = time.monotonic()
        CudaVersion(machine.launcher()).peaks(np.zeros((8, 8), np.float32), 0.5, 2.0)
        say(f"{time.monotonic() - begun:.1f} s for this GPU")
    for name in ("CUDA", "torch"):
        with table.step(f"{name}: peaks, resampling, contrast, fit against NumPy") as say:
            table.spare()
            made = CudaVersion(machine.launcher(), 65536) if name == "CUDA" else TorchVersion(machine.device)
            say(_against_reference(made))
    with table.step("CUDA: 100 000 columns, the same bits each time") as say:
        table.spare()
        image, places = jittered_scene(machine.many_shape, 5.0, 1.5, 4)
        many = CudaVersion(machine.launcher(), MANY_ROOM)
        first, _ = many.refine(image, places, 1.5)
        for _ in range(3):
            again, _ = many.refine(image, places, 1.5)
            need(bool(np.array_equal(first, again)), "two runs gave different bits")
        say(f"{len(places)} columns, 4 runs equal")
    with table.step("property tests on the GPU (pytest)") as say:
        table.spare(60.0)
        say(_tests(table, machine, root))


def _against_reference(made: CudaVersion | TorchVersion) -> str:
    truth = NumpyVersion()
    noise = np.random.default_rng(1).random((96, 160)).astype(np.float32)
    noise[3, 5], noise[10:14, 20:26] = np.nan, 0.7
    for a, b in zip(made.peaks(noise, 0.2, 2.4), truth.peaks(noise, 0.2, 2.4), strict=True):
        np.testing.assert_array_equal(a, b)
    image, places = jittered_scene((160, 220), 8.0, 1.9, 3)
    np.testing.assert_allclose(made.resample(image, (100, 131)), truth.resample(image, (100, 131)), atol=2e-2)
    np.testing.assert_allclose(made.contrast(image), truth.contrast(image), atol=3e-3)
    (a, wide), (b, wider) = made.refine(image, places, 1.9), truth.refine(image, places, 1.9)
    off = float(np.abs(a[:, :2] - b[:, :2]).max())
    # a pixel on the very rim of the round window may be in for one version and out for the other
    need(off < 1e-2 and abs(wide - wider) < 1e-3, f"fits differ by {off} px, widths by {wide - wider}")
    need(bool((a[:, Column.OK] == b[:, Column.OK]).all()), "different fits failed")
    return f"peaks equal, fit within {off:.1e} px of {len(a)} columns"


def _tests(table: Table, machine: Machine, root: Path) -> str:
    if any(importlib.util.find_spec(name) is None for name in ("pytest", "hypothesis")):
        raise NotHereError("pytest or hypothesis is not installed")
    left = max(30.0, min(150.0, table.until - time.monotonic() - 200.0))
    try:
        ran = machine.tests(root, left)
    except subprocess.TimeoutExpired:
        raise NotHereError(f"did not end within {left:.0f} s") from None
    last = (ran.stdout.strip().splitlines()[-1:] or [ran.stderr[-200:]])[0]
    need(ran.returncode == 0, last + ran.stdout[-1500:])
    return last
