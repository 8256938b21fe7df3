"""Finding the last session of a source, and going on with one that was cut off."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from atomid_live.errors import RecordingError
from atomid_live.protocols import Clock
from atomid_live.session_file import about
from atomid_live.session_file.durable import FolderLock, retire, sync_folder
from atomid_live.session_file.folder import ATOMS, PICTURES, SessionFolder
from atomid_live.session_file.lines import Record
from atomid_live.session_file.record import SCHEMA
from atomid_live.session_file.track_tables import PICTURES_OF_EVENTS

log = logging.getLogger(__name__)

_FOLDER_NAME = re.compile(r"(\d{8}T\d{6}Z)(?:-(\d+))?")


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A session folder of earlier: where, whether it ended by itself, how, and whether it is still being written."""

    path: Path
    ended: bool
    outcome: str
    running: bool


def _entries(path: Path) -> Record | None:
    """Return `session.json`, or None when there is none that can be read."""
    try:
        entries = json.loads((path / about.NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return entries if isinstance(entries, dict) else None


def _is_running(path: Path) -> bool:
    try:
        lock = FolderLock(path)
    except OSError:
        return False
    try:
        return not lock.take()
    finally:
        lock.release()


def find_latest(out: Path, source: str) -> FoundSession | None:
    """Return the newest session in `out` of the same watched folder or address, or None."""
    named = [(match, path) for path in out.glob("*Z*") if (match := _FOLDER_NAME.fullmatch(path.name))] if out.is_dir() else []
    key = about.source_key(source)
    for _, path in sorted(named, key=lambda pair: (pair[0][1], int(pair[0][2] or 1)), reverse=True):
        entries = _entries(path)
        if entries is not None and entries.get("source_key") == key:
            outcome = entries.get("outcome")
            return FoundSession(path, outcome is not None, outcome or "", _is_running(path))
    return None


def _unfinished_segment_entries(entries: Record, frames: list[Record]) -> None:
    """Add segments that `session.json` had not heard of when the session was cut off."""
    known = {segment["segment"] for segment in entries["segments"]}
    names = ("segment", "width_px", "height_px", "pixel_size_yx_nm", "scale_source")
    for frame in frames:
        if frame["state"] == "processed" and frame["segment"] not in known:
            known.add(frame["segment"])
            entry = {name: frame[name] for name in names}
            first = {"first_sequence": frame["sequence"], "reason": frame["segment_reason"]}
            entries["segments"].append({**entry, **first, "detector": frame["meta"].get("detector", "")})


def _clear(folder: SessionFolder) -> list[str]:
    """Remove unfinished temporary files, and set aside atoms files that no line speaks of."""
    for name in (".", ATOMS, PICTURES, PICTURES_OF_EVENTS):
        for leftover in (folder.path / name).glob(".*.tmp"):
            leftover.unlink()
    named = {record["atoms"]["file"] for record in folder.journal.frames() if record.get("atoms")}
    orphans = [path for path in sorted((folder.path / ATOMS).glob("*.csv")) if f"{ATOMS}/{path.name}" not in named]
    for path in orphans:
        log.warning("atoms file without a line set aside: %s", retire(path))
    sync_folder(folder.path / ATOMS)
    return [path.name for path in orphans]


def reopen(path: Path, clock: Clock | None = None) -> SessionFolder:
    """Open a session that was cut off, make its files agree with its lines, and go on after its last number.

    Torn or damaged lines stay where they are and are passed over. Atoms files without a line become `*.orphan`;
    `drift.csv` and `strain.csv` lose a torn end and gain the rows they lack; a line of kind "resumed" tells all this.

    Raises
    ------
    RecordingError
        The folder is no session, or cannot be written.
    UsageError
        Another process is writing it.
    """
    entries = _entries(path)
    if entries is None or entries.get("schema") != SCHEMA or "segments" not in entries:
        raise RecordingError(f"{path} has no readable {about.NAME} of schema {SCHEMA}; begin a new session instead")
    folder = None
    try:
        folder = SessionFolder(path, entries, clock, new=False)
        folder.journal.settle()
        _unfinished_segment_entries(entries, list(folder.journal.frames()))
        orphans = _clear(folder)
        added = folder.repair_tables()
        folder.resumed({"next_sequence": folder.next_sequence, "orphans": orphans, "rows_added": added})
    except (OSError, RecordingError) as error:
        if folder is not None:
            folder.close()
        raise RecordingError(f"session {path} cannot be resumed: {error}; begin a new session instead") from error
    return folder
