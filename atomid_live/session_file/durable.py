"""Writing that survives a crash: whole new files, files that only grow, one writer at a time.

All file-system calls of the session folder that change something are made here through `os`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

Bytes = bytes | bytearray | memoryview

_BINARY = getattr(os, "O_BINARY", 0)


def write_all(descriptor: int, data: Bytes) -> None:
    """Write every byte; the operating system may take them in parts."""
    view = memoryview(data)
    while len(view):
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make new names in `folder` durable; Windows does this with the file itself and cannot open a folder."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_for(path: Path) -> Path:
    """Return the name under which `path` is written until it is whole."""
    return path.with_name(f".{path.name}.tmp")


def write_whole(path: Path, data: Bytes) -> None:
    """Put `data` under `path`, over what was there; a reader sees the old file or the new one, never a part."""
    temporary = temporary_for(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, 0o666)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_new(path: Path, data: Bytes) -> None:
    """Like `write_whole`, but refuse with `FileExistsError` to overwrite."""
    if os.path.lexists(path):
        raise FileExistsError(17, "already there, and nothing is overwritten", str(path))
    write_whole(path, data)


def free_name(path: Path) -> Path:
    """Return `path`, or if taken `stem-2.ext`, `stem-3.ext` ...: the first name not in use."""
    number, name = 1, path
    while os.path.lexists(name):
        number += 1
        name = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return name


def retire(path: Path) -> Path:
    """Rename a file that no line speaks of to `<name>.orphan`, so that its name is free; nothing is deleted."""
    target = free_name(path.with_name(path.name + ".orphan"))
    path.rename(target)
    return target


class GrowingFile:
    """A file that is only ever appended to, unbuffered, in binary."""

    def __init__(self, path: Path, *, new: bool = False) -> None:
        self.path = path
        mode = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _BINARY | (os.O_EXCL if new else 0)
        self._descriptor = os.open(path, mode, 0o666)
        self.size = os.fstat(self._descriptor).st_size

    def append(self, data: Bytes, *, sync: bool) -> None:
        """Append `data` and with `sync` wait for the disk; on `OSError` any part of it may have arrived."""
        write_all(self._descriptor, data)
        if sync:
            os.fsync(self._descriptor)
        self.size += len(data)

    def sync(self) -> None:
        """Wait for the disk."""
        os.fsync(self._descriptor)

    def cut(self, size: int) -> None:
        """Drop everything after the first `size` bytes (a torn row)."""
        os.ftruncate(self._descriptor, size)
        self.size = size

    def measure(self) -> int:
        """Return the size the file really has, after a failed append."""
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Release the file; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FolderLock:
    """One writer per folder, by a lock of the operating system that dies with its process."""

    NAME = "session.lock"

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / self.NAME, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)

    def take(self) -> bool:
        """Try to become the writer; False when another process is. A file system without locks counts as free."""
        try:
            _lock(self._descriptor)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return True
        return True

    def release(self) -> None:
        """Give the folder up; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
