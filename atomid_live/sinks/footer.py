"""The strip of numbers under an annotated frame: it never covers the specimen."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from atomid_live import flags
from atomid_live.calibration import is_calibrated, length_nm, pair_nm, xy
from atomid_live.types import Result, Summary

Key = tuple[NDArray[np.uint8], str, str, str]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_GROUND, _LINE = (16, 19, 24), (52, 60, 72)
_LABEL, _TEXT, _WARN, _ALARM = (134, 146, 160), (238, 241, 245), (255, 190, 84), (255, 92, 92)


def nice_length_nm(longest_nm: float) -> float:
    """Return the longest of 1, 2, 5 times a power of ten that is not longer than `longest_nm`."""
    power = 10.0 ** math.floor(math.log10(longest_nm))
    return next(step * power for step in (5, 2, 1) if step * power <= longest_nm * (1 + 1e-9) or step == 1)


def length_label(nm: float) -> str:
    """Return a length with its unit: nm, pm below one, um above a thousand."""
    if nm < 1:
        return f"{nm * 1000:g} pm"
    return f"{nm:g} nm" if nm < 1000 else f"{nm / 1000:g} um"


def _signed(value: float, decimals: int) -> str:
    return f"{value:+.{decimals}f}" if math.isfinite(value) else "-"


def _drift(result: Result) -> str:
    total = xy(result.drift.total_yx_px)
    if not all(math.isfinite(value) for value in total):
        return "not known"
    text = f"({_signed(total[0], 2)}, {_signed(total[1], 2)}) px"
    if is_calibrated(result.pixel_size_yx_nm):
        x, y = xy(pair_nm(result.drift.total_yx_px, result.pixel_size_yx_nm))
        text = f"({_signed(x, 3)}, {_signed(y, 3)}) nm"
    speed = math.hypot(*result.drift.velocity_yx_nm_min)
    return text + (f"  {speed:.2f} nm/min" if math.isfinite(speed) else "")


def _spacing(result: Result) -> str:
    spacing = result.detections.spacing_px
    if not math.isfinite(spacing):
        return "not known"
    nm = length_nm(spacing, result.pixel_size_yx_nm)
    return f"{spacing:.2f} px" + (f"  {nm * 1000:.1f} pm" if math.isfinite(nm) else "")


def _percent(summary: Summary) -> str:
    if not math.isfinite(summary.mean):
        return "-"
    error = f" ± {summary.sem * 100:.3f}" if math.isfinite(summary.sem) else ""
    return f"{summary.mean * 100:+.3f}{error} %"


def facts(result: Result) -> list[tuple[str, str, tuple[int, int, int]]]:
    """Return label, value and colour of each fact in the strip, in order."""
    out = [
        ("frame", f"{result.sequence:06d}", _TEXT),
        ("columns", f"{len(result.detections)}", _TEXT),
        ("spacing", _spacing(result), _TEXT),
        ("drift", _drift(result), _TEXT),
    ]
    if result.reading.valid:
        strain = result.reading.strain
        out += [(name, _percent(strain.get(name, Summary())), _TEXT) for name in ("exx", "eyy", "exy")]
        rotation = strain.get("rotation_mrad", Summary())
        out.append(("rotation", f"{_signed(rotation.mean, 2)} mrad", _TEXT))
    else:
        out.append(("strain", f"not valid: {result.reading.reason or 'no reason given'}", _WARN))
    if result.reading.alarm:
        out.append(("ALARM", result.reading.alarm, _ALARM))
    if words := flags.names(result.flags):
        out.append(("flags", ", ".join(words).replace("_", " "), _WARN))
    return out


@lru_cache(maxsize=16)
def _font(size_px: int) -> Font:
    return ImageFont.load_default(size_px)


def _printable(text: str) -> str:
    """Return text in the letters the font has; names from outside may hold anything."""
    return "".join(c if c in "±µ·°" or " " <= c <= "~" else "?" for c in text)


def _shortened(text: str, font: Font, width: float) -> str:
    """Return text cut to `width` pixels, with an ellipsis where something is missing."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


