"""Open another program's file for a moment, read-only, without locks and without hindering its writer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from atomid_live.errors import FileNotReadyError

if sys.platform == "win32":
    import ctypes
    import msvcrt
    import os
    from ctypes import wintypes

    _GENERIC_READ = 0x80000000
    _SHARE_ALL = 0x1 | 0x2 | 0x4
    _OPEN_EXISTING = 3
    _FILE_ATTRIBUTE_NORMAL = 0x80
    _INVALID_HANDLE = ctypes.c_void_p(-1).value

    def _open(path: Path) -> BinaryIO:
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateFileW.restype = wintypes.HANDLE
        kernel.CreateFileW.argtypes = [
            wintypes.LPCWSTR,
            wintypes.DWORD,
            wintypes.DWORD,
            ctypes.c_void_p,
            wintypes.DWORD,
            wintypes.DWORD,
            wintypes.HANDLE,
        ]
        handle = kernel.CreateFileW(str(path), _GENERIC_READ, _SHARE_ALL, None, _OPEN_EXISTING, _FILE_ATTRIBUTE_NORMAL, None)
        if handle == _INVALID_HANDLE:
            raise ctypes.WinError(ctypes.get_last_error())
        kernel.CloseHandle.argtypes = [wintypes.HANDLE]
        try:
            number = msvcrt.open_osfhandle(handle, os.O_RDONLY | os.O_BINARY)
        except OSError:
            kernel.CloseHandle(handle)
            raise
        return os.fdopen(number, "rb")

else:

    def _open(path: Path) -> BinaryIO:
        return path.open("rb")


class LockedError(FileNotReadyError):
    """Another program keeps the file to itself; it stays so as long as that program likes."""


def open_shared(path: Path) -> BinaryIO:
    """Open a file for reading so that its writer can go on writing, renaming and deleting it.

    Raises
    ------
    LockedError
        Another program has it open without sharing (Velox does so while the document is open).
    FileNotReadyError
        The file vanished or the drive does not answer.
    """
    try:
        return _open(path)
    except PermissionError as error:
        raise LockedError(f"open in another program ({error.strerror or error}); taken when it is closed there") from error
    except FileNotFoundError as error:
        raise FileNotReadyError("vanished before it could be read") from error
    except OSError as error:
        raise FileNotReadyError(f"cannot be opened now ({error.strerror or error})") from error
