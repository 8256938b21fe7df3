"""`doctor`: look over this PC and say, for each finding, whether it is well and what to do if not."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from atomid_live.assemble import Prepared
from atomid_live.errors import AtomidError
from atomid_live.guest import default_threads

_PACKAGES = ("numpy", "numba", "opencv-python-headless", "openvino", "onnxruntime", "pyfive", "h5py", "watchdog", "pyzmq")
_NETWORK_MOUNTS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs"}
_FREE_BYTES_WANTED = 5e9


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    level: Literal["ok", "note", "bad"]
    topic: str
    text: str
    advice: str = ""


def _software() -> Iterator[Finding]:
    yield Finding(
        "ok", "python", f"{platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    )
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding("bad", "package", f"{name} is missing", "run `python scripts/start.py` again")
    yield Finding("ok", "packages", ", ".join(found))


def _processors(prepared: Prepared) -> Iterator[Finding]:
    cores, used = os.cpu_count() or 1, prepared.settings.threads or default_threads()
    level: Literal["ok", "note"] = "ok" if cores >= 2 else "note"
    advice = "" if cores >= 2 else "one core must serve the microscope too; expect longer frames"
    yield Finding(level, "processors", f"{cores} cores, {used} used by the analysis", advice)


def _detector(prepared: Prepared) -> Iterator[Finding]:
    try:
        detector = prepared.detector()
        begun = time.perf_counter()
        detector.warm_up((512, 512))
        yield Finding("ok", "detector", f"{detector.name}, warm after {time.perf_counter() - begun:.1f} s")
    except AtomidError as error:
        yield Finding("bad", "detector", str(error), "--model dog needs no network")


def _disk(prepared: Prepared) -> Iterator[Finding]:
    out = prepared.settings.output.out.resolve()
    there = next(p for p in (out, *out.parents) if p.exists())
    if not os.access(there, os.W_OK):
        yield Finding("bad", "output", f"{out} cannot be written", "choose another folder with --out")
        return
    free = shutil.disk_usage(there).free
    text = f"{out}: {free / 1e9:.1f} GB free"
    if free < _FREE_BYTES_WANTED:
        yield Finding(
            "note", "output", text, "an annotated frame takes about 2 MB, a table 1 MB; --annotate events saves most of it"
        )
    else:
        yield Finding("ok", "output", text)


def _mount_type(folder: Path) -> str:
    """File-system type of a folder on Linux, "" elsewhere or when unknown."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    mounts = sorted((line.split()[1:3] for line in lines), key=lambda pair: len(pair[0]))
    inside = [kind for point, kind in mounts if folder.is_relative_to(point)]
    return inside[-1] if inside else ""


def _folder(folder: Path | None) -> Iterator[Finding]:
    if folder is None:
        yield Finding("note", "folder", "none given", "name the folder you mean to watch: atomid-live doctor FOLDER")
        return
    folder = folder.resolve()
    try:
        entries = [entry for entry in os.scandir(folder) if entry.is_file()]
    except OSError as error:
        yield Finding("bad", "folder", f"{folder}: {error.strerror}", "check the path, and that this user may read it")
        return
    newest = max((entry.stat().st_mtime for entry in entries), default=None)
    text = f"{folder}: {len(entries)} files"
    if newest is not None:
        ahead = newest - time.time()
        text += f", newest {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(newest))} UTC"
        if ahead > 2:
            advice = "the clocks of this PC and of the writer differ; set both by the network"
            yield Finding("note", "clock", f"newest file is {ahead:.0f} s in the future", advice)
    kind = _mount_type(folder)
    if kind in _NETWORK_MOUNTS or str(folder).startswith("\\\\"):
        yield Finding(
            "note",
            "folder",
            f"{text} (network share {kind})",
            "events do not come from shares: it is polled, see scan_interval_s",
        )
    else:
        yield Finding("ok", "folder", text)


def _terminal() -> Iterator[Finding]:
    size, encoding = shutil.get_terminal_size(), (sys.stdout.encoding or "").lower()
    if not sys.stdout.isatty():
        yield Finding("note", "terminal", "output is not a terminal", "plain lines are printed instead of the dashboard")
    elif size.columns < 80 or size.lines < 24:
        yield Finding("note", "terminal", f"{size.columns} x {size.lines}", "the dashboard wants 80 x 24")
    else:
        yield Finding("ok", "terminal", f"{size.columns} x {size.lines}, {encoding}")


def _gpu() -> Iterator[Finding]:
    from atomid_live.backends.gpu_health import gpu_findings

    for found in gpu_findings():
        yield Finding(found.level, found.topic, found.text, found.advice)


def _window() -> Iterator[Finding]:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        yield Finding(
            "note", "window", "matplotlib is not installed", "for --display window: pip install 'atomid-live[window]'"
        )
    else:
        yield Finding("ok", "window", f"matplotlib {importlib.metadata.version('matplotlib')}")


def examine(prepared: Prepared, folder: Path | None) -> int:
    """Print every finding; returns 1 when something is bad."""
    findings: list[Finding] = []
    mark = {"ok": "ok  ", "note": "note", "bad": "BAD "}
    parts = (
        _software(),
        _processors(prepared),
        _detector(prepared),
        _disk(prepared),
        _folder(folder),
        _terminal(),
        _window(),
        _gpu(),
    )
    for part in parts:
        for finding in part:
            findings.append(finding)
            print(f"{mark[finding.level]}  {finding.topic:<11} {finding.text}")
            if finding.advice:
                print(f"      {'':<11} -> {finding.advice}")
    bad = sum(finding.level == "bad" for finding in findings)
    print("Nothing stands in the way." if not bad else f"{bad} finding(s) must be put right.")
    return 1 if bad else 0
