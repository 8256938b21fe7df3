"""Real Spectra frames through a watched folder; they are read from elsewhere and skip when absent."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atomid_live.session_file import read_session


def test_two_spectra_frames_one_slow_one_renamed_give_one_result_each(real_data: Path, tmp_path: Path) -> None:
    """Copied in piece by piece, and renamed into place: two results, two segments, two pictures."""
    slow, renamed = (real_data / "unlabelled" / name for name in ("spectra_ws2.emd", "spectra_twin_boundary.emd"))
    watched, out = tmp_path / "in", tmp_path / "out"
    watched.mkdir()
    words = [sys.executable, "-m", "atomid_live", "watch", str(watched), "--out", str(out), "--model", "dog"]
    options = ["--existing", "process", "--until-idle", "6", "--max-frames", "2", "--display", "none"]
    process = subprocess.Popen([*words, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    data = slow.read_bytes()
    with (watched / slow.name).open("wb") as handle:
        for at in range(0, len(data), len(data) // 12):
            handle.write(data[at : at + len(data) // 12])
            handle.flush()
            time.sleep(0.1)
    shutil.copyfile(renamed, watched / ".part")
    (watched / ".part").rename(watched / renamed.name)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    (folder,) = out.iterdir()
    record = read_session(folder)
    frames = [line for line in record.frames if line["state"] == "processed"]
    assert sorted(Path(line["source"]).name for line in frames) == sorted([slow.name, renamed.name])
    assert len(record.frames) == 2 and {line["segment"] for line in frames} == {0, 1}
    sizes = {Path(line["source"]).name: line["pixel_size_yx_nm"][0] for line in frames}
    assert sizes[renamed.name] == pytest.approx(0.008006, abs=2e-6) and sizes[slow.name] == pytest.approx(0.01062, abs=2e-5)
    assert all(line["columns"] > 900 for line in frames)
    assert len(list((folder / "annotated").glob("*.png"))) == 2
    assert json.loads((folder / "session.json").read_text())["outcome"] == "clean"
