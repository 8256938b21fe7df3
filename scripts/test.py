"""Install what the checks need and run every check: ruff, mypy, import-linter, pytest.

python scripts/test.py [--no-torch] [pytest arguments]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from environment import ROOT, ready

TORCH = "torch==2.13.0"


def run(name: str, *command: str) -> bool:
    """Run one check and say how it went."""
    print(f"\n=== {name}", flush=True)
    begun = time.monotonic()
    passed = subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    print(f"--- {name}: {'passed' if passed else 'FAILED'} in {time.monotonic() - begun:.0f} s", flush=True)
    return passed


def main() -> int:
    """Return 0 when every check passed."""
    arguments = sys.argv[1:]
    torch = "--no-torch" not in arguments
    arguments = [word for word in arguments if word != "--no-torch"]
    python = ready("test,train" if torch else "test", before=(TORCH,) if torch else ())
    tools = Path(python).parent
    os.environ.setdefault("PYTHONUTF8", "1")
    chosen = [] if torch else ["-m", "not torch"]
    if not torch:
        print("--no-torch: tests marked `torch` are left out; training and its export are NOT checked.")
    checks = [
        run("ruff check", str(python), "-m", "ruff", "check", "."),
        run("ruff format", str(python), "-m", "ruff", "format", "--check", "."),
        run("mypy --strict", str(python), "-m", "mypy"),
        run("import-linter", str(tools / ("lint-imports.exe" if os.name == "nt" else "lint-imports"))),
        run("pytest", str(python), "-m", "pytest", *chosen, *arguments),
    ]
    print("\nEvery check passed." if all(checks) else "\nA check FAILED; see above.")
    return 0 if all(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
