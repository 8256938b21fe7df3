"""Crystals in projection, with the electrons each column scatters into the HAADF detector.

In-plane cells are given as (row, column) vectors in nm with `a` along +x. Sites that lie on top of one another along the beam
are one entry whose cross-sections are summed. Bulk crystals are given at a stated thickness (periods along the beam).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import cos, exp, log, radians, sin, sqrt

import numpy as np

from atomid_live.errors import UsageError
from atomid_live.types import FloatArray

# Integrated HAADF cross-section per atom in square angstrom at 300 kV, 45-180 mrad, kinematic (Kirkland scattering factors).
_COMPUTED_A2 = {
    6: 1.5e-4, 8: 2.6e-4, 14: 7.9e-4, 16: 1.01e-3, 34: 4.11e-3, 42: 6.08e-3, 74: 1.701e-2, 75: 1.744e-2,
    78: 1.872e-2, 79: 1.914e-2,
}  # fmt: skip
ATOMIC_NUMBER = {
    "C": 6, "N": 7, "O": 8, "Si": 14, "S": 16, "Ti": 22, "V": 23, "Ga": 31, "Se": 34, "Sr": 38, "Mo": 42,
    "Te": 52, "W": 74, "Re": 75, "Pt": 78, "Au": 79, "Pb": 82, "Bi": 83,
}  # fmt: skip


def cross_section_A2(element: str) -> float:  # noqa: N802
    """Cross-section of one atom in square angstrom at 300 kV into 45-180 mrad.

    Elements without a computed value follow the power law through their two neighbours in the table (local exponent
    1.5 to 2), good to a few per cent.
    """
    try:
        z = ATOMIC_NUMBER[element]
    except KeyError:
        raise UsageError(f"no cross-section for element {element!r}; known: {', '.join(ATOMIC_NUMBER)}") from None
    if z in _COMPUTED_A2:
        return _COMPUTED_A2[z]
    known = sorted(_COMPUTED_A2)
    upper = next((k for k in known if k > z), known[-1])
    lower = known[known.index(upper) - 1] if upper > z else 74
    slope = log(_COMPUTED_A2[upper] / _COMPUTED_A2[lower]) / log(upper / lower)
    return exp(log(_COMPUTED_A2[lower]) + slope * log(z / lower))


@dataclass(frozen=True, slots=True)
class Crystal:
    """A two-dimensional periodic arrangement of columns.

    Attributes
    ----------
    a_yx_nm, b_yx_nm : (float, float)
        Cell vectors in nm, (row, column).
    basis : tuple of (float, float)
        Fractional coordinates (along a, along b) of each site.
    cross_section_A2 : tuple of float
        Summed cross-section of each site's column in square angstrom.
    sites : tuple of str
        Names of the sites, e.g. "Mo", "S2".
    """

    name: str
    a_yx_nm: tuple[float, float]
    b_yx_nm: tuple[float, float]
    basis: tuple[tuple[float, float], ...]
    cross_section_A2: tuple[float, ...]  # noqa: N815
    sites: tuple[str, ...]

    @property
    def cell_yx_nm(self) -> FloatArray:
        """Cell vectors as columns of a matrix, shape (2, 2): (row, column) = matrix @ (fraction of a, fraction of b)."""
        return np.array([self.a_yx_nm, self.b_yx_nm], dtype=np.float64).T

    @property
    def basis_yx_nm(self) -> FloatArray:
        """Positions of the sites in the cell in nm, shape (S, 2)."""
        return np.asarray(np.array(self.basis) @ self.cell_yx_nm.T)

    @property
    def area_nm2(self) -> float:
        """Area of the cell."""
        return float(abs(np.linalg.det(self.cell_yx_nm)))

    def thickened(self, factor: float) -> Crystal:
        """Return the crystal with `factor` times as many atoms along the beam."""
        return replace(self, cross_section_A2=tuple(factor * s for s in self.cross_section_A2))

    def brighter_than(self, fraction: float = 0.5) -> tuple[int, ...]:
        """Sites that scatter at least `fraction` of the strongest one, for "metal only" truth."""
        limit = fraction * max(self.cross_section_A2)
        return tuple(i for i, s in enumerate(self.cross_section_A2) if s >= limit)


Atoms = tuple[tuple[str, float, float], ...]


def _column_section(formula: str) -> float:
    """Sum over a column written as "Mo", "S*2" or "Ti+O"."""
    total = 0.0
    for part in formula.split("+"):
        element, _, count = part.partition("*")
        total += cross_section_A2(element) * float(count or 1)
    return total


def make(name: str, a_nm: float, b_nm: float, angle_deg: float, atoms: Atoms, periods: float = 1.0) -> Crystal:
    """Build a crystal from cell lengths in nm, the angle between them (a along +x, b towards +y) and its columns."""
    t = radians(angle_deg)
    return Crystal(
        name=name,
        a_yx_nm=(0.0, a_nm),
        b_yx_nm=(b_nm * sin(t), b_nm * cos(t)),
        basis=tuple((u, v) for _, u, v in atoms),
        cross_section_A2=tuple(periods * _column_section(formula) for formula, _, _ in atoms),
        sites=tuple(formula.replace("*", "") for formula, _, _ in atoms),
    )


def _dichalcogenide(name: str, metal: str, chalcogen: str, a_nm: float) -> Crystal:
    return make(name, a_nm, a_nm, 120.0, ((metal, 0.0, 0.0), (f"{chalcogen}*2", 1 / 3, 2 / 3)))


def _rhenium_disulphide() -> Crystal:
    """1T'' ReS2: experimental cell, rhenium diamonds (edges 279 and 282 pm, short diagonal 270 pm) chained along a by 290 pm.

    The four metal positions follow from those four lengths and the inversion centre; sulphur is left on its 1T places.
    """
    metal = ((0.1926, 0.2146), (0.2555, -0.1853), (-0.1926, -0.2146), (-0.2555, 0.1853))
    octahedral = ((0.25, 0.25), (0.25, -0.25), (-0.25, -0.25), (-0.25, 0.25))
    atoms: list[tuple[str, float, float]] = [("Re", u % 1, v % 1) for u, v in metal]
    for du, dv in ((1 / 6, 1 / 3), (1 / 3, 1 / 6)):
        atoms += [("S", (u + du) % 1, (v + dv) % 1) for u, v in octahedral]
    return make("res2", 0.642, 0.651, 118.8, tuple(atoms))


def _twofold(name: str, element: str, a_nm: float, periods: float) -> Crystal:
    return make(name, a_nm / sqrt(2), a_nm, 90.0, ((element, 0.0, 0.0), (element, 0.5, 0.5)), periods)


_LEAD_TITANATE: Atoms = (("Pb", 0.0, 0.0), ("Ti", 0.5, 0.538), ("O", 0.5, 0.112), ("O", 0.5, 0.617), ("O", 0.0, 0.617))
_DISTORTED_1T: Atoms = (
    ("Mo", 0.0, 0.050), ("Mo", 0.5, 0.450), ("S", 0.0, 0.320), ("S", 0.5, 0.860), ("S", 0.0, 0.640), ("S", 0.5, 0.180),
)  # fmt: skip
_OXYSELENIDE: Atoms = (
    ("Bi", 0.0, 0.3525), ("Bi", 0.0, 0.6475), ("Bi", 0.5, 0.8525), ("Bi", 0.5, 0.1475), ("Se", 0.0, 0.0), ("Se", 0.5, 0.5),
    ("O", 0.5, 0.25), ("O", 0.5, 0.75), ("O", 0.0, 0.25), ("O", 0.0, 0.75),
)  # fmt: skip


def _table() -> dict[str, Crystal]:
    every = (
        _dichalcogenide("mos2", "Mo", "S", 0.3160),
        _dichalcogenide("ws2", "W", "S", 0.3153),
        _dichalcogenide("wse2", "W", "Se", 0.3282),
        _dichalcogenide("mose2", "Mo", "Se", 0.3288),
        make("mos2_1t_prime", 0.318, 0.572, 90.0, _DISTORTED_1T),
        _rhenium_disulphide(),
        make("graphene", 0.2460, 0.2460, 120.0, (("C", 1 / 3, 2 / 3), ("C", 2 / 3, 1 / 3))),
        make("srtio3", 0.3905, 0.3905, 90.0, (("Sr", 0.0, 0.0), ("Ti+O", 0.5, 0.5), ("O", 0.5, 0.0), ("O", 0.0, 0.5)), 10),
        make("pbtio3", 0.3904, 0.4150, 90.0, _LEAD_TITANATE, 10),
        make("si_110", 0.38403, 0.5431, 90.0, (("Si", 0, 0), ("Si", 0, 0.25), ("Si", 0.5, 0.5), ("Si", 0.5, 0.75)), 20),
        make("gan", 0.2762, 0.5186, 90.0, (("Ga", 1 / 3, 0), ("Ga", 2 / 3, 0.5), ("N", 1 / 3, 0.377), ("N", 2 / 3, 0.877)), 12),
        _twofold("au_110", "Au", 0.4078, 5),
        _twofold("pt_110", "Pt", 0.3924, 5),
        make("au_100", 0.2039, 0.2039, 90.0, (("Au", 0.0, 0.0),), 4),
        make("pt_100", 0.1962, 0.1962, 90.0, (("Pt", 0.0, 0.0),), 4),
        make("bi2o2se", 0.388, 1.216, 90.0, _OXYSELENIDE, 5),
    )
    return {crystal.name: crystal for crystal in every}


CRYSTALS: Mapping[str, Crystal] = _table()


def crystal_named(name: str) -> Crystal:
    """Return the crystal called `name`; an unknown name raises `UsageError` that lists the known ones."""
    try:
        return CRYSTALS[name.lower()]
    except KeyError:
        raise UsageError(f"unknown crystal {name!r}; known: {', '.join(CRYSTALS)}") from None
