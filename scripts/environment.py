"""Make `.venv` and install into it what was asked for, once; standard library only, since nothing else is there yet."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHEELS = ROOT / "wheels"
CONSTRAINTS = ROOT / "constraints.txt"


def python_of(folder: Path) -> Path:
    """Path of the interpreter inside a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _stamp(parts: str) -> str:
    digest = hashlib.sha256(f"{parts}|{ROOT}|{sys.version_info[:2]}".encode())
    for file in (ROOT / "pyproject.toml", CONSTRAINTS):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def pip(python: Path, *words: str) -> None:
    """Run pip in that environment, from ./wheels alone when that folder is there."""
    offline = ["--no-index", "--find-links", str(WHEELS)] if any(WHEELS.glob("*.whl")) else []
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q", *offline, *words]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        where = f"the wheels in {WHEELS}" if offline else "the package index"
        sys.exit(
            f"Installing {' '.join(words)} from {where} failed (pip's message is above).\n"
            "Without a network: run `python scripts/wheelhouse.py` on a connected PC and copy its folder ./wheels here."
        )


def ready(extras: str, before: tuple[str, ...] = ()) -> Path:
    """Return the interpreter of `.venv` with the package and `extras` installed; does nothing when they already are.

    `before` is installed first, e.g. a torch build that later packages must not replace.
    """
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        sys.exit(f"This is Python {sys.version.split()[0]}; atomid-live needs 3.11, 3.12 or 3.13. Start it with one of those.")
    folder = ROOT / ".venv"
    python, mark = python_of(folder), folder / f"installed-{extras or 'core'}.txt"
    wanted = _stamp(extras + " ".join(before))
    if mark.is_file() and mark.read_text() == wanted and python.is_file():
        return python
    if not python.is_file():
        print(f"Making {folder} ...", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
    print("Installing what is needed (once) ...", file=sys.stderr, flush=True)
    for package in before:
        pip(python, package, "-c", str(CONSTRAINTS))
    target = f"{ROOT}[{extras}]" if extras else str(ROOT)
    pip(python, "-e", target, "-c", str(CONSTRAINTS))
    mark.write_text(wanted)
    return python
