"""What every reader hands on, and the checks made before a byte of pixels is trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from atomid_live.errors import FileNotReadyError, NotAFrameError, UnreadableFileError
from atomid_live.types import NAN, UNCALIBRATED, FrameMeta, ScaleSource, TimeSource

Key = tuple[str, int]
"""(item, item_index): which image inside the file, and which frame of it."""

MAX_FRAME_BYTES = 1 << 30
MAX_RATIO = 10_000
ZERO_TAIL_BYTES = 8192
SMALLEST_SIDE_PX = 8


class ZeroTailError(FileNotReadyError):
    """The end of the pixels is all zero: a dark corner, or a copy that reserved its space and is not written yet."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How files are to be read.

    Attributes
    ----------
    detector : str
        Images of which detector to take from files that hold several.
    max_pixels : int
        Largest image that is read, rows times columns.
    accept_zero_tail : bool
        Take pixels that end in zeros; otherwise `ZeroTailError`.
    """

    detector: str = "HAADF"
    max_pixels: int = 16384 * 16384
    accept_zero_tail: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class RawFrame:
    """One image as the file holds it; fields as in `Frame`, `notes` are remarks for the log.

    `time_s` is NaN where the file says nothing of time; the caller then uses the file's own modification time.
    """

    pixels: NDArray[Any] = field(repr=False)
    item: str = ""
    item_index: int = 0
    pixel_size_yx_nm: tuple[float, float] = UNCALIBRATED
    scale_source: ScaleSource = "unknown"
    time_s: float = NAN
    time_source: TimeSource = "arrival"
    time_sigma_s: float = NAN
    index: int | None = None
    display_scaled: bool = False
    meta: FrameMeta = field(default_factory=FrameMeta)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """The frames of an open file, found without reading their pixels.

    Attributes
    ----------
    keys : tuple of (str, int)
        Frames that are whole, in order of acquisition.
    load : callable
        Read one of them; valid while the file is open.
    time_s : float
        Start of the acquisition where the file says so, in seconds since 1970 UTC.
    waiting : str
        Why more frames are expected in this file; "" when it is complete.
    """

    keys: tuple[Key, ...]
    load: Callable[[Key], RawFrame]
    time_s: float = NAN
    waiting: str = ""


class Reader(Protocol):
    """A module that reads one family of formats."""

    def scan(self, handle: BinaryIO, options: ReadOptions) -> Contents:
        """Find the frames of an open file, or raise one of the three file errors."""


def size_of(handle: BinaryIO) -> int:
    """Length of an open file in bytes; the position is left at the start."""
    size = handle.seek(0, 2)
    handle.seek(0)
    if size == 0:
        raise FileNotReadyError("the file is empty; waiting for its content")
    return size


def check_declared(rows: int, cols: int, itemsize: int, options: ReadOptions, samples: int = 1) -> None:
    """Refuse an image whose declared size is over the limits, before anything is allocated."""
    if rows * cols > options.max_pixels or rows * cols * itemsize * samples > MAX_FRAME_BYTES:
        raise UnreadableFileError(
            f"declares an image of {rows} x {cols} pixels, {itemsize * samples} bytes each; the limit is "
            f"{options.max_pixels} pixels and {MAX_FRAME_BYTES} bytes; raise source.max_pixels if the image is real"
        )


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Refuse what is not a plain real number."""
    if dtype.names is not None or dtype.kind == "c":
        raise NotAFrameError("the image holds complex numbers (an FFT or a DPC vector map), not intensities")
    if dtype.kind not in "biuf":
        raise UnreadableFileError(f"pixels of type {dtype} are not numbers; integers and floats are read")


def check_tail(pixels: NDArray[Any], options: ReadOptions) -> None:
    """Hold back an image whose last bytes are all zero, as in a copy that is still being filled."""
    if options.accept_zero_tail or pixels.size == 0:
        return
    last = pixels.reshape(-1)[-max(1, ZERO_TAIL_BYTES // pixels.dtype.itemsize) :]
    if not last.any():
        raise ZeroTailError("the last rows are all zero: still being copied, or dark; taken as it is if it stays so")


def native(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return the pixels contiguous, in the machine's byte order, and in a type that every kernel knows."""
    if pixels.dtype.kind == "b":
        return np.ascontiguousarray(pixels, np.uint8)
    if pixels.dtype.kind == "f" and pixels.dtype.itemsize not in (4, 8):
        return np.ascontiguousarray(pixels, np.float32 if pixels.dtype.itemsize < 4 else np.float64)
    return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))


def grey(pixels: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """Return one channel of a colour picture (rows, cols, channels) and a note on how it was made.

    Equal channels give their common value; others the luminance of ITU-R BT.601, rounded to the type of the pixels.
    """
    if pixels.shape[2] in (2, 4):
        pixels = pixels[..., :-1]
    first = pixels[..., 0]
    if pixels.shape[2] == 1 or all(np.array_equal(first, pixels[..., k]) for k in range(1, pixels.shape[2])):
        return first, ""
    mixed = pixels[..., :3].astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    if pixels.dtype.kind in "iu":
        mixed = np.rint(mixed)
    return mixed.astype(pixels.dtype), "a colour picture: its luminance was taken"


def check_frame(raw: RawFrame) -> None:
    """Refuse an image that is no frame: a line scan, an icon, or one without a finite pixel."""
    rows, cols = raw.pixels.shape
    if min(rows, cols) < SMALLEST_SIDE_PX:
        raise NotAFrameError(
            f"{rows} x {cols} pixels is a line scan or an icon; a frame has at least {SMALLEST_SIDE_PX} on each side"
        )
    if raw.pixels.dtype.kind == "f" and not np.isfinite(raw.pixels).any():
        raise NotAFrameError("no pixel is a finite number")