class _Strip:
    """Places label and value pairs from left to right and on to the next line."""

    def __init__(self, width: int, size_px: int) -> None:
        self.font, self.size = _font(size_px), size_px
        self.margin, self.gap, self.leading = round(0.8 * size_px), round(1.5 * size_px), round(1.55 * size_px)
        self.right = width - self.margin
        self.x, self.line = self.margin, 0
        self.placed: list[tuple[int, int, str, str, tuple[int, int, int]]] = []

    def add(self, label: str, value: str, colour: tuple[int, int, int]) -> None:
        value = _printable(value)
        start = self.font.getlength(label + "  ")
        if self.x > self.margin and self.x + start + self.font.getlength(value) > self.right:
            self.x, self.line = self.margin, self.line + 1
        value = _shortened(value, self.font, self.right - self.x - start)
        self.placed.append((self.x, self.line, label, value, colour))
        self.x += round(start + self.font.getlength(value)) + self.gap

    def draw(self, pen: ImageDraw.ImageDraw, top: int) -> None:
        for x, line, label, value, colour in self.placed:
            y = top + line * self.leading
            pen.text((x, y), label, font=self.font, fill=_LABEL)
            pen.text((x + self.font.getlength(label + "  "), y), value, font=self.font, fill=colour)


def _draw_key(strip: Image.Image, pen: ImageDraw.ImageDraw, place: tuple[int, int], key: Key, size: int) -> None:
    """Draw what the colours mean at the left end of the last line: name, low, ramp, high."""
    table, name, low, high = key
    font, (x, y) = _font(size), place
    pen.text((x, y), name, font=font, fill=_LABEL)
    x += round(font.getlength(name + "  "))
    pen.text((x, y), low, font=font, fill=_TEXT)
    x += round(font.getlength(low + " ")) + 2
    length, height = 9 * size, max(4, round(size * 0.5))
    bar = np.broadcast_to(table[np.linspace(0, 255, length).astype(np.intp)], (height, length, 3))
    strip.paste(Image.fromarray(np.ascontiguousarray(bar)), (x, y + round(size * 0.62) - height // 2))
    pen.text((x + length + size // 3 + 2, y), high, font=font, fill=_TEXT)


def _draw_scale_bar(pen: ImageDraw.ImageDraw, right: int, y: int, result: Result, scale: float, size: int) -> None:
    """Draw the scale bar at the right end of the last line: along x, so of the pixel size along x."""
    pixel_nm = result.pixel_size_yx_nm[1] / scale
    font = _font(size)
    nm = nice_length_nm(0.22 * right * pixel_nm)
    label, length = length_label(nm), nm / pixel_nm
    middle, half = y + round(size * 0.62), max(2, round(size * 0.16))
    start = right - round(length)
    pen.rectangle((start, middle - half, right - 1, middle + half - 1), fill=_TEXT)
    pen.text((start - font.getlength(label + "  "), y), label, font=font, fill=_TEXT)


def draw_footer(result: Result, width: int, scale: float, key: Key) -> NDArray[np.uint8]:
    """Return the strip for a picture of `width` pixels, shape (height, width, 3) uint8 RGB.

    Parameters
    ----------
    result : Result
    width : int
        Of the picture, in its own pixels.
    scale : float
        Pixels of the picture per pixel of the frame, for the scale bar.
    key : (ndarray of shape (256, 3), str, str, str)
        What the colours mean: table, name, low end, high end.
    """
    size = int(min(max(width / 60, 12), 64))
    strip = _Strip(width, size)
    for fact in facts(result):
        strip.add(*fact)
    top = round(0.7 * size)
    last = top + (strip.line + 1) * strip.leading + round(0.25 * size)
    image = Image.new("RGB", (width, last + strip.leading + round(0.35 * size)), _GROUND)
    pen = ImageDraw.Draw(image)
    pen.line((0, 0, width, 0), fill=_LINE)
    strip.draw(pen, top)
    _draw_key(image, pen, (strip.margin, last), key, size)
    if is_calibrated(result.pixel_size_yx_nm):
        _draw_scale_bar(pen, strip.right, last, result, scale, size)
    else:
        text = "uncalibrated: no scale bar"
        pen.text((strip.right - strip.font.getlength(text), last), text, font=strip.font, fill=_LABEL)
    return np.asarray(image)
