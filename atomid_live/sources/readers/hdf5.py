"""Just enough HDF5 for images: pure Python first, the C library only where that fails, and never a step outside the file.

The C library's known heap overflows are the reason for the order; both work on the open handle, so no lock is taken.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import math
import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from atomid_live.errors import FileNotReadyError, UnreadableFileError
from atomid_live.sources.readers.raw import MAX_FRAME_BYTES

SIGNATURE = b"\x89HDF\r\n\x1a\n"
PARSE_ERRORS = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    AssertionError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    MemoryError,
    struct.error,
    RecursionError,
)
_MAX_TEXT = 4 << 20


class _Handle(io.RawIOBase):
    """An open file without its number and name, so that no library opens it again or maps it into memory."""

    path = "open file"

    def __init__(self, handle: BinaryIO) -> None:
        super().__init__()
        self._handle = handle

    def read(self, size: int = -1) -> bytes:
        return self._handle.read(size)

    def readinto(self, buffer: Any) -> int:
        data = self._handle.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._handle.seek(offset, whence)

    def tell(self) -> int:
        return self._handle.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def check_superblock(handle: BinaryIO, size: int) -> None:
    """Check the signature, and the length the file says of itself against the length it has (HDF5 format, section II.A)."""
    head = handle.read(64)
    handle.seek(0)
    if not any(head[:8]):
        raise FileNotReadyError("begins with zeros: still being copied")
    if not SIGNATURE.startswith(head[:8]):
        raise UnreadableFileError("is no HDF5 file, in spite of its name")
    if len(head) < 64:
        raise FileNotReadyError("truncated in its header")
    version, width = head[8], head[13] if head[8] < 2 else head[9]
    if version > 3 or width != 8:
        raise UnreadableFileError(
            f"HDF5 superblock of version {version} with {width}-byte addresses is not one that Velox writes"
        )
    base, end = {0: (24, 40), 1: (28, 44)}.get(version, (12, 28))
    if struct.unpack_from("<Q", head, base)[0] != 0:
        raise UnreadableFileError("an HDF5 file inside another file (user block) is refused")
    stated = struct.unpack_from("<Q", head, end)[0]
    if stated > size:
        raise FileNotReadyError(f"truncated: {size} of {stated} bytes")


class Dataset(Protocol):
    """An array in the file whose pieces can be asked for with the place where they lie."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def has(self, index: int) -> bool:
        """Whether the slice ``[..., index]`` is written and lies inside the file."""

    def last_axis(self, index: int) -> NDArray[Any] | None:
        """Return the slice ``[..., index]``, or None where it is not (yet) written inside the file."""


class Tree(Protocol):
    """A file opened by one of the two libraries."""

    def children(self, path: str) -> list[str]:
        """Names in a group; empty where there is no such group."""

    def text(self, path: str) -> str:
        """Content of a one-element text data set; "" where there is none."""

    def dataset(self, path: str) -> Dataset | None:
        """Return the data set, or None where there is none; `UnreadableFileError` where it leads out of the file."""


