"""Lines with a CRC: whole ones come back, anything else is dropped."""

from __future__ import annotations

import json
import math

import numpy as np

from atomid_live.session_file.lines import decode, encode, parse


def test_a_line_is_json_and_its_crc_covers_the_rest() -> None:
    line = encode(
        {"a": 1, "b": [1.5, math.nan, math.inf], "c": np.float32(2), "d": ("x", np.int64(3)), "e": {"f": None, "g": True}}
    )
    record = json.loads(line)
    assert record | {"crc32": ""} == {
        "a": 1, "b": [1.5, None, None], "c": 2.0, "d": ["x", 3], "e": {"f": None, "g": True}, "crc32": "",
    }  # fmt: skip
    assert decode(line) == {key: value for key, value in record.items() if key != "crc32"}
    assert b"NaN" not in line and line.count(b"\n") == 1


def test_every_single_changed_byte_is_noticed() -> None:
    line = encode({"sequence": 7, "name": "Ω\udcff"})
    assert decode(line) == {"sequence": 7, "name": "Ω\udcff"}
    for at in range(len(line) - 1):
        damaged = line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]
        assert decode(damaged) is None, at


def test_parsing_passes_over_torn_damaged_and_blank_lines() -> None:
    first, second = encode({"n": 1}), encode({"n": 2})
    lines = parse(first + b"\x00\x00\n" + b"garbage\n" + second[:-9] + b"\n" + second + first[:10])
    assert [record["n"] for record in lines.records] == [1, 2]
    assert lines.bad == 3
    assert lines.open_end
    assert not parse(first).open_end
    assert parse(first[:-1]).records == [{"n": 1}]
