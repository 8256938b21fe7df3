"""One path from a file to its frames, for the watched folder, for replay and for `detect`."""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
import math
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomid_live.errors import AtomidError, FileNotReadyError, NotAFrameError, UnreadableFileError
from atomid_live.settings import FrameSettings, SourceSettings
from atomid_live.sources.readers import reader_for
from atomid_live.sources.readers.opening import open_shared
from atomid_live.sources.readers.raw import Contents, Key, RawFrame, ReadOptions, check_frame
from atomid_live.types import Frame, Origin, frozen

log = logging.getLogger(__name__)

ARRIVAL_SIGMA_S = 1.0
"""Standard error given to a file's modification time as the time of its frame."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which state of a file was read: length in bytes, modification time in ns, file number."""

    size: int
    mtime_ns: int
    number: int

    def __str__(self) -> str:
        """Text for the ledger and the session file."""
        return f"{self.size}-{self.mtime_ns}-{self.number:x}"


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A frame read from a file, checked and hashed; or, with `reason`, an image of it that is no frame."""

    origin: Origin
    raw: RawFrame | None
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Frames taken from a file in one opening.

    `left` counts whole frames that were not read yet, `waiting` says why the file will hold more, or is "".
    """

    loaded: tuple[Loaded, ...]
    left: int = 0
    waiting: str = ""


def identify(path: Path) -> Identity:
    """Return the identity of a regular file, or raise `OSError`; anything else is `UnreadableFileError`."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableFileError("is not a regular file")
    return identity_of(found)


def identity_of(found: os.stat_result) -> Identity:
    """Identity from a stat result; without the file number on Windows, where a listing does not tell it."""
    return Identity(found.st_size, found.st_mtime_ns, 0 if sys.platform == "win32" else found.st_ino)


@functools.lru_cache(maxsize=65536)
def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which frame2 comes before frame10; the case of letters does not matter."""
    parts = re.split(r"(\d+)", name.casefold())
    return tuple((0, int(part), part) if part.isdecimal() and part.isascii() else (1, 0, part) for part in parts if part)


def content_sha256(pixels: NDArray[Any]) -> str:
    """Hash of shape, dtype and pixels, the same for every copy of a frame."""
    digest = hashlib.sha256(f"{pixels.shape}{pixels.dtype.newbyteorder('<').str}".encode())
    digest.update(np.ascontiguousarray(pixels).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def options_from(frame: FrameSettings, source: SourceSettings) -> ReadOptions:
    """Return what the readers need of the settings."""
    return ReadOptions(detector=frame.detector, max_pixels=source.max_pixels)


def read_batch(path: Path, options: ReadOptions, wanted: Callable[[Key], bool], limit: int) -> Batch:
    """Open a file, read up to `limit` of the wanted frames that are whole, and close it.

    Raises
    ------
    FileNotReadyError
        Nothing is whole yet, or the file changed while it was read: what was read is discarded.
    UnreadableFileError, NotAFrameError
        Nothing in it will ever be a frame.
    """
    reader = reader_for(path)
    try:
        before = identify(path)
        with open_shared(path) as handle:
            contents = reader.scan(handle, options)
            keys = [key for key in contents.keys if wanted(key)]
            loaded, waiting = _load_some(path, before, contents, keys[:limit])
        if identify(path) != before:
            raise FileNotReadyError("changed while it was read")
    except FileNotFoundError as error:
        raise FileNotReadyError("vanished before it could be read") from error
    except OSError as error:
        raise FileNotReadyError(f"cannot be read now ({error.strerror or error})") from error
    except MemoryError as error:
        raise UnreadableFileError("does not fit into the memory") from error
    return Batch(loaded, 0 if waiting else len(keys) - len(loaded), waiting or contents.waiting)


def _load_some(path: Path, identity: Identity, contents: Contents, keys: list[Key]) -> tuple[tuple[Loaded, ...], str]:
    """Load frames until one is not whole; the reason counts only when others came before it."""
    loaded: list[Loaded] = []
    for key in keys:
        try:
            loaded.append(_load(path, identity, contents, key))
        except FileNotReadyError as error:
            if not loaded:
                raise
            return tuple(loaded), str(error)
    return tuple(loaded), ""


def acquired_s(path: Path, options: ReadOptions) -> float:
    """Start of the acquisition as the file itself states it; NaN where it does not, or cannot be read."""
    try:
        with open_shared(path) as handle:
            return reader_for(path).scan(handle, options).time_s
    except (AtomidError, OSError):
        return math.nan


def _load(path: Path, identity: Identity, contents: Contents, key: Key) -> Loaded:
    origin = Origin(str(path), key[0], key[1], str(identity))
    raw = contents.load(key)
    origin = replace(origin, content_sha256=content_sha256(raw.pixels))
    try:
        check_frame(raw)
    except NotAFrameError as error:
        return Loaded(origin, None, str(error))
    if not math.isfinite(raw.time_s):
        raw = replace(raw, time_s=identity.mtime_ns / 1e9, time_source="arrival", time_sigma_s=ARRIVAL_SIGMA_S)
    for note in raw.notes:
        log.info("%s: %s", path.name, note)
    return Loaded(origin, raw)


def to_frame(loaded: Loaded, sequence: int, settings: FrameSettings) -> Frame:
    """Number a loaded frame and apply the user's pixel size, which goes over the file's."""
    raw = loaded.raw
    if raw is None:
        raise ValueError(f"{loaded.origin.source} holds no frame: {loaded.reason}")
    size, source = raw.pixel_size_yx_nm, raw.scale_source
    if settings.pixel_size_nm is not None:
        size, source = (settings.pixel_size_nm[1], settings.pixel_size_nm[0]), "user"
    return Frame(
        sequence=sequence,
        pixels=frozen(raw.pixels),
        time_s=raw.time_s,
        origin=loaded.origin,
        time_source=raw.time_source,
        time_sigma_s=raw.time_sigma_s,
        index=raw.index,
        pixel_size_yx_nm=size,
        scale_source=source,
        display_scaled=raw.display_scaled,
        received_ns=time.time_ns(),
        received_monotonic_s=time.monotonic(),
        meta=raw.meta,
    )


def read_frames(path: Path, settings: FrameSettings, options: ReadOptions | None = None) -> Iterator[Frame]:
    """Yield every frame of one file that is complete, numbered from 0.

    A dark last row is no reason to wait here. Raises the three file errors; an image of the file that is no frame raises
    `NotAFrameError`.
    """
    options = replace(options or ReadOptions(detector=settings.detector), accept_zero_tail=True)
    numbers = itertools.count()
    for loaded in every_frame(path, options):
        if loaded.raw is None:
            raise NotAFrameError(loaded.reason)
        yield to_frame(loaded, next(numbers), settings)


def every_frame(path: Path, options: ReadOptions) -> Iterator[Loaded]:
    """Yield what a complete file holds, a few frames at a time so that memory stays small."""
    taken: set[Key] = set()
    while True:
        batch = read_batch(path, options, lambda key: key not in taken, 4)
        for loaded in batch.loaded:
            taken.add((loaded.origin.item, loaded.origin.item_index))
            yield loaded
        if batch.left == 0:
            if batch.waiting:
                raise FileNotReadyError(batch.waiting)
            return
