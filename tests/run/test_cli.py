"""The command line as a user meets it: quick help, exit codes, single frames, a watched folder."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from atomid_live.session_file import read_session
from atomid_live.simulate.acquire import Session as Simulated
from atomid_live.simulate.files import write_frame
from atomid_live.simulate.scenario import Scenario

SCENARIO = Scenario(crystal="mos2", shape=(288, 320), frames=6, seed=5, drift_px_per_frame=(0.4, 0.9), contamination_e=0.0)
DOG = ("--model", "dog", "--display", "none", "--annotate", "none")


def run(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    command = [sys.executable, "-m", "atomid_live", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd, stdin=subprocess.DEVNULL)


def frames_in(folder: Path, which: range = range(6)) -> list[Path]:
    """Write simulated Velox files."""
    folder.mkdir(parents=True, exist_ok=True)
    simulated, paths = Simulated(SCENARIO), []
    for index in which:
        path = folder / f"frame_{index:03d}.emd"
        write_frame(path, SCENARIO, simulated.frame(index))
        paths.append(path)
    return paths


def sessions(out: Path) -> list[Path]:
    """Session folders, oldest first."""
    return sorted(out.glob("*Z*"))


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    """Half a second, and neither torch, openvino, matplotlib nor h5py (CONTRACT)."""
    code = (
        "import sys\nfrom atomid_live.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([n for n in ('torch', 'openvino', 'matplotlib', 'h5py', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "watch" in done.stdout and "detect" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["watch"], 2, "FOLDER"),
        (["watch", "/nowhere/at/all"], 2, "not a folder"),
        (["frobnicate"], 2, "Unknown command"),
        (["watch", ".", "--threshold", "7"], 2, "threshold"),
        (["detect", "x.emd", "--model", "nonesuch"], 2, "nonesuch"),
        (["listen", "tcp://192.0.2.7:5555"], 2, "not on this machine"),
        (["config", "show", "--config", "missing.toml"], 2, "missing.toml"),
    ],
)
def test_wrong_use_ends_with_code_2_and_the_next_step(words: list[str], code: int, says: str, tmp_path: Path) -> None:
    """One line on standard error, no traceback."""
    done = run(*words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr


def test_config_show_tells_value_and_origin(tmp_path: Path) -> None:
    """Command line over file over default."""
    file = tmp_path / "mine.toml"
    file.write_text("[detect]\nmodel = 'dog'\nthreshold = 0.3\n")
    lines = run("config", "show", "--config", file, "--threshold", "0.4").stdout.splitlines()
    told = {line.split("=")[0].strip(): line for line in lines}
    assert "0.4" in told["detect.threshold"] and "command line" in told["detect.threshold"]
    assert "dog" in told["detect.model"] and "mine.toml" in told["detect.model"]
    assert "default" in told["source.settle_s"]


def test_an_unknown_key_in_a_settings_file_is_refused(tmp_path: Path) -> None:
    """Also inside a section."""
    file = tmp_path / "typo.toml"
    file.write_text("[source]\nsetle_s = 1\n")
    done = run("config", "show", "--config", file)
    assert done.returncode == 2 and "source.setle_s" in done.stderr


def test_detect_writes_table_and_picture_and_never_overwrites(tmp_path: Path) -> None:
    """A second run gets a numeric suffix and says so; an unreadable file costs exit code 1, not the others."""
    (path,) = frames_in(tmp_path / "in", range(1))
    junk = tmp_path / "junk.png"
    junk.write_bytes(b"this is no picture")
    first = run("detect", path, "--model", "dog", "--out", tmp_path / "out", "--json")
    assert first.returncode == 0, first.stderr
    line = json.loads(first.stdout)
    assert line["columns"] > 50 and line["pixel_size_yx_nm"] == pytest.approx([0.0124, 0.0124])
    table = np.genfromtxt(tmp_path / "out" / "frame_000.atoms.csv", delimiter=",", names=True)
    assert len(table) == line["columns"] and table["x_px"].max() > 288 > table["y_px"].max()
    again = run("detect", path, junk, "--model", "dog", "--out", tmp_path / "out")
    assert again.returncode == 1
    assert "written as" in again.stderr and "junk.png" in again.stderr
    assert len(list((tmp_path / "out").glob("*.csv"))) == len(list((tmp_path / "out").glob("*.png"))) == 2


def test_watch_takes_what_is_there_and_ends_when_idle(tmp_path: Path) -> None:
    """JSON lines on standard output, one per frame, and a session that ended in order."""
    frames_in(tmp_path / "in")
    words = ("--existing", "process", "--until-idle", "1", "--json", "--out", tmp_path / "out")
    done = run("watch", tmp_path / "in", *words, *DOG)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame"] for line in lines] == list(range(6))
    (folder,) = sessions(tmp_path / "out")
    record = json.loads((folder / "session.json").read_text())
    assert record["outcome"] == "clean" and record["counts"]["processed"] == 6
    assert "torch" not in (folder / "session.log").read_text()


def test_a_killed_session_goes_on_with_nothing_lost_and_nothing_doubled(tmp_path: Path) -> None:
    """Kill -9 in the middle, twice; the third run finishes: every frame has exactly one processed line."""
    watched, out = tmp_path / "in", tmp_path / "out"
    frames_in(watched)
    words = [sys.executable, "-m", "atomid_live", "watch", str(watched), "--existing", "process", "--out", str(out), *DOG]
    for wanted in (2, 4):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 90
        while sum(f.read_bytes().count(b'"kind":"frame"') for f in out.glob("*/frames.jsonl")) < wanted:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
        process.wait()
    done = run("watch", watched, "--until-idle", "1", "--out", out, *DOG)
    assert done.returncode == 0, done.stderr
    (folder,) = sessions(out)
    record = read_session(folder)
    taken = [line["source"] for line in record.frames if line["state"] == "processed"]
    assert sorted(Path(name).name for name in taken) == [f"frame_{k:03d}.emd" for k in range(6)]
    assert [line["sequence"] for line in record.frames] == list(range(len(record.frames)))
    assert "cut off" in done.stderr


def test_a_second_session_takes_only_what_is_new(tmp_path: Path) -> None:
    """After an orderly end the ledger is handed on; the watched files are untouched."""
    watched, out = tmp_path / "in", tmp_path / "out"
    frames_in(watched, range(3))
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in watched.iterdir()}
    run("watch", watched, "--existing", "process", "--until-idle", "1", "--out", out, *DOG)
    frames_in(watched, range(3, 5))
    done = run("watch", watched, "--until-idle", "1", "--out", out, *DOG)
    assert done.returncode == 0 and "not taken again" in done.stderr
    newest = max(sessions(out), key=lambda path: path.stat().st_mtime_ns)
    names = [Path(line["source"]).name for line in read_session(newest).frames if line["state"] == "processed"]
    assert names == ["frame_003.emd", "frame_004.emd"]
    assert all((path.stat().st_mtime_ns, path.read_bytes()) == kept for path, kept in before.items())
    assert {path.name for path in watched.iterdir()} == {f"frame_{k:03d}.emd" for k in range(5)}


def test_replay_runs_saved_frames_again(tmp_path: Path) -> None:
    """In natural order, ending by itself."""
    frames_in(tmp_path / "in", range(3))
    done = run("replay", tmp_path / "in", "--out", tmp_path / "out", "--json", *DOG)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_doctor_says_what_it_finds(tmp_path: Path) -> None:
    """Versions, folder, disk; exit code 0 on a healthy PC."""
    frames_in(tmp_path / "in", range(1))
    done = run("doctor", tmp_path / "in", "--model", "dog", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("python", "processors", "detector", "1 files", "GB free"):
        assert word in done.stdout
    assert run("doctor", tmp_path / "gone", "--model", "dog").returncode == 1


def test_points_are_scored(tmp_path: Path) -> None:
    """A perfect prediction, and its text form."""
    y, x = np.mgrid[20:200:20, 20:260:20]
    table = "X,Y\n" + "".join(f"{a},{b}\n" for a, b in zip(x.ravel(), y.ravel(), strict=True))
    (tmp_path / "truth.csv").write_text(table)
    words = ("evaluate", "points", tmp_path / "truth.csv", tmp_path / "truth.csv", "--frame-size", "280,220")
    report = json.loads(run(*words, "--json").stdout)
    assert report["f1"] == 1.0
    assert "F1" in run(*words).stdout
