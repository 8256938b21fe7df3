"""NumPy .npy files: one frame (rows, cols), or a series (frames, rows, cols); never pickled objects."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from atomid_live.errors import FileNotReadyError, NotAFrameError, UnreadableFileError
from atomid_live.sources.readers.raw import (
    Contents,
    Key,
    RawFrame,
    ReadOptions,
    check_declared,
    check_dtype,
    check_tail,
    native,
    size_of,
)


def _header(handle: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(handle)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read(handle)
    except ValueError as error:
        raise UnreadableFileError(f"is not a whole NumPy file ({error})") from error


def scan(handle: BinaryIO, options: ReadOptions) -> Contents:
    """Find the frames of an open .npy file."""
    size = size_of(handle)
    if size < 128:
        raise FileNotReadyError("shorter than the header of a NumPy file")
    if not any(handle.read(128)):
        raise FileNotReadyError("begins with zeros: still being copied")
    handle.seek(0)
    shape, fortran, dtype = _header(handle)
    start = handle.tell()
    check_dtype(dtype)
    if len(shape) not in (2, 3):
        raise NotAFrameError(f"an array of shape {shape}; a frame is (rows, cols), a series (frames, rows, cols)")
    rows, cols = shape[-2:]
    frames = shape[0] if len(shape) == 3 else 1
    check_declared(rows, cols, dtype.itemsize, options)
    if fortran and frames > 1:
        raise UnreadableFileError("a series in Fortran order; save it with numpy.ascontiguousarray")
    each = rows * cols * dtype.itemsize
    whole = min(frames, (size - start) // each) if each else frames
    if whole < frames:
        raise FileNotReadyError(f"truncated: {size} of {start + frames * each} bytes")

    def load(key: Key) -> RawFrame:
        handle.seek(start + key[1] * each)
        flat = np.frombuffer(handle.read(each), dtype)
        if flat.size != rows * cols:
            raise FileNotReadyError("truncated while it was read")
        check_tail(flat, options)
        return RawFrame(native(flat.reshape((rows, cols), order="F" if fortran else "C")), item_index=key[1])

    return Contents(tuple(("", k) for k in range(frames)), load)
