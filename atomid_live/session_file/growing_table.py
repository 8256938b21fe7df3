"""`drift.csv` and `strain.csv`: tables that grow a row per frame and can be made good from `frames.jsonl`."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from atomid_live.session_file.durable import GrowingFile
from atomid_live.session_file.tables import header

Row = Callable[[Mapping[str, Any]], bytes]


def whole_rows(data: bytes, columns: tuple[str, ...]) -> tuple[int, set[int]]:
    """Return how many leading bytes of a table are whole rows, and the frames they speak of.

    A row is whole when it ends in a line feed, has every cell and a frame number; after the first that is not, nothing is
    believed (a power cut leaves zeros or half a row). A torn header leaves no bytes.
    """
    first = header(columns)
    if not data.startswith(first):
        return 0, set()
    at, frames = len(first), set()
    while (end := data.find(b"\n", at)) >= 0:
        try:
            cells = next(csv.reader([data[at:end].decode("utf-8")]))
        except (UnicodeDecodeError, StopIteration, csv.Error):
            break
        if len(cells) != len(columns) or not cells[0].isdecimal():
            break
        frames.add(int(cells[0]))
        at = end + 1
    return at, frames


class GrowingTable:
    """One table; rows are appended without waiting for the disk, as `frames.jsonl` can restore them."""

    def __init__(self, path: Path, columns: tuple[str, ...], row: Row) -> None:
        self.path = path
        self._columns, self._row = columns, row
        self._file = GrowingFile(path)
        self._sound = self._file.size > 0

    @property
    def sound(self) -> bool:
        """Whether the table holds a row for every processed frame so far."""
        return self._sound

    def begin(self) -> None:
        """Write the header of a new table."""
        self._file.append(header(self._columns), sync=False)
        self._sound = True

    def leave_out(self) -> None:
        """Note that a row was not written, so that `repair` is due."""
        self._sound = False

    def append(self, record: Mapping[str, Any]) -> None:
        """Append the row of a processed frame; after an `OSError` the table needs `repair`."""
        self._sound = False
        self._file.append(self._row(record), sync=False)
        self._sound = True

    def repair(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Cut a torn end, append the rows that are missing, and return how many those were."""
        good, present = whole_rows(self.path.read_bytes(), self._columns)
        self._file.cut(good)
        if not good:
            self.begin()
        missing = [record for record in records if record["sequence"] not in present]
        self._sound = False
        for record in missing:
            self._file.append(self._row(record), sync=False)
        self._file.sync()
        self._sound = True
        return len(missing)

    def sync(self) -> None:
        """Wait for the disk."""
        self._file.sync()

    def close(self) -> None:
        """Release the file; may be called twice."""
        self._file.close()
