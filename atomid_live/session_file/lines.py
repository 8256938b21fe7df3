"""Lines of `frames.jsonl`: compact JSON that ends in the CRC-32 of the rest, so that a torn or rotten line shows."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Record = dict[str, Any]

_CRC_START = b',"crc32":"'
_CRC_LENGTH = len(_CRC_START) + 8 + 2


def plain(value: Any) -> Any:
    """Return `value` in what JSON knows; NaN and infinity become None, tuples lists, NumPy numbers Python's."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    return str(value)


def dumps(value: Any, *, indent: int | None = None) -> bytes:
    """Return strict JSON (never NaN) in ASCII: names of files may hold what UTF-8 cannot."""
    separators = (",", ":") if indent is None else None
    return json.dumps(plain(value), allow_nan=False, separators=separators, indent=indent).encode("ascii")


def encode(record: Mapping[str, Any]) -> bytes:
    """Return one line with its CRC, line feed included."""
    body = dumps(record)
    return b'%s%s%08x"}\n' % (body[:-1], _CRC_START, zlib.crc32(body))


def decode(line: bytes) -> Record | None:
    """Return the record of a line (with or without line feed), or None when the line is not whole."""
    line = line.rstrip(b"\r\n")
    body, tail = line[:-_CRC_LENGTH] + b"}", line[-_CRC_LENGTH:]
    if not tail.startswith(_CRC_START) or tail != b'%s%08x"}' % (_CRC_START, zlib.crc32(body)):
        return None
    record = json.loads(body)
    return record if isinstance(record, dict) else None


@dataclass(slots=True)
class Lines:
    """What a `frames.jsonl` holds.

    Attributes
    ----------
    records : list of dict
        Whole lines in the order written.
    bad : int
        Lines dropped because their CRC was wrong.
    open_end : bool
        The last byte is not a line feed: the next line must begin with one.
    """

    records: list[Record] = field(default_factory=list)
    bad: int = 0
    open_end: bool = False


def parse(data: bytes) -> Lines:
    """Read all whole lines; torn and damaged ones are dropped and counted."""
    lines = Lines(open_end=bool(data) and not data.endswith(b"\n"))
    for line in data.split(b"\n"):
        if line.strip(b"\r\x00 "):
            record = decode(line)
            if record is None:
                lines.bad += 1
            else:
                lines.records.append(record)
    return lines
