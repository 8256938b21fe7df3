"""A simulated Spectra 300: writes a session's frames into a folder, or publishes them, at a live pace, with the truth beside.

Run on its own: ``python -m atomid_live.simulate.microscope FOLDER --frames 40 --pace 1``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event

from atomid_live.errors import AtomidError, UsageError
from atomid_live.simulate.acquire import Session
from atomid_live.simulate.crystals import CRYSTALS, crystal_named
from atomid_live.simulate.deliver import MODES, Delivery, Mode, writer_for
from atomid_live.simulate.files import FileKind, TruthFolder, write_frame
from atomid_live.simulate.scan import ScanErrors
from atomid_live.simulate.scenario import Scenario

# 25 nm across 1024 pixels: about 7000 rhenium columns.
_RHENIUM_PIXEL_NM = 0.0247


def truth_folder(folder: Path) -> Path:
    """Folder of the truth that belongs to a folder of frames: FOLDER.truth beside it, so that it is not watched."""
    return folder.with_name(folder.name + ".truth")


def live_scenario(crystal: str = "res2", frames: int = 40, seed: int = 1, pace_s: float = 1.0) -> Scenario:
    """A typical session: 1 % vacancies, some contamination, row jitter, a steady drift with a random walk.

    The clock of the microscope runs with the pace, so that velocities mean what the files' times say.
    """
    name = crystal_named(crystal).name
    return Scenario(
        crystal=name,
        pixel_size_nm=_RHENIUM_PIXEL_NM if name == "res2" else 0.0176,
        frames=frames,
        seed=seed,
        current_pa=19.6,
        frame_time_s=max(pace_s, 1e-3),
        drift_px_per_frame=(0.9, -1.6),
        walk_px=0.4,
        start_s=time.time(),
    )


def simulate_session(
    folder: Path,
    scenario: Scenario,
    *,
    pace_s: float = 1.0,
    mode: Mode = "rename",
    stop: Event | None = None,
    kind: FileKind = "emd",
    extra: Sequence[str] = (),
) -> int:
    """Write the frames of a scenario into a folder at a steady pace, and their truth into FOLDER.truth.

    Parameters
    ----------
    folder : Path
        Created if needed; nothing in it is overwritten.
    pace_s : float
        Seconds from one frame to the next; 0 is as fast as it goes.
    mode : str
        One of `MODES`: how the files appear.
    stop : Event, optional
        Ends the session early when set.
    kind : str
        "emd", "tif" or "npy".
    extra : sequence of str
        Other signals in an .emd beside HAADF: "BF-S", "DPC".

    Returns
    -------
    int
        Frames delivered whole.

    Raises
    ------
    UsageError
        An unknown mode, or a file or truth that is already there.
    """
    halt = stop or Event()
    folder.mkdir(parents=True, exist_ok=True)
    delivery = Delivery(folder, scenario, mode, kind, pace_s, extra)
    if (truth_folder(folder) / "truth.jsonl").exists():
        raise UsageError(f"{truth_folder(folder)} holds the truth of another session; simulate into another folder")
    done, due = 0, time.monotonic()
    with closing(writer_for(delivery)) as writer, closing(TruthFolder(truth_folder(folder), scenario)) as truth:
        for frame in Session(scenario):
            if halt.wait(max(0.0, due - time.monotonic())):
                break
            due = max(due + pace_s, time.monotonic())
            path = writer.deliver(frame, halt)
            if path is None:
                break
            truth.add(frame, path.name, frame.index if mode == "stack" else 0)
            done += 1
    return done


def write_session(
    folder: Path, *, crystal: str = "res2", frames: int = 40, pace_s: float = 1.0, seed: int = 1, mode: Mode = "rename"
) -> int:
    """Run a typical session into a folder for the command line; returns its exit code."""
    scenario = live_scenario(crystal, frames, seed, pace_s)
    done = simulate_session(folder, scenario, pace_s=pace_s, mode=mode)
    print(f"{done} frames of {scenario.crystal} in {folder}, truth in {truth_folder(folder)}")
    return 0


def bench_scenario(count: int, side: int = 1024) -> Scenario:
    """The frames a benchmark runs on: ReS2 at 24.7 pm per pixel, about 7000 bright columns at 1024 pixels a side."""
    return Scenario(
        crystal="res2",
        shape=(side, side),
        pixel_size_nm=_RHENIUM_PIXEL_NM,
        frames=count,
        seed=20,
        current_pa=19.6,
        scan=ScanErrors(jitter_yx_px=(0.2, 0.4)),
        drift_px_per_frame=(2.3, -3.1),
        walk_px=1.0,
    )


def bench_frames(folder: Path, count: int, side: int = 1024) -> list[Path]:
    """Write `count` different frames of `bench_scenario` as Velox files into a new folder; return them in order."""
    scenario = bench_scenario(count, side)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for frame in Session(scenario):
        path = folder / f"bench_{frame.index:04d}.emd"
        write_frame(path, scenario, frame)
        paths.append(path)
    return paths


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m atomid_live.simulate.microscope", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="folder for the frames; truth goes to FOLDER.truth")
    parser.add_argument("--publish", metavar="ADDRESS", help="publish on this ZMQ address instead, e.g. tcp://127.0.0.1:5556")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--pace", type=float, default=1.0, help="seconds from one frame to the next")
    parser.add_argument("--crystal", default="res2", help=f"one of {', '.join(CRYSTALS)}")
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 1024), metavar=("ROWS", "COLS"))
    parser.add_argument("--pixel-size-nm", type=float, default=None)
    parser.add_argument("--drift", type=float, nargs=2, default=(-1.6, 0.9), metavar=("X", "Y"), help="px per frame")
    parser.add_argument("--strain", type=float, default=0.0, help="hydrostatic strain reached over the last two thirds")
    parser.add_argument("--mode", choices=MODES, default="rename")
    parser.add_argument("--kind", choices=("emd", "tif", "npy"), default="emd")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(words)


def _scenario(given: argparse.Namespace) -> Scenario:
    typical = live_scenario(given.crystal, given.frames, given.seed, given.pace)
    return replace(
        typical,
        shape=tuple(given.size),
        pixel_size_nm=given.pixel_size_nm or typical.pixel_size_nm,
        drift_px_per_frame=(given.drift[1], given.drift[0]),
        strain_exx_eyy_exy=(given.strain, given.strain, 0.0),
        strain_from_frame=given.frames // 3,
        strain_until_frame=given.frames - 1,
    )


def main(words: Sequence[str] | None = None) -> int:
    """Run the simulated microscope as a process of its own; returns the exit code."""
    import sys

    given = _arguments(words)
    try:
        scenario = _scenario(given)
        if given.publish:
            from atomid_live.simulate.publish import publish_session

            done = publish_session(given.publish, scenario, pace_s=given.pace)
        elif given.folder is None:
            raise UsageError("neither a folder nor --publish ADDRESS was given; say where the frames shall go")
        else:
            done = simulate_session(given.folder, scenario, pace_s=given.pace, mode=given.mode, kind=given.kind)
    except AtomidError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    print(f"{done} frames delivered")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
