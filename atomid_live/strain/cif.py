"""The lattice of a crystal file (CIF) as it is seen along a zone axis: own reader of the few lines that say so.

Lattice points are projected along the beam; the two shortest independent projections are the primitive cell of the picture.
Centring letters of the space group add their points. Atoms are not read: the picture tells how many sites a cell has.
"""

from __future__ import annotations

import itertools
import re
from math import gcd
from pathlib import Path

import numpy as np

from atomid_live.errors import SettingsError
from atomid_live.strain.cells import Cell
from atomid_live.types import FloatArray

LENGTH_RANGE_A = (0.5, 2000.0)
ANGLE_RANGE_DEG = (20.0, 160.0)
LARGEST_FILE = 20_000_000
REACH = 4
_CELL_ITEMS = (
    "_cell_length_a", "_cell_length_b", "_cell_length_c", "_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma",
)  # fmt: skip
_CENTRING = {
    "P": (), "A": ((0, 0.5, 0.5),), "B": ((0.5, 0, 0.5),), "C": ((0.5, 0.5, 0),), "I": ((0.5, 0.5, 0.5),),
    "F": ((0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)), "R": ((2 / 3, 1 / 3, 1 / 3), (1 / 3, 2 / 3, 2 / 3)),
}  # fmt: skip
_SPACE_GROUP = r"^\s*_(?:symmetry_space_group_name_|space_group_name_)H-M(?:_alt)?\s+['\"]?\s*([A-Za-z])"


def _refuse(path: Path, words: str) -> SettingsError:
    return SettingsError(f"reference {path}: {words}")


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise _refuse(path, f"larger than {LARGEST_FILE // 1_000_000} MB; a CIF of one crystal is wanted")
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise _refuse(path, f"{error.strerror or error}; check the path") from error


def _items(path: Path, text: str) -> FloatArray:
    """Lengths in angstrom and angles in degrees, (6,); a standard error in brackets is left off."""
    blocks = len(re.findall(r"^\s*data_\S", text, re.MULTILINE | re.IGNORECASE))
    values = []
    for item in _CELL_ITEMS:
        found = set(re.findall(rf"^\s*{item}\s+['\"]?([^\s('\"]+)", text, re.MULTILINE | re.IGNORECASE))
        low, high = LENGTH_RANGE_A if "length" in item else ANGLE_RANGE_DEG
        if not found:
            raise _refuse(path, f"{item} is missing; a, b, c and three angles of the cell are needed")
        if len(found) > 1:
            raise _refuse(path, f"{item} has {len(found)} different values ({blocks} data blocks); keep one crystal")
        word = found.pop()
        try:
            value = float(word)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise _refuse(path, f"{item} is {word!r}; a number from {low:g} to {high:g} is expected")
        values.append(value)
    return np.array(values)


def _vectors(path: Path, items: FloatArray) -> FloatArray:
    """Cell vectors in nm as rows, (3, 3)."""
    a, b, c = items[:3] / 10
    cos_a, cos_b, cos_g = np.cos(np.radians(items[3:]))
    sin_g = np.sin(np.radians(items[5]))
    y = (cos_a - cos_b * cos_g) / sin_g
    z2 = 1 - cos_b**2 - y**2
    if z2 < 1e-6:
        raise _refuse(path, f"angles {', '.join(f'{v:g}' for v in items[3:])} deg do not make a cell")
    return np.array([[a, 0, 0], [b * cos_g, b * sin_g, 0], [c * cos_b, c * y, c * np.sqrt(z2)]])


def _axis(path: Path, text: str) -> tuple[int, ...]:
    digits = re.fullmatch(r"\[?\s*(-?\d)[\s,]*(-?\d)[\s,]*(-?\d)\s*\]?", text)
    axis = tuple(int(v) for v in digits.groups()) if digits else (0, 0, 0)
    if not any(axis):
        raise _refuse(path, f"zone axis {text!r}: give three whole numbers, e.g. file.cif@110 or file.cif@1-10")
    return tuple(v // gcd(*axis) for v in axis)


def _shortest(points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The shortest vector of a planar lattice's points, and the shortest not in line with it."""
    length = np.hypot(*points.T)
    points, length = points[length > 1e-6], length[length > 1e-6]
    first = points[length.argmin()]
    sine = np.abs(first[0] * points[:, 1] - first[1] * points[:, 0]) / (length * length.min())
    aside = sine > 1e-3
    second = points[aside][length[aside].argmin()]
    return first, -second if first @ second > 1e-9 else second


def projected_cell(path: Path, axis: str = "001") -> Cell:
    """Read the primitive cell of a crystal seen along a zone axis.

    Parameters
    ----------
    path : Path
        CIF file.
    axis : str
        Direction [uvw] of the beam in the cell of the file, such as "001", "110" or "1-10".

    Returns
    -------
    Cell
        Shortest two vectors of the projected lattice in nm, at 90 to 120 degrees.

    Raises
    ------
    SettingsError
        No such file, cell items missing, twice there or out of range, angles that make no cell, no zone axis.
    """
    text = _text(path)
    vectors = _vectors(path, _items(path, text))
    beam = np.array(_axis(path, axis)) @ vectors
    beam /= np.linalg.norm(beam)
    across = np.linalg.svd(beam[None, :])[2][1:]
    named = re.search(_SPACE_GROUP, text, re.MULTILINE)
    letter = named.group(1).upper() if named else "P"
    hexagonal = letter == "R" and abs(vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) ** 2 + 0.5) > 0.01
    extra = () if hexagonal else _CENTRING.get(letter, ())
    whole = np.array(list(itertools.product(range(-REACH, REACH + 1), repeat=3)), float)
    every = np.concatenate([whole, *(whole + shift for shift in extra)])
    a, b = _shortest(every @ vectors @ across.T)
    lengths = float(np.hypot(*a)), float(np.hypot(*b))
    return Cell(*lengths, float(np.degrees(np.arccos(np.clip(a @ b / (lengths[0] * lengths[1]), -1, 1)))))
