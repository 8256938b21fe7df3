"""Make a virtual environment of its own for rivals under the GPL: they run as separate processes and are never imported.

    python scripts/rival_environment.py FOLDER

prints the interpreter to give to `atomid-live evaluate suite --atomap-python`.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from environment import python_of

PACKAGES = ("atomap>=0.4.2",)


def main(folder: Path) -> int:
    """Create the environment and install the rivals into it; returns the exit code."""
    python = python_of(folder)
    if not python.is_file():
        venv.create(folder, with_pip=True)
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q", *PACKAGES]
    if subprocess.run(command, check=False).returncode:
        print(f"Installing {', '.join(PACKAGES)} failed (pip's message is above).", file=sys.stderr)
        return 1
    print(python)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/rival_environment.py FOLDER")
    sys.exit(main(Path(sys.argv[1])))