def as_json(text: str) -> dict[str, Any]:
    """Parse a JSON object from the file; anything else gives an empty one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


@functools.cache
def _pyfive() -> Any:
    """Load pyfive; it parses its own package metadata for a log line at every chunk index, which took half of the reading."""
    import pyfive
    from pyfive import h5d

    if hasattr(h5d, "version"):
        setattr(h5d, "version", functools.cache(h5d.version))  # noqa: B010 - mypy knows no such attribute
    return pyfive


class _PureTree:
    def __init__(self, handle: BinaryIO) -> None:
        self._size = handle.seek(0, 2)
        handle.seek(0)
        self._handle = _Handle(handle)
        self._known: dict[str, Any] = {"": _pyfive().File(self._handle)}

    def _get(self, path: str) -> Any:
        path = path.strip("/")
        if path not in self._known:
            above, _, part = path.rpartition("/")
            group = self._get(above)
            held = hasattr(group, "keys") and part in group
            # the chunk index is read when a piece is asked for, not for a look at the shape
            self._known[path] = group.get_lazy_view(part) if held else None
        return self._known[path]

    def children(self, path: str) -> list[str]:
        node = self._get(path)
        return list(node.keys()) if hasattr(node, "keys") else []

    def text(self, path: str) -> str:
        node = self._get(path)
        if node is None or hasattr(node, "keys") or node.shape not in ((), (1,)):
            return ""
        value = np.asarray(node[()], object).reshape(-1)[0]
        return value[:_MAX_TEXT].decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def dataset(self, path: str) -> Dataset | None:
        node = self._get(path)
        return None if node is None or hasattr(node, "keys") else _PureDataset(node, self._handle, self._size)


class _PureDataset:
    def __init__(self, node: Any, handle: _Handle, size: int) -> None:
        self.shape: tuple[int, ...] = tuple(int(n) for n in node.shape)
        self.dtype: np.dtype[Any] = node.dtype
        self._node, self._handle, self._size = node, handle, size
        if node.id.layout_class not in (1, 2):
            raise UnreadableFileError("image data in a compact or virtual HDF5 layout are refused; Velox writes neither")
        if node.id.layout_class == 2 and math.prod(node.chunks) * self.dtype.itemsize > MAX_FRAME_BYTES:
            raise UnreadableFileError(f"declares chunks of {node.chunks} elements; the limit is {MAX_FRAME_BYTES} bytes")
        if node.id.filter_pipeline:
            raise UnreadableFileError("compressed image data in HDF5; Velox writes none: re-save the file uncompressed")

    def _corners(self) -> Iterator[tuple[int, ...]]:
        steps = self._node.chunks[:-1]
        places = [range(0, extent, step) for extent, step in zip(self.shape[:-1], steps, strict=True)]
        return itertools.product(*places)

    def _offset(self, corner: tuple[int, ...], index: int) -> int | None:
        """Where the chunk that holds this slice lies, or None where it is not allocated or not inside the file."""
        if self._node.id.layout_class == 1:
            start, count = self._node.id.data_offset, math.prod(self.shape)
        else:
            depth = self._node.chunks[-1]
            info = self._node.id.index.get((*corner, index // depth * depth))
            if info is None:
                return None
            start, count = info.byte_offset, math.prod(self._node.chunks)
        return start if start + count * self.dtype.itemsize <= self._size else None

    def has(self, index: int) -> bool:
        if self._node.id.layout_class == 1:
            return self._offset((), index) is not None
        return all(self._offset(corner, index) is not None for corner in self._corners())

    def _read(self, start: int, shape: tuple[int, ...]) -> NDArray[Any] | None:
        nbytes = math.prod(shape) * self.dtype.itemsize
        self._handle.seek(start)
        data = self._handle.read(nbytes)
        return np.frombuffer(data, self.dtype).reshape(shape) if len(data) == nbytes else None

    def last_axis(self, index: int) -> NDArray[Any] | None:
        if not self.has(index):
            return None
        if self._node.id.layout_class == 1:
            whole = self._read(self._node.id.data_offset, self.shape)
            return None if whole is None else whole[..., index]
        chunks = self._node.chunks
        if chunks[:-1] == self.shape[:-1]:
            one = self._read(self._offset((0,) * (len(chunks) - 1), index) or 0, chunks)
            return None if one is None else one[..., index % chunks[-1]]
        out = np.empty(self.shape[:-1], self.dtype)
        for corner in self._corners():
            block = self._read(self._offset(corner, index) or 0, chunks)
            if block is None:
                return None
            target = out[tuple(slice(a, a + step) for a, step in zip(corner, chunks[:-1], strict=True))]
            target[...] = block[..., index % chunks[-1]][tuple(slice(0, n) for n in target.shape)]
        return out


class _LibraryTree:
    def __init__(self, handle: BinaryIO) -> None:
        import h5py

        self._h5py = h5py
        self._size = handle.seek(0, 2)
        handle.seek(0)
        self._file = h5py.File(_Handle(handle), "r")

    def _get(self, path: str) -> Any:
        node: Any = self._file
        for part in path.strip("/").split("/"):
            if not isinstance(node, self._h5py.Group) or part not in node:
                return None
            if isinstance(node.get(part, getlink=True), self._h5py.ExternalLink):
                raise UnreadableFileError("a link to another file is refused")
            node = node[part]
        return node

    def children(self, path: str) -> list[str]:
        node = self._get(path)
        return list(node.keys()) if isinstance(node, self._h5py.Group) else []

    def text(self, path: str) -> str:
        node = self._get(path)
        if not isinstance(node, self._h5py.Dataset) or node.shape not in ((), (1,)):
            return ""
        value = np.asarray(node[()], object).reshape(-1)[0]
        return value[:_MAX_TEXT].decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def dataset(self, path: str) -> Dataset | None:
        node = self._get(path)
        return _LibraryDataset(node, self._size) if isinstance(node, self._h5py.Dataset) else None


class _LibraryDataset:
    def __init__(self, node: Any, size: int) -> None:
        self.shape: tuple[int, ...] = tuple(int(n) for n in node.shape)
        self.dtype: np.dtype[Any] = node.dtype
        self._node, self._size = node, size
        if node.external or node.is_virtual or node.chunks is None:
            raise UnreadableFileError("image data outside the file, virtual or in one piece are refused; Velox writes none")
        if node.compression is not None or node.shuffle or node.scaleoffset is not None:
            raise UnreadableFileError("compressed image data in HDF5; Velox writes none: re-save the file uncompressed")

    def has(self, index: int) -> bool:
        chunks = self._node.chunks
        places = [range(0, extent, step) for extent, step in zip(self.shape[:-1], chunks[:-1], strict=True)]
        for corner in itertools.product(*places):
            info = self._node.id.get_chunk_info_by_coord((*corner, index // chunks[-1] * chunks[-1]))
            if info.byte_offset is None or info.byte_offset + info.size > self._size:
                return False
        return True

    def last_axis(self, index: int) -> NDArray[Any] | None:
        return np.asarray(self._node[..., index]) if self.has(index) else None


LIBRARIES: tuple[Callable[[BinaryIO], Tree], ...] = (_PureTree, _LibraryTree)
