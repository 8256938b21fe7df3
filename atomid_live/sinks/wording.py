"""What screens say: foreign text made harmless, numbers with units and errors, in the characters a screen can show."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

from atomid_live.types import DriftEstimate

_BLOCKS = "▁▂▃▄▅▆▇█"
_STEPS = "_.-~=+*#"
_ARROWS = "→↘↓↙←↖↑↗"
_WORDS = ("right", "right-down", "down", "left-down", "left", "left-up", "up", "right-up")
_PROBE = "●±×…→↗▁█⣿╭─"


@dataclass(frozen=True, slots=True)
class Script:
    """The characters a stream can carry: `unicode` for block and braille pictures, `encoding` for foreign text."""

    unicode: bool = True
    encoding: str = "utf-8"

    @classmethod
    def for_stream(cls, stream: object) -> Script:
        """Choose by the stream's declared encoding; one that cannot be looked up counts as ASCII."""
        encoding = getattr(stream, "encoding", None) or "ascii"
        try:
            _PROBE.encode(encoding)
        except UnicodeEncodeError:
            return cls(False, encoding)
        except LookupError:
            return cls(False, "ascii")
        return cls(True, encoding)

    def plain(self) -> Script:
        """Return the same without block and braille pictures, for consoles whose fonts lack them."""
        return Script(False, self.encoding)

    @property
    def plus_minus(self) -> str:
        """Sign between a value and its standard error."""
        return "±" if self.unicode else "+/-"

    @property
    def times(self) -> str:
        """Sign between width and height."""
        return "×" if self.unicode else "x"

    @property
    def dot(self) -> str:
        """Mark of something switched on."""
        return "●" if self.unicode else "*"

    @property
    def dash(self) -> str:
        """Stands for a number that is not known."""
        return "–" if self.unicode else "-"

    def clean(self, text: str) -> str:
        """Make foreign text safe to show: one line, no control, format or direction characters, only what can be encoded."""
        spaced = "".join(
            " " if char in "\n\r\t" else char if unicodedata.category(char)[0] != "C" else "\ufffd" for char in str(text)
        )
        return spaced.encode(self.encoding, "replace").decode(self.encoding)

    def shorten(self, text: str, width: int) -> str:
        """Cut cleaned text to `width` characters, in the middle, where paths can best spare it."""
        text = self.clean(text)
        if len(text) <= width:
            return text
        mark = "…" if self.unicode else "..."
        keep = max(0, width - len(mark))
        head = keep // 3
        return text[:head] + mark + (text[-(keep - head) :] if keep > head else "")

    def sparkline(self, values: Sequence[float], width: int, around_zero: float = math.nan) -> str:
        """Draw the last `width` values as one row of blocks; a NaN is a gap.

        With a number `around_zero` the middle height is zero, and the range symmetric and at least that; otherwise the range is
        that of the values, or 5 % of their mean where that is wider, so that a steady quantity looks steady.
        """
        shown = list(values)[-width:] if width > 0 else []
        finite = [value for value in shown if math.isfinite(value)]
        if not finite:
            return " " * len(shown)
        low, high = min(finite), max(finite)
        if math.isfinite(around_zero):
            high = max(abs(low), abs(high), around_zero)
            low = -high
        else:
            middle, half = (low + high) / 2, max((high - low) / 2, abs(low + high) / 40, 1e-12)
            low, high = middle - half, middle + half
        marks = _BLOCKS if self.unicode else _STEPS
        last = len(marks) - 1
        return "".join(marks[round((value - low) / (high - low) * last)] if math.isfinite(value) else " " for value in shown)

    def arrow(self, y: float, x: float) -> str:
        """Name the direction of a vector on the screen (y downwards) by an arrow, or in words."""
        if not (math.isfinite(x) and math.isfinite(y)) or (x == 0 and y == 0):
            return ""
        return (_ARROWS if self.unicode else _WORDS)[round(math.atan2(y, x) / (math.pi / 4)) % 8]

    def number(self, value: float, digits: int = 2, signed: bool = False) -> str:
        """Write a number with a fixed count of decimals; NaN is a dash."""
        if not math.isfinite(value):
            return self.dash
        rounded = round(value, digits) + 0.0
        return f"{rounded:+.{digits}f}" if signed and rounded else f"{rounded:.{digits}f}"

    def measured(self, value: float, sigma: float, unit: str, signed: bool = False) -> str:
        """Write a value with its standard error and as many decimals as the error deserves: one digit of it, two after a 1."""
        if not math.isfinite(value):
            return f"{self.dash} {unit}"
        if not math.isfinite(sigma):
            return f"{self.number(value, 2, signed)} {unit}"
        digits = 2 if sigma <= 0 else min(4, max(0, -math.floor(math.log10(sigma / 1.95))))
        return f"{self.number(value, digits, signed)} {self.plus_minus} {sigma:.{digits}f} {unit}"


def duration(seconds: float) -> str:
    """Write a time span as people say it: 0.4 s, 45 s, 7.5 min, 2 h 05."""
    if not math.isfinite(seconds):
        return "unknown"
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    if seconds < 595:
        return f"{seconds / 60:.1f} min"
    if seconds < 7170:
        return f"{seconds / 60:.0f} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d}"


def stopwatch(seconds: float) -> str:
    """Write a running time as 0:12:41."""
    whole = max(0, int(seconds)) if math.isfinite(seconds) else 0
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def size(count: int) -> str:
    """Write a number of bytes in the decimal units disks are sold in; negative means unknown."""
    if count < 0:
        return "unknown"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def file_name(source: str) -> str:
    """Return the last part of a path of either system; an address is returned whole."""
    if "://" in source:
        return source
    return PureWindowsPath(PurePosixPath(source).name).name or source


def outlook_words(drift: DriftEstimate, script: Script) -> str:
    """Return when the drift will have settled and when the field is left, each with its error; "" where nothing is known."""
    words = []
    if math.isfinite(drift.settling_s):
        when = f"{duration(drift.settling_s)} {script.plus_minus} {duration(drift.sigma_settling_s)}"
        words.append(f"below {drift.settled_nm_min:g} nm/min in about {when}")
    if math.isfinite(drift.leaving_s):
        when = f"{duration(drift.leaving_s)} {script.plus_minus} {duration(drift.sigma_leaving_s)}"
        words.append(f"leaves the field in {when}")
    return "; ".join(words)
