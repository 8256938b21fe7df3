"""The one reader of a session folder, for reports, replay and tests; a session still being written may be read too."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomid_live.calibration import yx_points
from atomid_live.errors import RecordingError
from atomid_live.session_file import about, journal
from atomid_live.session_file.growing_table import Row
from atomid_live.session_file.lines import Record, parse
from atomid_live.session_file.record import SCHEMA, merged
from atomid_live.session_file.summary import counts
from atomid_live.session_file.tables import DRIFT_COLUMNS, STRAIN_COLUMNS, TEXT_COLUMNS, drift_row, strain_row
from atomid_live.session_file.track_tables import DAMAGE_COLUMNS, EVENT_COLUMNS, damage_row, event_rows
from atomid_live.types import Detections, FrameState, StrainField

Column = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class AtomTable:
    """One atoms file: `columns` maps each name of its header to an array of length N."""

    columns: Mapping[str, NDArray[np.float64]] = field(repr=False)

    def __len__(self) -> int:
        """Return the number of columns of atoms."""
        return len(self.columns["x_px"])

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """Return one column by its name in the header."""
        return self.columns[name]

    @property
    def yx_px(self) -> NDArray[np.float64]:
        """Positions, shape (N, 2), (row, column) in pixels."""
        return yx_points(self["x_px"], self["y_px"])

    @property
    def flags(self) -> NDArray[np.int64]:
        """Bits of `Flag`, shape (N,)."""
        return self["flags"].astype(np.int64)

    def detections(self, spacing_px: float = float("nan"), column_sigma_px: float = float("nan")) -> Detections:
        """Return the table as detections, to the precision of the file."""
        sigma = yx_points(self["sigma_x_px"], self["sigma_y_px"])
        return Detections(self.yx_px, self["score"], sigma, self["amplitude"], self.flags, spacing_px, column_sigma_px)

    def strain(self) -> StrainField:
        """Return the strain of each column; valid where any is given."""
        exx, eyy, exy = self["exx"], self["eyy"], self["exy"]
        known = bool(np.isfinite(exx).any())
        return StrainField(
            exx, eyy, exy, self["rotation_mrad"], self["sigma_strain"], self.flags, valid=known, reason="" if known else "empty"
        )


def read_atoms(text: bytes) -> AtomTable:
    """Return the table of an atoms file."""
    from atomid_live.session_file.fastcsv import parse_table

    first, _, rest = text.partition(b"\n")
    names = first.decode("ascii").strip().split(",")
    table = parse_table(rest)
    table = table if table.size else np.empty((0, len(names)))
    if table.shape[1] != len(names):
        raise ValueError(f"{table.shape[1]} cells per row under {len(names)} names")
    return AtomTable({name: table[:, place] for place, name in enumerate(names)})


def _table(names: tuple[str, ...], row: Row, frames: Iterable[Record]) -> dict[str, Column]:
    """Return a table by columns: numbers as float64 (empty is NaN), texts as str."""
    lines = (line for frame in frames for line in row(frame).decode("utf-8").splitlines())
    rows = list(csv.reader(lines))
    out: dict[str, Column] = {}
    for place, name in enumerate(names):
        cells = [cells[place] for cells in rows]
        out[name] = np.array(cells, dtype=str) if name in TEXT_COLUMNS else np.array([float(c or "nan") for c in cells])
    return out


@dataclass(frozen=True, slots=True, eq=False)
class SessionRecord:
    """A session as its folder tells it.

    Attributes
    ----------
    path : Path
        The folder.
    about : dict
        `session.json`.
    frames : list of dict
        One per frame in order of `sequence`, with revisions put in (docs/session-format.md names the entries).
    others : list of dict
        Revision, resumed and later kinds of lines, in the order written.
    bad_lines : int
        Torn or damaged lines that were passed over.
    """

    path: Path
    about: Record = field(repr=False)
    frames: list[Record] = field(repr=False)
    others: list[Record] = field(default_factory=list, repr=False)
    bad_lines: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Frames in each state, and `received`, their sum."""
        return counts(self.frames)

    def processed(self) -> list[Record]:
        """Return the frames that were analysed."""
        return [frame for frame in self.frames if frame["state"] == FrameState.PROCESSED]

    def frame(self, sequence: int) -> Record:
        """Return one frame; raises `KeyError` when it has no line."""
        for frame in self.frames:
            if frame["sequence"] == sequence:
                return frame
        raise KeyError(sequence)

    def atoms(self, sequence: int) -> AtomTable:
        """Return the columns of one frame.

        Raises
        ------
        KeyError
            The frame has no line, or its line names no atoms file.
        RecordingError
            The file is missing, or is not the one that was recorded.
        """
        entry = self.frame(sequence).get("atoms")
        if not entry:
            raise KeyError(f"frame {sequence} has no atoms file")
        path = self.path / "atoms" / Path(entry["file"]).name
        try:
            text = path.read_bytes()
        except OSError as error:
            raise RecordingError(f"{path} was recorded but cannot be read: {error.strerror or error}") from error
        if len(text) != entry["bytes"] or hashlib.sha256(text).hexdigest() != entry["sha256"]:
            raise RecordingError(f"{path} is not the file that was recorded: {len(text)} bytes, expected {entry['bytes']}")
        return read_atoms(text)

    def drift_table(self) -> dict[str, Column]:
        """Return `drift.csv` by columns, with revisions put in."""
        return _table(DRIFT_COLUMNS, drift_row, self.processed())

    def strain_table(self) -> dict[str, Column]:
        """Return `strain.csv` by columns, with revisions put in."""
        return _table(STRAIN_COLUMNS, strain_row, self.processed())

    def event_table(self) -> dict[str, Column]:
        """Return `events.csv` by columns, with revisions put in."""
        return _table(EVENT_COLUMNS, event_rows, self.processed())

    def damage_table(self) -> dict[str, Column]:
        """Return `damage.csv` by columns, with revisions put in."""
        return _table(DAMAGE_COLUMNS, damage_row, self.processed())


def _frames(records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    frames: dict[int, Record] = {}
    others: list[Record] = []
    for record in records:
        if record.get("kind") == "frame":
            frames.setdefault(record["sequence"], record)
            continue
        others.append(record)
        if record.get("kind") == "revision" and record["sequence"] in frames:
            frames[record["sequence"]] = merged(frames[record["sequence"]], record["changes"])
    return [frames[sequence] for sequence in sorted(frames)], others


def read_session(path: Path) -> SessionRecord:
    """Read a session folder.

    Raises
    ------
    RecordingError
        It is no session folder, or of a schema this program does not know.
    """
    try:
        entries = json.loads((path / about.NAME).read_bytes())
        data = (path / journal.NAME).read_bytes()
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path} cannot be read as a session folder: {error}") from error
    if not isinstance(entries, dict) or entries.get("schema") != SCHEMA:
        raise RecordingError(f"{path} is of schema {entries.get('schema') if isinstance(entries, dict) else None}, "
                             f"this program reads {SCHEMA}; use the version that wrote it")  # fmt: skip
    lines = parse(data)
    frames, others = _frames(lines.records)
    return SessionRecord(path, entries, frames, others, lines.bad)
