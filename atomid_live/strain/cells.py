"""Two-dimensional cells as seen along the beam, and those of known materials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from atomid_live.types import FloatArray


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
