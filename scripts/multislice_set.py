"""Multislice images of single cells for scene S18: they test the linear image model that all other scenes are made with.

abTEM is under the GPL, so this runs by itself in an environment that has it and nothing of ours:

    python -m venv FOLDER; FOLDER/bin/pip install abtem; FOLDER/bin/python scripts/multislice_set.py multislice.npz

Static lattice, 300 kV, 21 mrad, in focus on the entrance surface, HAADF 45-180 mrad; each image is one rectangular cell of the
crystal as a fraction of the beam per probe position, to be repeated, blurred to the width of real columns, and exposed.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from math import ceil, sqrt
from time import perf_counter
from typing import Any

ENERGY_EV, SEMIANGLE_MRAD, DETECTOR_MRAD = 300e3, 21.0, (45.0, 180.0)
SAMPLING_A, STEP_A, LEAST_SIDE_A = 0.035, 0.27, 10.0


@dataclass(frozen=True)
class Cell:
    """Rectangular cell: sides along x and y in angstrom, atoms (symbol, x, y, z) in angstrom, and distance of layers."""

    name: str
    sides_angstrom: tuple[float, float]
    atoms: tuple[tuple[str, float, float, float], ...]
    layer_angstrom: float


def dichalcogenide(metal: str, chalcogen: str, a: float, half: float) -> Cell:
    """2H layer; layers stand straight on one another."""
    b = a * sqrt(3)
    atoms = []
    for dx, dy in ((0.0, 0.0), (a / 2, b / 2)):
        atoms.append((metal, dx, dy, 0.0))
        x, y = dx, dy + b / 3
        atoms += [(chalcogen, x % a, y % b, half), (chalcogen, x % a, y % b, -half)]
    return Cell(f"{metal}{chalcogen}2", (a, b), tuple(atoms), 6.2)


def strontium_titanate(a: float = 3.905) -> Cell:
    """[001], one cell per layer."""
    atoms = (("Sr", 0.0, 0.0, 0.0), ("Ti", a / 2, a / 2, a / 2), ("O", a / 2, a / 2, 0.0), ("O", a / 2, 0.0, a / 2),
             ("O", 0.0, a / 2, a / 2))  # fmt: skip
    return Cell("SrTiO3", (a, a), atoms, a)


def gold_110(a: float = 4.078) -> Cell:
    """[110], two half layers per period."""
    c = a / sqrt(2)
    return Cell("Au110", (c, a), (("Au", 0.0, 0.0, 0.0), ("Au", c / 2, a / 2, c / 2)), c)


PLAN: tuple[tuple[Cell, int], ...] = (
    *((dichalcogenide("Mo", "S", 3.160, 1.56), n) for n in (1, 2, 3, 4, 5)),
    *((dichalcogenide("W", "S", 3.153, 1.57), n) for n in (1, 2, 3, 4, 5)),
    *((dichalcogenide("W", "Se", 3.282, 1.68), n) for n in (1, 2, 3)),
    *((strontium_titanate(), n) for n in (1, 3, 5)),
    *((gold_110(), n) for n in (1, 2, 3, 4)),
)  # 20 images


def image(cell: Cell, layers: int) -> Any:
    """HAADF image of one cell, shape (rows, cols), fraction of the beam."""
    import abtem
    from ase import Atoms

    repeats = [ceil(LEAST_SIDE_A / side) for side in cell.sides_angstrom]
    thickness = layers * cell.layer_angstrom + 4.0
    symbols = [atom[0] for _ in range(layers) for atom in cell.atoms]
    places = [(x, y, 3.0 + z + n * cell.layer_angstrom) for n in range(layers) for _, x, y, z in cell.atoms]
    atoms = Atoms(symbols, positions=places, cell=[*cell.sides_angstrom, thickness], pbc=True).repeat((*repeats, 1))
    potential = abtem.Potential(atoms, sampling=SAMPLING_A, slice_thickness=2.0, parametrization="kirkland")
    probe = abtem.Probe(energy=ENERGY_EV, semiangle_cutoff=SEMIANGLE_MRAD)
    probe.grid.match(potential)
    points = [ceil(side / STEP_A) for side in cell.sides_angstrom]
    scan = abtem.GridScan(start=(0.0, 0.0), end=cell.sides_angstrom, gpts=points, endpoint=False)
    detector = abtem.AnnularDetector(inner=DETECTOR_MRAD[0], outer=DETECTOR_MRAD[1])
    measured = probe.scan(potential, scan=scan, detectors=detector, lazy=True).compute(progress_bar=False)
    return measured.array.T


def main(path: str, most: int) -> None:
    """Write the first `most` images of the plan."""
    import numpy as np

    arrays, about = {}, []
    for cell, layers in PLAN[:most]:
        start = perf_counter()
        name = f"{cell.name} x {layers}"
        arrays[name] = np.asarray(image(cell, layers), np.float32)
        about.append({"name": name, "sides_xy_angstrom": cell.sides_angstrom, "layers": layers, "atoms": cell.atoms})
        print(
            f"{name}: {arrays[name].shape}, {arrays[name].mean():.3g} of the beam, {perf_counter() - start:.0f} s", flush=True
        )
        np.savez_compressed(path, about=json.dumps(about), **arrays)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python multislice_set.py FILE.npz [how many]")
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else len(PLAN))
