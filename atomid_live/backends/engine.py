"""An engine: a folder with a network and its card; opened only when the files fit the card."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atomid_live.backends.onnx_guard import check_onnx
from atomid_live.errors import ModelError, UsageError

CARD = "engine.toml"
SCHEMA = 1
DEFAULT_ENGINE = "unet"
_NEEDED = {"name": str, "schema": int, "files": dict, "input": dict, "output": dict}


@dataclass(frozen=True, slots=True)
class Engine:
    """A checked engine.

    Attributes
    ----------
    name : str
        As in `--model`.
    folder : Path
        Where its files are.
    card : mapping
        All of `engine.toml`.
    """

    name: str
    folder: Path
    card: Mapping[str, Any] = field(repr=False)

    @property
    def canonical_sigma_px(self) -> float:
        """Width of a column, in pixels, that frames are to be resampled to."""
        return float(self.card["input"]["canonical_sigma_px"])

    @property
    def stride(self) -> int:
        """Input pixels per pixel of the confidence map."""
        return int(self.card["output"]["stride"])

    @property
    def sha256(self) -> str:
        """Hash of the default model file, for the session's record."""
        return str(self.card["files"][self.file_for("auto")])

    def file_for(self, precision: str) -> str:
        """Name of the model file of a precision ("auto": the card's default)."""
        chosen = self.card["output"].get("default_precision", "fp32") if precision == "auto" else precision
        name = {"fp32": "model.onnx", "int8": "model_int8.onnx"}.get(str(chosen))
        if name is None or name not in self.card["files"]:
            raise UsageError(f"engine {self.name!r} has no precision {chosen!r}; it has {', '.join(self.card['files'])}")
        return name

    def read(self, name: str) -> bytes:
        """Content of one of its files, checked against the card's SHA-256 (and, for ONNX, for what it may contain)."""
        path = self.folder / name
        expected = self.card["files"].get(name)
        if expected is None:
            raise ModelError(f"{self.folder / CARD}: lists no file {name!r}; a file without a hash is not opened")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror or error}; the card lists it: fetch or train the model again") from error
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise ModelError(
                f"{path}: SHA-256 is {found[:16]}…, its card says {str(expected)[:16]}…; "
                "the file was changed or damaged: fetch or train the model again"
            )
        if name.endswith(".onnx"):
            check_onnx(path, data)
        return data


def engine_folders() -> list[Path]:
    """Folders that may hold engines: those inside the installed package, or the repository's."""
    package = Path(__file__).resolve().parents[1]
    return [folder for folder in (package / "_engines", package.parent / "engines") if folder.is_dir()]


def engine_names() -> list[str]:
    """Names of the engines that are here, sorted."""
    return sorted({card.parent.name for folder in engine_folders() for card in folder.glob(f"*/{CARD}")})


def find_engine(name: str | None = None) -> Path | None:
    """Folder of an engine, by name or as the folder itself; without a name the default engine, or None where none ships.

    Raises
    ------
    UsageError
        No engine of that name.
    """
    wanted = DEFAULT_ENGINE if name is None else name
    if name is not None and Path(name, CARD).is_file():
        return Path(name)
    if not set(wanted) & set("/\\:") and wanted not in ("", ".", ".."):
        for parent in engine_folders():
            if (parent / wanted / CARD).is_file():
                return parent / wanted
    if name is None:
        return None
    raise UsageError(f"unknown model {name!r}; known: {', '.join(['dog', *engine_names()])}, or a folder with an {CARD}")


def load_engine(folder: Path) -> Engine:
    """Read an engine's card.

    Raises
    ------
    ModelError
        The card is not valid, or made for another version of this program.
    """
    path = folder / CARD
    try:
        card = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not a readable card ({error}); fetch or train the model again") from error
    for key, kind in _NEEDED.items():
        if not isinstance(card.get(key), kind):
            raise ModelError(f"{path}: the card needs {key!r} as {kind.__name__}; write it anew with `atomid-live train`")
    if card["schema"] != SCHEMA:
        raise ModelError(f"{path}: card of schema {card['schema']}, this program reads {SCHEMA}; update one of the two")
    return Engine(str(card["name"]), folder, card)
