"""What strain is measured against: first frames, the frame itself, a region of it, a known material, or a CIF file's cell.

Only the first needs memory. The reference's name stands beside every number, because a strain without it means nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atomid_live.errors import SettingsError
from atomid_live.strain.cells import MATERIALS, Cell
from atomid_live.strain.cif import projected_cell
from atomid_live.types import FloatArray

__all__ = [
    "MATERIALS",
    "Box",
    "Cell",
    "FirstFrames",
    "KnownCell",
    "OwnFrame",
    "Region",
    "known_basis",
    "parse_box",
    "parse_reference",
]

AREA_RANGE = 0.2
UNIMODULAR = [
    np.array([[p, q], [r, s]], float)
    for p in (-1, 0, 1)
    for q in (-1, 0, 1)
    for r in (-1, 0, 1)
    for s in (-1, 0, 1)
    if abs(p * s - q * r) == 1
]


@dataclass(frozen=True, slots=True)
class FirstFrames:
    """Mean position of each node over the first `count` usable frames of the segment."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class OwnFrame:
    """The straight lattice through this frame's columns: only variations within the frame show."""

    name: str = "frame"


@dataclass(frozen=True, slots=True)
class KnownCell:
    """A theoretical cell; `cells` lists it and the smaller ones that the columns of one brightness may show."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the picture in pixels, both ends included, with the text that asked for it."""

    text: str
    low_yx_px: tuple[float, float]
    high_yx_px: tuple[float, float]

    def holds(self, yx_px: FloatArray) -> np.ndarray:
        """Which positions (N, 2) lie inside, shape (N,), bool."""
        return np.asarray(((yx_px >= self.low_yx_px) & (yx_px <= self.high_yx_px)).all(axis=1))


@dataclass(frozen=True, slots=True)
class Region:
    """The straight lattice through the columns of a part of each frame, such as an unstrained substrate."""

    name: str
    box: Box


ReferenceSpec = FirstFrames | OwnFrame | KnownCell | Region


def parse_reference(text: str) -> ReferenceSpec:
    """Read ``first:N``, ``frame``, ``region:x0:x1,y0:y1``, ``material:NAME``, ``file.cif`` or ``file.cif@110``.

    Raises
    ------
    SettingsError
        Unknown form, unknown material, a region without an area, unreadable CIF.
    """
    text = text.strip()
    kind, _, value = text.partition(":")
    if text == "frame":
        return OwnFrame()
    if kind == "first":
        if not value.isdecimal() or not 1 <= int(value) <= 1000:
            raise SettingsError(f"reference {text!r}: give a number of frames from 1 to 1000, e.g. first:5")
        return FirstFrames(text, int(value))
    if kind == "material":
        known = {name.lower(): name for name in MATERIALS}
        if value.lower() not in known:
            raise SettingsError(f"reference {text!r}: unknown material; known are {', '.join(MATERIALS)}, or name a CIF file")
        name = known[value.lower()]
        return KnownCell(f"material:{name}", MATERIALS[name])
    file, _, axis = text.partition("@")
    if file.lower().endswith(".cif"):
        cell = projected_cell(Path(file), axis or "001")
        return KnownCell(Path(file).name + (f"@{axis}" if axis else ""), (cell, cell.centred))
    if kind == "region":
        return Region(text, parse_box(value, "reference 'region'"))
    raise SettingsError(
        f"reference {text!r} is not known; use first:N, frame, region:x0:x1,y0:y1, material:NAME or the path of a .cif file"
    )


_BOX = re.compile(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?),(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)")


def parse_box(text: str, what: str) -> Box:
    """Read ``x0:x1,y0:y1`` in pixels; `what` begins the message of the `SettingsError` when that fails."""
    match = _BOX.fullmatch(text.replace(" ", ""))
    x0, x1, y0, y1 = (float(v) for v in match.groups()) if match else (0.0, 0.0, 0.0, 0.0)
    if not (x0 < x1 and y0 < y1):
        raise SettingsError(f"{what} is {text!r}: give x0:x1,y0:y1 in pixels of the picture, e.g. 0:300,0:1024")
    return Box(text, (y0, x0), (y1, x1))


def known_basis(cells: tuple[Cell, ...], measured_nm: FloatArray) -> FloatArray | None:
    """Lay the best-fitting cell over a measured basis.

    Parameters
    ----------
    cells : tuple of Cell
        Candidates.
    measured_nm : ndarray, shape (2, 2)
        Measured basis, columns a and b, rows x and y, in nm.

    Returns
    -------
    ndarray, shape (2, 2), or None
        Undeformed basis in nm, turned and matched vector by vector to the measured one with the least strain; None when no
        candidate's area lies within 20 % of the measured cell's, so that another crystal or a wrong pixel size is likelier.
        Where several matches are alike, as in nearly hexagonal ReS2, a strain of a per cent can pick the wrong one.
    """
    best, least = None, np.inf
    area = abs(np.linalg.det(measured_nm))
    for cell in cells:
        matrix = cell.matrix
        if abs(area / abs(np.linalg.det(matrix)) - 1) > AREA_RANGE:
            continue
        for change in UNIMODULAR:
            undeformed = matrix @ change
            if np.linalg.det(undeformed) * np.linalg.det(measured_nm) < 0:
                undeformed = np.diag([1.0, -1.0]) @ undeformed
            left, stretch, right = np.linalg.svd(measured_nm @ np.linalg.inv(undeformed))
            misfit = float(((stretch - 1) ** 2).sum())
            if misfit < least:
                best, least = (left @ right) @ undeformed, misfit
    return best
