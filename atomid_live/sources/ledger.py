"""What was taken, on disk: a restart does nothing twice and misses nothing.

A row is written when the frame's line is safe in the session file, never before. A process killed between the two leaves a
line without a row; `reconcile` puts it back from the session file, which is the truth.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atomid_live.errors import RecordingError
from atomid_live.types import FrameState, Origin

log = logging.getLogger(__name__)

_BUSY_S = 1.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS taken (
    source TEXT NOT NULL, item TEXT NOT NULL, item_index INTEGER NOT NULL, identity TEXT NOT NULL,
    content TEXT NOT NULL, sequence INTEGER NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (source, item, item_index, identity));
CREATE INDEX IF NOT EXISTS by_content ON taken (content);
CREATE TABLE IF NOT EXISTS finished (source TEXT NOT NULL, identity TEXT NOT NULL, PRIMARY KEY (source, identity));
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """Where pixels were met before."""

    sequence: int
    source: str
    item: str
    item_index: int


class Ledger:
    """Frames and files taken so far, in an SQLite file; safe to use from several threads.

    Parameters
    ----------
    path : Path or str
        The file, made if it is missing; ":memory:" keeps nothing. A damaged file is put aside and a new one begun.
    """

    def __init__(self, path: Path | str = ":memory:") -> None:
        self._lock = threading.Lock()
        self._path = str(path)
        try:
            self._base = self._open()
        except sqlite3.OperationalError as error:
            raise RecordingError(f"ledger {path} cannot be opened ({error}); is another session using the folder?") from error
        except sqlite3.DatabaseError as error:
            log.warning("ledger %s is damaged (%s); put aside, a new one is begun", path, error)
            self._put_aside()
            self._base = self._open()

    def _open(self) -> sqlite3.Connection:
        base = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=_BUSY_S)
        try:
            # One process owns the file; exclusive locking spares the shared-memory file that network drives cannot hold.
            base.execute("PRAGMA locking_mode=EXCLUSIVE")
            base.execute("PRAGMA journal_mode=WAL")
            base.execute("PRAGMA synchronous=NORMAL")
            base.executescript(_SCHEMA)
            base.execute("SELECT count(*) FROM taken").fetchone()
        except sqlite3.DatabaseError:
            base.close()
            raise
        return base

    def _put_aside(self) -> None:
        old = Path(self._path)
        number = 1
        while (spare := old.with_name(f"{old.name}.damaged-{number}")).exists():
            number += 1
        old.rename(spare)
        for ending in ("-wal", "-shm", "-journal"):
            with contextlib.suppress(OSError):
                old.with_name(old.name + ending).unlink()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever taken: a fresh session."""
        with self._lock:
            row = self._base.execute("SELECT EXISTS(SELECT 1 FROM taken) OR EXISTS(SELECT 1 FROM finished)").fetchone()
        return not row[0]

    def taken(self, path: str, identity: str, item: str, item_index: int) -> bool:
        """Whether this frame has its line. A named item is known by its name whatever became of the file around it."""
        with self._lock:
            row = self._base.execute(
                "SELECT 1 FROM taken WHERE source=? AND item=? AND item_index=? AND (item<>'' OR identity=?) LIMIT 1",
                (path, item, item_index, identity),
            ).fetchone()
        return row is not None

    def seen_content(self, content_sha256: str) -> Seen | None:
        """Where the same pixels were taken first, or None."""
        if not content_sha256:
            return None
        with self._lock:
            row = self._base.execute(
                "SELECT sequence, source, item, item_index FROM taken WHERE content=? ORDER BY rowid LIMIT 1", (content_sha256,)
            ).fetchone()
        return Seen(*row) if row else None

    def record(self, origin: Origin, sequence: int, state: FrameState | str) -> None:
        """Note that a frame's line is safe."""
        row = (
            origin.source,
            origin.item,
            origin.item_index,
            origin.identity,
            origin.content_sha256,
            sequence,
            str(FrameState(state).value),
        )
        self._write("INSERT OR IGNORE INTO taken VALUES (?,?,?,?,?,?,?)", [row])

    def finish(self, files: Iterable[tuple[str, str]]) -> None:
        """Note files (path, identity) of which every frame was taken, or that were there before and are to be left alone."""
        self._write("INSERT OR IGNORE INTO finished VALUES (?,?)", list(files))

    def is_finished(self, path: str, identity: str) -> bool:
        """Whether nothing more is to be taken from this state of a file: all of it was, or it was refused as a whole."""
        with self._lock:
            row = self._base.execute(
                "SELECT EXISTS(SELECT 1 FROM finished WHERE source=?1 AND identity=?2) OR EXISTS(SELECT 1 FROM taken "
                "WHERE source=?1 AND item='' AND identity=?2 AND content='' AND state IN ('skipped', 'quarantined'))",
                (path, identity),
            ).fetchone()
        return bool(row[0])

    def reconcile(self, lines: Iterable[Mapping[str, Any]]) -> int:
        """Insert frames found in lines of the session file but missing here; return how many.

        Each line has the keys source, item, item_index, identity, content_sha256, sequence and state.
        """
        rows = [
            (
                str(line["source"]),
                str(line.get("item", "")),
                int(line.get("item_index", 0)),
                str(line.get("identity", "")),
                str(line.get("content_sha256", "")),
                int(line["sequence"]),
                str(line["state"]),
            )
            for line in lines
        ]
        return self._write("INSERT OR IGNORE INTO taken VALUES (?,?,?,?,?,?,?)", rows)

    def import_from(self, other: Path) -> int:
        """Take over what an earlier session's ledger knows; return the number of frames.

        Raises
        ------
        RecordingError
            The other ledger cannot be read.
        """
        uri = f"{Path(other).absolute().as_uri()}?mode=ro"
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S)) as base:
                taken = base.execute("SELECT * FROM taken ORDER BY rowid").fetchall()
                finished = base.execute("SELECT * FROM finished").fetchall()
        except sqlite3.DatabaseError as error:
            raise RecordingError(f"ledger {other} cannot be read ({error}); is its session still running?") from error
        self._write("INSERT OR IGNORE INTO finished VALUES (?,?)", finished)
        return self._write("INSERT OR IGNORE INTO taken VALUES (?,?,?,?,?,?,?)", taken)

    def _write(self, sentence: str, rows: list[tuple[Any, ...]]) -> int:
        try:
            with self._lock:
                before = self._base.total_changes
                self._base.execute("BEGIN")
                self._base.executemany(sentence, rows)
                self._base.execute("COMMIT")
                return self._base.total_changes - before
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._base.execute("ROLLBACK")
            raise RecordingError(f"ledger {self._path} cannot be written ({error}); is the disk full?") from error

    def close(self) -> None:
        """Release the file; may be called twice."""
        with self._lock:
            self._base.close()
