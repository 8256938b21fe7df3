"""Cells and rows of the CSV files."""

from __future__ import annotations

import csv
import io
import math
import unicodedata
from collections.abc import Mapping
from typing import Any


def cell(text: str) -> str:
    """Return text that is safe in one cell: one line, no control characters, never a formula of a spreadsheet."""
    flat = "".join(" " if unicodedata.category(c).startswith("C") else c for c in text).strip()
    return "'" + flat if flat[:1] in ("=", "+", "-", "@") else flat


def number(value: float | None, decimals: int) -> str:
    """Return a number with fixed decimals; what is not known is an empty cell."""
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:.{decimals}f}"


def csv_row(cells: list[str]) -> bytes:
    """Return one row, quoted where need be, with its line feed."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue().encode("utf-8", "replace")


def time_cell(record: Mapping[str, Any]) -> str:
    """Return the frame's time in seconds since 1970 UTC, to the microsecond."""
    stamp = record.get("time_ns")
    return "" if stamp is None else f"{stamp // 1_000_000_000}.{stamp % 1_000_000_000 // 1000:06d}"


def pair(values: Any) -> tuple[float, float]:
    """Return a pair of a line, NaN where it says null."""
    x, y = values or (None, None)
    return (math.nan if x is None else x), (math.nan if y is None else y)
