"""What lies in the watched folder: the periodic listing that is the truth, whatever events say."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from atomid_live.sources.files import Identity, identity_of
from atomid_live.sources.readers import is_candidate

_SESSION = re.compile(r"\d{8}T\d{6}Z(-\d+)?")
_UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".filepart", ".annotated.png")


@dataclass(frozen=True, slots=True)
class Where:
    """Which files of a folder count.

    Attributes
    ----------
    folder : Path
        The watched folder.
    recursive : bool
        Whether sub-folders count; links to folders never do.
    leave_out : tuple of Path
        Files and folders to pass over, such as our own output.
    """

    folder: Path
    recursive: bool = False
    leave_out: tuple[Path, ...] = ()


def is_ours_or_unfinished(name: str) -> bool:
    """Whether a file name says hidden, temporary or made by us."""
    lower = name.lower()
    return name.startswith((".", "~")) or name.endswith("~") or lower.endswith(_UNFINISHED)


def list_files(where: Where) -> dict[Path, Identity]:
    """Return every candidate file with its identity.

    Raises
    ------
    OSError
        The folder itself cannot be listed; a sub-folder or a file that vanishes meanwhile is passed over.
    """
    return dict(_walk(where.folder, where, top=True))


def _walk(folder: Path, where: Where, top: bool = False) -> Iterator[tuple[Path, Identity]]:
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:
        if top:
            raise
        return
    for entry in entries:
        path = Path(entry.path)
        try:
            if entry.is_dir(follow_symlinks=False):
                if where.recursive and not _is_left_out(path, where):
                    yield from _walk(path, where)
            elif _may_hold_frames(entry.name) and entry.is_file() and path not in where.leave_out:
                yield path, identity_of(entry.stat())
        except OSError:
            continue


def is_passed_over(path: Path, where: Where) -> bool:
    """Whether a file lies in a folder that is not looked into, such as our own output."""
    if not where.recursive and path.parent != where.folder:
        return True
    return path in where.leave_out or any(_is_left_out(up, where) for up in path.parents if where.folder in up.parents)


def _may_hold_frames(name: str) -> bool:
    return is_candidate(name) and not is_ours_or_unfinished(name)


def _is_left_out(path: Path, where: Where) -> bool:
    return path.name.startswith((".", "~")) or path in where.leave_out or bool(_SESSION.fullmatch(path.name))
