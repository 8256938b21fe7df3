"""A session folder while it is written: the one writer of every file in it but the ledger and the pictures' pixels."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from atomid_live.errors import RecordingError, UsageError
from atomid_live.lanes import beside
from atomid_live.protocols import Clock
from atomid_live.session_file import about
from atomid_live.session_file.about import SessionInfo
from atomid_live.session_file.durable import FolderLock, free_name, retire, sync_folder, write_new, write_whole
from atomid_live.session_file.growing_table import GrowingTable
from atomid_live.session_file.journal import Journal
from atomid_live.session_file.lines import Record, dumps
from atomid_live.session_file.record import SCHEMA, frame_record, refused_record
from atomid_live.session_file.summary import counts, summarise
from atomid_live.session_file.tables import DRIFT_COLUMNS, STRAIN_COLUMNS, atoms_csv, drift_row, strain_row
from atomid_live.session_file.track_tables import DAMAGE_COLUMNS, EVENT_COLUMNS, PICTURES_OF_EVENTS, damage_row, event_rows
from atomid_live.types import Refused, Result

log = logging.getLogger(__name__)

ATOMS, PICTURES = "atoms", "annotated"
_RENAME_TRIES, _RENAME_WAIT_S = 5, 0.1


class _SystemClock:
    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()


def _named_folder(out: Path, time_ns: int) -> Path:
    """Make and return the first free folder ``20261122T201501Z``, ``...-2``, ...; a folder is never shared."""
    stem = datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
    number = 1
    out.mkdir(parents=True, exist_ok=True)
    while True:
        path = out / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            continue
        return path


class SessionFolder:
    """One session on disk, open for writing by this process alone; make one with `create` or `recover.reopen`.

    Attributes
    ----------
    path : Path
        The folder.
    journal : Journal
        `frames.jsonl`.
    problem : str
        What keeps tables from being saved, "" when nothing does. Lines that fail raise instead.
    """

    def __init__(self, path: Path, entries: Record, clock: Clock | None, *, new: bool) -> None:
        self.path, self.problem = path, ""
        self._entries, self._clock = entries, clock or _SystemClock()
        self._lock = FolderLock(path)
        if not self._lock.take():
            self._lock.release()
            raise UsageError(f"session {path} is being written by another process; wait for it to end, or begin a new session")
        with ExitStack() as undo:
            undo.callback(self._lock.release)
            (path / ATOMS).mkdir(exist_ok=not new)
            (path / PICTURES).mkdir(exist_ok=not new)
            (path / PICTURES_OF_EVENTS).mkdir(exist_ok=True)
            self.journal = Journal(path, new=new)
            undo.callback(self.journal.close)
            drift = GrowingTable(path / "drift.csv", DRIFT_COLUMNS, drift_row)
            undo.callback(drift.close)
            strain = GrowingTable(path / "strain.csv", STRAIN_COLUMNS, strain_row)
            undo.callback(strain.close)
            events = GrowingTable(path / "events.csv", EVENT_COLUMNS, event_rows)
            undo.callback(events.close)
            damage = GrowingTable(path / "damage.csv", DAMAGE_COLUMNS, damage_row)
            self._tables = (drift, strain, events, damage)
            undo.pop_all()
        self._closed = False

    @classmethod
    def create(cls, out: Path, info: SessionInfo, clock: Clock | None = None) -> SessionFolder:
        """Begin a new session folder in `out`.

        Raises
        ------
        RecordingError
            The folder cannot be made or written.
        """
        now = (clock or _SystemClock()).time_ns()
        try:
            path = _named_folder(out, now)
            folder = cls(path, about.opening(path.name, info, now), clock, new=True)
            for table in folder._tables:
                table.begin()
            write_new(path / about.NAME, dumps(folder._entries, indent=2))
            sync_folder(out)
        except OSError as error:
            raise RecordingError(
                f"no session folder can be made in {out}: {error.strerror or error}; choose a writable folder with --out"
            ) from error
        return folder

    @property
    def next_sequence(self) -> int:
        """The first sequence number that is free."""
        return self.journal.next_sequence

    def _stamped(self, record: Record) -> Record:
        return {**record, "recorded_ns": self._clock.time_ns(), "recorded_monotonic_s": self._clock.monotonic()}

    def record(self, result: Result, *, without_tables: str = "") -> None:
        """Write one processed frame: atoms file, then its line, each on the disk, then the rows of drift and strain.

        Parameters
        ----------
        result : Result
            Of a sequence number that has no line yet; a repeated call is answered as done.
        without_tables : str
            Reason for writing the line alone (disk nearly full); it is kept in the line. "" writes everything.

        Raises
        ------
        RecordingError
            The line could not be written. Tables that fail are a `problem`, and told in the line.
        """
        self._settle()
        if result.sequence in self.journal:
            self._note_segment(result)
            return
        saved, reason = (None, without_tables) if without_tables else self._save_atoms(result)
        line = {**frame_record(result), "atoms": saved, "not_saved": reason}
        try:
            self.journal.append(self._stamped(line))
        except RecordingError:
            self._leave_out_rows()  # the line may have arrived all the same
            raise
        self.problem = reason
        if without_tables:
            self._leave_out_rows()
        else:
            self._grow_tables(line)
        self._note_segment(result)

    def refuse(self, refused: Refused) -> None:
        """Write the line of a frame that was dropped, skipped, failed or quarantined; raises `RecordingError`."""
        self.journal.append(self._stamped(refused_record(refused)))

    def revise(self, sequence: int, changes: Mapping[str, Any], reason: str) -> None:
        """Correct a frame's line by a later line: `changes` holds only the entries that differ; raises `RecordingError`."""
        if sequence not in self.journal:
            raise UsageError(f"frame {sequence} has no line in {self.path}; only a recorded frame can be revised")
        self.mark("revision", sequence=sequence, changes=dict(changes), reason=reason)

    def mark(self, kind: str, **entries: Any) -> None:
        """Write a line that is not a frame's; raises `RecordingError`."""
        self.journal.append(self._stamped({"schema": SCHEMA, "kind": kind, **entries}))

    def atoms_path(self, sequence: int) -> Path:
        """Return where the columns of a frame are kept."""
        return self.path / ATOMS / f"{sequence:06d}.csv"

    def picture_path(self, sequence: int) -> Path:
        """Return a name for an annotated frame that is not in use."""
        return free_name(self.path / PICTURES / f"{sequence:06d}.png")

    def event_picture_path(self, name: str) -> Path:
        """Return a name for the picture of an event that is not in use."""
        return free_name(self.path / name)

    def _settle(self) -> None:
        try:
            self.journal.settle()
        except OSError as error:
            raise RecordingError(f"{self.journal.path} cannot be read back: {error}; restore the folder") from error

    def _save_atoms(self, result: Result) -> tuple[Record | None, str]:
        """Write the atoms file; returns its entry in the line, or None and why it is missing."""
        path, text = self.atoms_path(result.sequence), atoms_csv(result)
        digest = beside(lambda: hashlib.sha256(text).hexdigest())
        try:
            if path.exists():
                retire(path)
            write_new(path, text)
        except OSError as error:
            log.error("atoms of frame %d not saved: %s", result.sequence, error)
            with suppress(OSError):  # whole, but perhaps not durable: its line will not vouch for it
                if path.exists():
                    retire(path)
            return None, f"atoms table: {error.strerror or error}"
        return {"file": f"{ATOMS}/{path.name}", "bytes": len(text), "sha256": digest.result()}, ""

    def _leave_out_rows(self) -> None:
        for table in self._tables:
            table.leave_out()

    def _grow_tables(self, line: Mapping[str, Any]) -> None:
        for table in self._tables:
            try:
                if table.sound:
                    table.append(line)
                else:
                    table.repair(self._processed())
            except OSError as error:
                self.problem = f"{table.path.name}: {error.strerror or error}"
                log.error("row of frame %s not saved: %s", line["sequence"], self.problem)

    def _processed(self) -> list[Record]:
        return [record for record in self.journal.frames() if record["state"] == "processed"]

    def _note_segment(self, result: Result) -> None:
        segments = self._entries["segments"]
        if segments and segments[-1]["segment"] == result.segment:
            return
        segments.append(about.segment_entry(result))
        try:
            self._rewrite_entries(tries=1)
        except OSError as error:
            log.warning("segment %d is not in %s yet (its lines say it): %s", result.segment, about.NAME, error)

    def _rewrite_entries(self, tries: int = _RENAME_TRIES) -> None:
        self._replace(about.NAME, self._entries, tries)

    def _replace(self, name: str, entries: Record, tries: int) -> None:
        """Put a whole new version of a JSON file; on Windows a viewer that has it open makes this wait."""
        for attempt in range(1, tries + 1):
            try:
                write_whole(self.path / name, dumps(entries, indent=2))
            except PermissionError:
                if attempt == tries:
                    raise
                time.sleep(_RENAME_WAIT_S)
            else:
                return

    def resumed(self, entry: Record) -> None:
        """Note in line and `session.json` that a killed session goes on; used by `recover.reopen`."""
        self.mark("resumed", **entry)
        self._entries["resumed"].append({**entry, "time_utc": about.utc(self._clock.time_ns())})
        self._entries |= about.unfinished()
        self._rewrite_entries()

    def repair_tables(self) -> dict[str, int]:
        """Make the tables whole from the lines; returns the frames whose rows were added to each."""
        records = self._processed()
        return {table.path.name: table.repair(records) for table in self._tables}

    def finish(self, outcome: str, reason: str, numbers: Mapping[str, Any] | None = None) -> Record:
        """End the session: complete the tables, write `summary.json`, and say in `session.json` how it ended.

        Parameters
        ----------
        outcome : str
            "clean" or "failure".
        reason : str
            Why it ended, in words.
        numbers : mapping, optional
            What only the running program knows (latencies, pictures skipped), kept under "run".

        Returns
        -------
        dict
            The content of `summary.json`; its counts are taken from the lines.

        Raises
        ------
        RecordingError
            The end could not be written; the frames are safe.
        """
        now = self._clock.time_ns()
        frames = list(self.journal.frames())
        ending = {"ended_utc": about.utc(now), "ended_ns": now, "counts": counts(frames), "outcome": outcome, "reason": reason}
        summary = {"schema": SCHEMA, "session": self.path.name, **ending, **summarise(frames), "run": dict(numbers or {})}
        try:
            for table in self._tables:
                if not table.sound:
                    table.repair(self._processed())
                table.sync()
            self._replace("summary.json", summary, _RENAME_TRIES)
            self._entries |= ending
            self._rewrite_entries()
        except OSError as error:
            raise RecordingError(
                f"the end of session {self.path} could not be written: {error}; its frames are safe"
            ) from error
        return summary

    def close(self) -> None:
        """Release files and lock without ending the session; may be called twice."""
        if not self._closed:
            self._closed = True
            self.journal.close()
            for table in self._tables:
                table.close()
            self._lock.release()
