"""How files turn up in a watched folder: renamed into place, written in place, piece by piece, growing, or with faults."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Literal, Protocol, get_args

from atomid_live.errors import UsageError
from atomid_live.simulate.acquire import SimulatedFrame
from atomid_live.simulate.files import FileKind, facts, images, signals, write_frame
from atomid_live.simulate.scenario import Scenario
from atomid_live.simulate.velox import VeloxFile

Mode = Literal["rename", "direct", "slow", "stack", "faulty"]
MODES: tuple[Mode, ...] = get_args(Mode)
_PIECES = 8
FAULTS = {1: "truncated", 3: "empty", 5: "duplicate", 7: "renamed"}
_FAULT_PERIOD = 8


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where and how files appear; `pace_s` is the time between frames, of which a slow file takes half."""

    folder: Path
    scenario: Scenario
    mode: Mode = "rename"
    kind: FileKind = "emd"
    pace_s: float = 1.0
    extra: Sequence[str] = ()

    def place(self, index: int) -> Path:
        """Path of the file that holds frame `index`."""
        if self.mode == "stack":
            return self.folder / f"{self.scenario.crystal}_HAADF_series.emd"
        return self.folder / f"{self.scenario.crystal}_HAADF_{index:04d}.{self.kind}"


class Writer(Protocol):
    """Puts frames into the folder, one after the other."""

    def deliver(self, frame: SimulatedFrame, stop: Event) -> Path | None:
        """Make a frame appear; return its file, or None when stopped before it was whole."""

    def close(self) -> None:
        """Finish what is open."""


class SingleFiles:
    """One file per frame."""

    def __init__(self, delivery: Delivery) -> None:
        self._to = delivery

    def deliver(self, frame: SimulatedFrame, stop: Event) -> Path | None:
        """Write the frame's file as the mode says."""
        path = self._to.place(frame.index)
        if path.exists():
            raise UsageError(f"{path} exists and is not overwritten; simulate into another folder")
        if self._to.mode == "direct":
            self._write(path, frame)
            return path
        part = self._to.folder / f".{path.stem}.part"
        part.unlink(missing_ok=True)
        self._write(part, frame)
        if self._to.mode == "slow":
            return self._copied(part, path, stop)
        part.replace(path)
        return self._with_fault(path, frame.index) if self._to.mode == "faulty" else path

    def _write(self, path: Path, frame: SimulatedFrame) -> None:
        write_frame(path, self._to.scenario, frame, self._to.kind, self._to.extra)

    def _copied(self, part: Path, path: Path, stop: Event) -> Path | None:
        raw = part.read_bytes()
        size = -(-len(raw) // _PIECES)
        with path.open("xb") as handle:
            for start in range(0, len(raw), size):
                handle.write(raw[start : start + size])
                handle.flush()
                if stop.wait(self._to.pace_s / 2 / _PIECES):
                    break
        part.unlink()
        return None if path.stat().st_size < len(raw) else path

    def _with_fault(self, path: Path, index: int) -> Path:
        """Add what goes wrong around the good file: a torn, empty or second copy, or the file before it renamed."""
        fault = FAULTS.get(index % _FAULT_PERIOD, "")
        beside = path.with_name(f"{path.stem}_{fault}{path.suffix}")
        if fault == "truncated":
            raw = path.read_bytes()
            beside.write_bytes(raw[: len(raw) * 2 // 3])
        elif fault == "empty":
            beside.touch()
        elif fault == "duplicate":
            shutil.copyfile(path, beside)
        elif fault == "renamed":
            before = self._to.place(index - 1)
            # On Windows a file that a reader holds cannot be renamed; then this fault does not happen.
            with suppress(OSError):
                before.replace(before.with_name(f"{before.stem}_renamed{before.suffix}"))
        return path

    def close(self) -> None:
        """Nothing is open between frames."""


class GrowingStack:
    """One .emd file to which frames are appended while it is open."""

    def __init__(self, delivery: Delivery) -> None:
        self._to = delivery
        self._path = delivery.place(0)
        if self._path.exists():
            raise UsageError(f"{self._path} exists and is not overwritten; simulate into another folder")
        self._file = VeloxFile(self._path, delivery.scenario.shape, signals(delivery.extra), str(delivery.scenario.seed))

    def deliver(self, frame: SimulatedFrame, stop: Event) -> Path | None:
        """Append the frame and flush."""
        about = facts(self._to.scenario, frame, self._to.scenario.start_s, frame.index + 1)
        self._file.append(images(frame, self._to.extra), about)
        self._file.flush()
        return self._path

    def close(self) -> None:
        """Close the stack."""
        self._file.close()


def writer_for(delivery: Delivery) -> Writer:
    """Open the writer that the delivery's mode asks for."""
    if delivery.mode not in MODES:
        raise UsageError(f"unknown mode {delivery.mode!r}; known: {', '.join(MODES)}")
    if delivery.mode == "stack" and delivery.kind != "emd":
        raise UsageError(f"a growing stack is an .emd file, not .{delivery.kind}; leave the kind out")
    return GrowingStack(delivery) if delivery.mode == "stack" else SingleFiles(delivery)
