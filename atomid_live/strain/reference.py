"""What strain is measured against: the first frames, the frame itself, a known material, or the cell of a CIF file.

Only the first needs memory. The reference's name stands beside every number, because a strain without it means nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atomid_live.errors import SettingsError
from atomid_live.types import FloatArray

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
class Cell:
    """A two-dimensional cell as seen along the beam: lengths in nm, angle in degrees."""

    a_nm: float
    b_nm: float
    gamma_deg: float

    @property
    def matrix(self) -> FloatArray:
        """Columns a and b in nm, rows x and y."""
        g = np.radians(self.gamma_deg)
        return np.array([[self.a_nm, self.b_nm * np.cos(g)], [0.0, self.b_nm * np.sin(g)]])

    @property
    def centred(self) -> Cell:
        """The primitive cell when the centre of this one is equivalent to its corners."""
        a, b = self.matrix.T
        p, q = (a + b) / 2, (a - b) / 2
        return _cell_of(p, q)


def _cell_of(p: FloatArray, q: FloatArray) -> Cell:
    a, b = float(np.hypot(*p)), float(np.hypot(*q))
    return Cell(a, b, float(np.degrees(np.arccos(p @ q / (a * b)))))


def _square(a_nm: float) -> Cell:
    return Cell(a_nm, a_nm, 90.0)


def _hexagonal(a_nm: float) -> Cell:
    return Cell(a_nm, a_nm, 120.0)


def _fcc_110(a_nm: float) -> Cell:
    """Projection of a face-centred lattice along [110]: a rectangle a by a/sqrt(2) with a centre."""
    return Cell(a_nm / np.sqrt(2), a_nm, 90.0).centred


# Room-temperature bulk lattice constants in nm, rounded; along the beam [001] for layers and oxides, [110] for Si and Au.
MATERIALS: Mapping[str, tuple[Cell, ...]] = {
    "MoS2": (_hexagonal(0.3161),),
    "WS2": (_hexagonal(0.3153),),
    "MoSe2": (_hexagonal(0.3289),),
    "WSe2": (_hexagonal(0.3282),),
    "ReS2": (Cell(0.642, 0.651, 118.8),),
    "graphene": (_hexagonal(0.2461),),
    "SrTiO3": (_square(0.3905), _square(0.3905).centred),
    "Si": (_fcc_110(0.5431),),
    "Si-001": (_square(0.5431 / 2).centred,),
    "Au": (_fcc_110(0.4078),),
    "Au-001": (_square(0.4078 / 2),),
}


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


ReferenceSpec = FirstFrames | OwnFrame | KnownCell


def parse_reference(text: str) -> ReferenceSpec:
    """Read ``first:N``, ``frame``, ``material:NAME`` or the path of a CIF file.

    Raises
    ------
    SettingsError
        Unknown form, unknown material, unreadable CIF, or ``region``, which cannot be chosen yet.
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
    if text.lower().endswith(".cif"):
        cell = read_cif_cell(Path(text))
        return KnownCell(Path(text).name, (cell, cell.centred))
    if kind == "region":
        raise SettingsError("reference 'region' cannot be chosen yet; use first:N, frame, material:NAME or a CIF file")
    raise SettingsError(f"reference {text!r} is not known; use first:N, frame, material:NAME or the path of a .cif file")


_CIF_ITEMS = {"_cell_length_a": (0.05, 200.0), "_cell_length_b": (0.05, 200.0), "_cell_angle_gamma": (20.0, 160.0)}


def read_cif_cell(path: Path) -> Cell:
    """Read a, b and gamma of a CIF file, the cell seen along c; errors in brackets are ignored, angstrom become nm."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SettingsError(f"reference {path}: {error.strerror or error}; check the path") from error
    values = []
    for item, (low, high) in _CIF_ITEMS.items():
        match = re.search(rf"^\s*{item}\s+['\"]?([0-9.]+)", text, re.MULTILINE | re.IGNORECASE)
        try:
            value = float(match.group(1)) if match else float("nan")
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise SettingsError(
                f"reference {path}: {item} is missing or not between {low:g} and {high:g}; the CIF needs a, b and gamma of the "
                "cell seen along c"
            )
        values.append(value)
    return Cell(values[0] / 10, values[1] / 10, values[2])


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
