"""Fill ./wheels on a connected PC, so that a microscope PC without a network can install.

python scripts/wheelhouse.py --platform win_amd64 --python 3.12
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib

from environment import CONSTRAINTS, ROOT, WHEELS

PLATFORMS = {
    "win_amd64": ["win_amd64"],
    "linux_x86_64": ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"],
}


def main() -> int:
    """Return pip's exit code."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--platform", choices=sorted(PLATFORMS), default="win_amd64")
    words.add_argument("--python", default="3.12", choices=["3.11", "3.12", "3.13"])
    chosen = words.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = [*project["project"]["dependencies"], *project["build-system"]["requires"], "pip", "editables"]
    target = [word for tag in PLATFORMS[chosen.platform] for word in ("--platform", tag)]
    command = [
        *(sys.executable, "-m", "pip", "download", "-d", str(WHEELS), "-c", str(CONSTRAINTS)),
        *("--only-binary=:all:", "--python-version", chosen.python, "--implementation", "cp", *target),
        *needed,
    ]
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        size = sum(file.stat().st_size for file in WHEELS.glob("*.whl")) / 1e6
        print(f"{len(list(WHEELS.glob('*.whl')))} wheels, {size:.0f} MB, in {WHEELS}: copy the whole folder to the other PC.")
    return code


if __name__ == "__main__":
    sys.exit(main())
