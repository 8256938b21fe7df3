"""`frames.jsonl` while it is written: each line reaches the disk before the next step; after a failure it finds its feet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from atomid_live.errors import RecordingError
from atomid_live.session_file.durable import GrowingFile
from atomid_live.session_file.lines import Record, encode, parse

NAME = "frames.jsonl"


class Journal:
    """The growing `frames.jsonl` of one session; it knows which sequence numbers have a line.

    A failed append leaves it unsettled: part of a line, or a whole line, may have reached the file. The next append first
    looks, counts what is whole, and closes a torn line with a line feed. Nothing is ever rewritten.
    """

    def __init__(self, folder: Path, *, new: bool) -> None:
        self.path = folder / NAME
        self._file = GrowingFile(self.path, new=new)
        self._recorded: set[int] = set()
        self._known_size = 0
        self._settled = new

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._recorded

    @property
    def next_sequence(self) -> int:
        """The first number after all that have a line."""
        return max(self._recorded, default=-1) + 1

    def settle(self) -> None:
        """Take note of what is really in the file, and end a torn line."""
        if self._settled:
            return
        with self.path.open("rb") as file:
            file.seek(self._known_size)
            lines = parse(file.read())
        self._recorded |= {record["sequence"] for record in lines.records if record.get("kind") == "frame"}
        if lines.open_end:
            self._file.append(b"\n", sync=True)
        self._known_size = self._file.size = self._file.measure()
        self._settled = True

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line and wait for the disk.

        Raises
        ------
        RecordingError
            The line may not be on the disk. Trying again is safe: a line that did arrive is not written twice.
        """
        number = record.get("sequence")
        is_frame = record.get("kind") == "frame"
        try:
            self.settle()
            if is_frame and number in self._recorded:
                return
            self._settled = False
            self._file.append(encode(record), sync=True)
        except OSError as error:
            what = f"frame {number}" if is_frame else f"the {record.get('kind')} line"
            raise RecordingError(
                f"{what} could not be written to {self.path}: {error.strerror or error}; every frame must have its line: "
                "free disk space or restore the folder"
            ) from error
        self._known_size, self._settled = self._file.size, True
        if is_frame:
            self._recorded.add(record["sequence"])

    def frames(self) -> Iterator[Record]:
        """Yield the whole lines of frames, as they were first written."""
        seen: set[int] = set()
        for record in parse(self.path.read_bytes()).records:
            if record.get("kind") == "frame" and record["sequence"] not in seen:
                seen.add(record["sequence"])
                yield record

    def close(self) -> None:
        """Release the file; may be called twice."""
        self._file.close()
