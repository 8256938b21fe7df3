"""Frames and files for the tests of the sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from velox_files import UUID, VeloxFile, metadata

from atomid_live.sources.ledger import Ledger


@pytest.fixture(autouse=True)
def no_ledger_left_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close every ledger that a test opened, since an open data base is a warning, and a warning an error."""
    opened = []
    open_one = Ledger._open

    def remember(ledger: Ledger) -> Any:
        opened.append(open_one(ledger))
        return opened[-1]

    monkeypatch.setattr(Ledger, "_open", remember)
    yield
    for base in opened:
        base.close()


@pytest.fixture
def velox() -> type[VeloxFile]:
    """Writer of Velox files in steps."""
    return VeloxFile


@pytest.fixture
def velox_stack() -> Callable[..., Path]:
    """Writer of a whole Velox file with the given frames (list of equal arrays)."""

    def write(path: Path, frames: list[np.ndarray[Any, Any]], detector: str = "HAADF", uuid: str = UUID, **over: Any) -> Path:
        with VeloxFile(path) as file:
            file.image(uuid, frames[0].shape, frames[0].dtype)
            file.extend(uuid, len(frames))
            for k, pixels in enumerate(frames):
                file.write(uuid, k, pixels, metadata(detector, k + 1, **over))
        return path

    return write


@pytest.fixture
def frames() -> Iterator[Callable[..., np.ndarray[Any, Any]]]:
    """Maker of frames that differ by their seed and are never square."""

    def make(seed: int, shape: tuple[int, int] = (24, 40), dtype: Any = np.uint16) -> np.ndarray[Any, Any]:
        return np.random.default_rng(seed).integers(1, 200, shape).astype(dtype)

    yield make
