"""Build the TensorRT plan of an engine for this PC's GPU; the same as `atomid-live engine build`.

python scripts/build_engine.py [--model NAME] [--precision fp32|fp16|int8] [--side 1024] [--side 512x2048]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from atomid_live.backends.engine_build import build_engine_plan
from atomid_live.errors import AtomidError


def main() -> int:
    """Return the exit code of CONTRACT: 4 when there is no GPU or no TensorRT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="engine by name or folder; default the one that ships")
    parser.add_argument("--precision", default="fp16", choices=("fp32", "fp16", "int8"))
    parser.add_argument("--side", action="append", default=[], help="frame size in use, rows or rows x columns; repeatable")
    chosen = parser.parse_args()
    begun = time.monotonic()
    try:
        build_engine_plan(
            chosen.model,
            chosen.precision,
            chosen.side,
            lambda text: print(f"{time.monotonic() - begun:6.1f} s  {text}", flush=True),
        )
    except AtomidError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
