"""Tables that grow with every frame (`drift.csv` and its like) and can be made good from `frames.jsonl`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from atomid_live.session_file.durable import GrowingFile, free_name, write_new
from atomid_live.session_file.tables import header

Row = Callable[[Mapping[str, Any]], bytes]


def agreeing_rows(data: bytes, first: bytes, expected: Mapping[int, bytes]) -> tuple[int, set[int]]:
    """Return how many leading bytes of a table agree with the lines of the session, and the frames they speak of.

    The rows of a frame (one, or as many as it has events) agree when they are, byte for byte, those its line gives; after the
    first that are not (torn, zeros of a power cut, a frame without a line) nothing is believed. A torn header leaves no bytes.
    """
    if not data.startswith(first):
        return 0, set()
    at, frames = len(first), set[int]()
    while (end := data.find(b"\n", at) + 1) > 0:
        number = data[at : data.find(b",", at, end)]
        frame = int(number) if number.isdigit() else -1
        rows = expected.get(frame)
        if frame in frames or not rows or not data.startswith(rows, at):
            break
        frames.add(frame)
        at += len(rows)
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
        """Cut what does not agree with the lines, append the rows that are missing, and return how many those were.

        Whole rows that are cut (their line was damaged) are kept in `<name>.orphan`.
        """
        expected = {record["sequence"]: self._row(record) for record in records}
        data = self.path.read_bytes()
        good, present = agreeing_rows(data, header(self._columns), expected)
        if good and b"\n" in data[good:]:
            write_new(free_name(self.path.with_name(self.path.name + ".orphan")), data[good:])
        self._sound = False
        self._file.cut(good)
        if not good:
            self._file.append(header(self._columns), sync=False)
        missing = [row for number, row in expected.items() if row and number not in present]
        for row in missing:
            self._file.append(row, sync=False)
        self._file.sync()
        self._sound = True
        return len(missing)

    def sync(self) -> None:
        """Wait for the disk."""
        self._file.sync()

    def close(self) -> None:
        """Release the file; may be called twice."""
        self._file.close()
