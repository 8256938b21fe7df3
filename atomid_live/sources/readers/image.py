"""Pictures made for the eye (PNG, BMP, JPEG): grey values without calibration."""

from __future__ import annotations

import warnings
from typing import BinaryIO

import numpy as np

from atomid_live.errors import FileNotReadyError, UnreadableFileError
from atomid_live.sources.readers.raw import (
    MAX_RATIO,
    Contents,
    Key,
    RawFrame,
    ReadOptions,
    check_declared,
    check_tail,
    grey,
    native,
    size_of,
)

_FORMATS = ("PNG", "BMP", "JPEG")
_END_MARK = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}


def _check_whole(handle: BinaryIO, size: int) -> None:
    """Hold back a picture whose end mark or declared length is missing; Pillow alone fills the rest with grey."""
    start = handle.read(64)
    if not any(start):
        raise FileNotReadyError("begins with zeros: still being copied")
    handle.seek(max(0, size - 4096))
    tail = handle.read()
    handle.seek(0)
    for magic, mark in _END_MARK.items():
        if start.startswith(magic) and mark not in tail:
            raise FileNotReadyError("truncated: the end mark of the picture is missing")
    if start.startswith(b"BM") and size < int.from_bytes(start[2:6], "little"):
        raise FileNotReadyError(f"truncated: {size} of {int.from_bytes(start[2:6], 'little')} bytes")


def scan(handle: BinaryIO, options: ReadOptions) -> Contents:
    """Find the one frame of an open picture."""
    from PIL import Image, UnidentifiedImageError

    size = size_of(handle)
    _check_whole(handle, size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(handle, formats=_FORMATS)
    except (UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise UnreadableFileError(f"is no picture of the kind its name says ({error})") from error
    except Image.DecompressionBombError as error:
        raise UnreadableFileError(f"declares a picture too large to be read ({error})") from error
    except OSError as error:
        raise FileNotReadyError(f"not whole ({error})") from error
    cols, rows = picture.size
    depth = 4 if picture.mode in ("I", "F") else len(picture.getbands()) * (2 if ";16" in picture.mode else 1)
    check_declared(rows, cols, depth, options)
    if rows * cols * depth > MAX_RATIO * size:
        raise UnreadableFileError(f"{size} bytes that expand more than {MAX_RATIO} times are refused")

    def load(key: Key) -> RawFrame:
        try:
            turned = picture.convert("RGBA" if "transparency" in picture.info else "RGB") if picture.mode == "P" else picture
            if turned.mode not in ("L", "LA", "RGB", "RGBA", "I", "F", "1", "I;16", "I;16B"):
                turned = turned.convert("RGB")
            pixels = np.asarray(turned)
        except (OSError, SyntaxError, ValueError) as error:
            raise FileNotReadyError(f"not whole ({error})") from error
        # A bitmap is stored from the bottom up, so what is still unwritten is the top of the picture.
        check_tail(pixels[::-1] if picture.format == "BMP" else pixels, options)
        eight_bit = pixels.dtype.kind == "b" or pixels.dtype.itemsize == 1
        note = ""
        if pixels.ndim == 3:
            pixels, note = grey(pixels)
        return RawFrame(native(pixels), display_scaled=eight_bit, notes=(note,) if note else ())

    return Contents((("", 0),), load)
