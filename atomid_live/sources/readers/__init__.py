"""Readers of files: a table of suffix and module, each imported when a file of its kind comes."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import cast

from atomid_live.errors import UnreadableFileError
from atomid_live.sources.readers.raw import Reader

TABLE = {
    ".emd": "velox_emd",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".png": "image",
    ".bmp": "image",
    ".jpg": "image",
    ".jpeg": "image",
    ".npy": "npy",
}
NOT_YET = {
    ".dm3": "Gatan DigitalMicrograph",
    ".dm4": "Gatan DigitalMicrograph",
    ".ser": "TIA",
    ".mrc": "MRC",
    ".prz": "Panta Rhei",
    ".hspy": "HyperSpy",
}
"""Image formats that are known but not read yet: refused with a reason, where other suffixes are ignored in a folder."""


def is_candidate(name: str) -> bool:
    """Whether a file of this name may hold frames, or is of a known kind that must be refused aloud."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  (a full folder asks this often)
    return suffix in TABLE or suffix in NOT_YET


def reader_for(path: Path) -> Reader:
    """Import and return the reader of a file by its suffix, or raise `UnreadableFileError` naming what is read."""
    suffix = path.suffix.lower()
    module = TABLE.get(suffix)
    if module is None:
        kind = NOT_YET.get(suffix, "unknown")
        raise UnreadableFileError(
            f"{kind} files ({suffix or 'no suffix'}) are not read; supported are {', '.join(TABLE)}: export the image as TIFF"
        )
    return cast(Reader, importlib.import_module(f"{__name__}.{module}"))
