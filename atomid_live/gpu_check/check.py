"""All steps in order, and what their verdicts mean for the exit code."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from atomid_live.backends.engine import Engine, find_engine, load_engine
from atomid_live.errors import DeviceAbsentError
from atomid_live.gpu_check.bandpass import bandpass_engine
from atomid_live.gpu_check.detector_steps import graph_beside_others, stages_alone, whole_detectors
from atomid_live.gpu_check.kernel_steps import kernels_alone
from atomid_live.gpu_check.machine import Machine
from atomid_live.gpu_check.plan_steps import build_plans, large_network
from atomid_live.gpu_check.table import WRONG, Table

SECONDS = 450.0


def engine_of(model: str | None, folder: Path) -> Engine:
    """The engine asked for, the shipped one, or where none ships a small one made in `folder`."""
    found = find_engine(model)
    return bandpass_engine(folder / "bandpass") if found is None else load_engine(found)


def check_gpu(model: str | None, seconds: float, root: Path, machine: Machine | None = None) -> int:
    """Run every step that this machine can, print the table, and return the exit code.

    Parameters
    ----------
    model : str or None
        Engine by name or folder.
    seconds : float
        No step begins later than this.
    root : Path
        The repository, for its tests.
    machine : Machine or None
        Default: the first GPU.

    Returns
    -------
    int
        0: all that ran is right and TensorRT was among it; 1: something is wrong; 4: TensorRT did not run.
    """
    used, table = machine or Machine(), Table(time.monotonic() + seconds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine = engine_of(model, folder)
        kernels_alone(table, used, root)
        plans = build_plans(table, engine, folder)
        whole_detectors(table, used, engine, plans)
        stages_alone(table, used, engine)
        graph_beside_others(table, used, engine)
        large_network(table, used, folder)
    print(table.text())
    if table.count(WRONG):
        return 1
    return 0 if plans else DeviceAbsentError.exit_code
