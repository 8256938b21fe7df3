"""Shared by all tests: where the real frames are, if they are on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real frames; they are other people's and not part of the repository, so their tests skip without them."""
    here = Path(os.environ.get("ATOMID_LIVE_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not (here / "README.md").is_file():
        pytest.skip(f"no real frames at {here}; set ATOMID_LIVE_REAL_DATA to their folder")
    return here
