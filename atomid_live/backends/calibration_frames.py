"""Simulated frames that set the steps of an eight-bit network, from the list in `calibration/int8/frames.toml`."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atomid_live.detect.local_contrast import local_contrast
from atomid_live.errors import ModelError
from atomid_live.simulate.imaging import render
from atomid_live.simulate.lattices import crystal_named, fill
from atomid_live.simulate.noise import Camera, record

SCHEMA = 1
GREY_PER_ELECTRON = 20.0


@dataclass(frozen=True, slots=True)
class CalibrationFrame:
    """One line of the list; lengths in pixels of the network's input, heights in electrons per pixel.

    Attributes
    ----------
    crystal : str
        Name, or "" for an empty frame.
    column_sigma_px, cell_px : float
        Width of a column, and the crystal's shorter cell vector.
    height_e, background_e : float
        Of the brightest column's middle, and around it.
    correlation : float
        Of the noise of neighbouring pixels.
    """

    crystal: str
    column_sigma_px: float
    cell_px: float
    height_e: float
    background_e: float
    correlation: float


@dataclass(frozen=True, slots=True)
class CalibrationRecipe:
    """The list, with what all frames share: first seed and (rows, cols)."""

    seed: int
    shape: tuple[int, int]
    frames: tuple[CalibrationFrame, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of all numbers."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def images(self) -> Iterator[NDArray[np.float32]]:
        """Yield the frames as the network sees them, shape (1, 1, rows, cols)."""
        for number, frame in enumerate(self.frames):
            pixels = _simulated(np.random.default_rng((self.seed, number)), frame, self.shape)
            yield local_contrast(pixels)[None, None]


def _simulated(rng: np.random.Generator, frame: CalibrationFrame, shape: tuple[int, int]) -> NDArray[np.float32]:
    expected = np.full(shape, frame.background_e, np.float32)
    if frame.crystal:
        crystal = crystal_named(frame.crystal)
        shorter_nm = float(np.hypot(*crystal.cell_yx_nm).min())
        columns = fill(
            crystal, shape, shorter_nm / frame.cell_px, float(rng.uniform(0, np.pi)), (float(rng.uniform(0, 9)), 3.0),
            margin_px=4.0 * frame.column_sigma_px,
        )  # fmt: skip
        tallest = max(crystal.cross_section_A2)
        area = 2.0 * np.pi * frame.column_sigma_px**2
        render(
            columns.yx_px, columns.cross_section_A2 / tallest * frame.height_e * area, frame.column_sigma_px, shape,
            out=expected,
        )  # fmt: skip
    camera = Camera(GREY_PER_ELECTRON, 100.0, 0.2, (frame.correlation, frame.correlation))
    return record(rng, expected, camera).astype(np.float32)


def _file() -> Path:
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_calibration", package.parent / "calibration"):
        if (folder / "int8" / "frames.toml").is_file():
            return folder / "int8" / "frames.toml"
    raise ModelError("calibration/int8/frames.toml is missing from this installation; install the program again")


@cache
def calibration_recipe() -> CalibrationRecipe:
    """Read the list that ships.

    Raises
    ------
    ModelError
        The file is missing or not valid.
    """
    path = _file()
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
        if read["schema"] != SCHEMA:
            raise ValueError(f"schema {read['schema']} instead of {SCHEMA}")
        rows, cols = read["shape"]
        frames = tuple(CalibrationFrame(*line) for line in read["frames"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: not a valid list of calibration frames ({error!r}); install the program again") from error
    return CalibrationRecipe(int(read["seed"]), (int(rows), int(cols)), frames)
