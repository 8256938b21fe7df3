"""The built wheel alone, in an empty environment, finds columns with the model it carries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from atomid_live.simulate.acquire import Session
from atomid_live.simulate.files import write_frame
from atomid_live.simulate.scenario import Scenario

ROOT = Path(__file__).resolve().parents[2]


def _pip(python: Path | str, *words: str | Path) -> None:
    offline = ["--no-index", "--find-links", str(ROOT / "wheels")] if any((ROOT / "wheels").glob("*.whl")) else []
    command = [
        str(python),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "-q",
        *map(str, words[:1]),
        *offline,
        *map(str, words[1:]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_wheel_works_without_the_repository(tmp_path: Path) -> None:
    """Code, engines and calibration are inside; neither torch nor anything under the GPL is pulled in."""
    _pip(sys.executable, "wheel", "--no-deps", "-w", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    _pip(python, "install", wheel, "-c", ROOT / "constraints.txt")
    scenario = Scenario(crystal="res2", shape=(320, 384), frames=1, seed=11, contamination_e=0.0)
    frame = Session(scenario).frame(0)
    write_frame(tmp_path / "frame.emd", scenario, frame)
    words = [str(python), "-m", "atomid_live", "detect", "frame.emd", "--json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["columns"] == pytest.approx(frame.truth.visible.sum(), rel=0.1)
    listed = subprocess.run([str(python), "-m", "pip", "list"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert not {"torch", "rosettasciio", "hyperspy", "matplotlib"} & {line.split()[0].lower() for line in listed.splitlines()}
    inside = (
        "import atomid_live, pathlib; print(sorted(p.name for p in pathlib.Path(atomid_live.__file__).parent.glob('_*/*')))"
    )
    names = subprocess.run(
        [str(python), "-c", inside], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    shipped = [path.name for path in (ROOT / "engines").iterdir() if path.is_dir()]
    assert all(name in names for name in shipped)
