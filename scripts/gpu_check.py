"""Prove the GPU's part of atomid-live on this machine and print one table; under eight minutes, then exit.

    python scripts/gpu_check.py [--seconds 450] [--model NAME]

Needs this repository and the packages of `atomid-live[gpu]`; pytest and hypothesis, where installed, run the properties of the
kernels too. What cannot run here is a line that says why, never a pass. Exit code 0: everything that ran is right and TensorRT
was among it; 1: something is wrong; 4: no GPU, or no TensorRT.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from atomid_live.backends.gpu_health import gpu_findings, gpu_problem
from atomid_live.errors import AtomidError, DeviceAbsentError
from atomid_live.gpu_check.check import SECONDS, check_gpu

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run everything that this machine has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="begin no step after this long")
    parser.add_argument("--model", default=None, help="engine by name or folder; default the shipped one")
    chosen = parser.parse_args()
    print(f"Python {platform.python_version()} on {platform.platform()}")
    for finding in gpu_findings():
        print(f"{finding.level:<4} {finding.topic}: {finding.text}" + (f" -> {finding.advice}" if finding.advice else ""))
    problem = gpu_problem()
    if problem:
        print(f"Nothing can be proven here: {problem}")
        return DeviceAbsentError.exit_code
    try:
        return check_gpu(chosen.model, chosen.seconds, ROOT)
    except AtomidError as error:
        print(error)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
