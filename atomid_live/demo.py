"""`demo`: a simulated Spectra 300 writes frames into a folder, the companion watches it, and the truth is compared last."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from atomid_live import run
from atomid_live.assemble import Prepared
from atomid_live.evaluate.session_truth import as_text, compare
from atomid_live.settings import Settings
from atomid_live.simulate.microscope import truth_folder

PACE_S = 1.2
STRAIN = 0.004
_SILENCE_S = 20.0


def _settings(prepared: Prepared, frames: int) -> Settings:
    changes = {"existing": "process", "max_frames": frames, "until_idle_s": _SILENCE_S}
    return prepared.settings.model_copy(update={"source": prepared.settings.source.model_copy(update=changes)})


def _microscope(folder: Path, frames: int, seed: int) -> subprocess.Popen[bytes]:
    """Start the simulated microscope as its own process, as the real one is."""
    words = ["--frames", str(frames), "--pace", str(PACE_S), "--seed", str(seed), "--strain", str(STRAIN)]
    command = [sys.executable, "-m", "atomid_live.simulate.microscope", str(folder), *words]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def run_demo(prepared: Prepared, frames: int, seed: int) -> int:
    """Run the demo and return its exit code; 1 when the simulated microscope or the session failed."""
    out = prepared.settings.output.out
    folder = out / time.strftime("demo-%Y%m%dT%H%M%SZ", time.gmtime()) / "frames"
    folder.mkdir(parents=True)
    chosen = Prepared(_settings(prepared, frames), prepared.origins)
    print(f"A simulated Spectra 300 will write {frames} frames into {folder}, one every {PACE_S} s.")
    print(
        f"The specimen drifts all the time, and after a third of them it begins to strain, to {100 * STRAIN:g} %.", flush=True
    )
    built = chosen.watch(folder)
    microscope = _microscope(folder, frames, seed)
    try:
        code = run.execute(built, chosen.settings)
    finally:
        microscope.terminate()
        _, complaint = microscope.communicate(timeout=20)
    if complaint.strip():
        print(f"The simulated microscope said: {complaint.decode(errors='replace').strip()}", file=sys.stderr)
    score, status = compare(built.path, truth_folder(folder)), built.session.status()
    print(f"\nAgainst the simulator's truth (read only now)\n{as_text(score)}")
    print(
        f"latency       p50 {status.latency_p50_ms:.0f} ms, p95 {status.latency_p95_ms:.0f} ms from frame taken to line written"
    )
    print(f"session       {built.path}\nframes        {folder}")
    return code or int(score.frames == 0)
