"""Where the columns of a training crop are, and how bright: every crystal at every angle, none of them by name alone.

Lengths are multiples of the column sigma until `Scene` is built, because detectability depends on nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atomid_live.train import fields

Points = NDArray[np.float64]
SIGMA_ANGSTROM = 0.62
_POWER = 1.7


@dataclass(slots=True)
class Cell:
    """A two-dimensional unit cell: vectors (2, 2) in column sigmas as rows (y, x), basis (n, 2) fractional, weights (n,)."""

    vectors: Points
    basis: Points
    weight: Points


@dataclass(slots=True)
class Scene:
    """Columns of one crop before imaging.

    Attributes
    ----------
    yx : ndarray, shape (N, 2)
        Centres in pixels of the crop as acquired.
    weight : ndarray, shape (N,)
        Height relative to the brightest kind of column.
    backdrop : ndarray, shape (rows, cols), float32
        What adds to the columns, in units of the brightest kind's height, before the uniform background.
    sparse : bool
        No lattice: single atoms or clusters.
    speckle : float
        Spread of the backdrop at the scale of a column, in the same unit.
    """

    yx: Points
    weight: Points
    backdrop: NDArray[np.float32]
    sparse: bool = False
    speckle: float = 0.0


def _angstrom(a: float, b: float, angle_deg: float, *sites: tuple[float, float, float]) -> tuple[Points, Points, Points]:
    gamma = np.deg2rad(angle_deg)
    vectors = np.array([[0.0, a], [b * np.sin(gamma), b * np.cos(gamma)]]) / SIGMA_ANGSTROM
    table = np.array(sites)
    return vectors, table[:, :2], table[:, 2]


def _z(*atomic_numbers: float) -> float:
    return float(sum(z**_POWER for z in atomic_numbers))


# Projected cells of common materials: lattice constants in angstrom, fractional sites, sum of Z^1.7 along the column.
_CRYSTALS = (
    _angstrom(3.16, 3.16, 120, (0, 0, _z(42)), (1 / 3, 2 / 3, _z(16, 16))),
    _angstrom(3.28, 3.28, 120, (0, 0, _z(74)), (1 / 3, 2 / 3, _z(34, 34))),
    _angstrom(3.16, 3.16, 120, (0, 0, _z(42, 16, 16)), (1 / 3, 2 / 3, _z(42, 16, 16))),
    _angstrom(3.16, 3.16, 120, (0, 0, _z(42)), (1 / 3, 2 / 3, _z(42, 16, 16)), (2 / 3, 1 / 3, _z(16, 16))),
    _angstrom(3.73, 3.73, 120, (0, 0, _z(78)), (1 / 3, 2 / 3, _z(34)), (2 / 3, 1 / 3, _z(34))),
    _angstrom(2.46, 2.46, 120, (1 / 3, 2 / 3, _z(6)), (2 / 3, 1 / 3, _z(6))),
    _angstrom(2.50, 2.50, 120, (1 / 3, 2 / 3, _z(5)), (2 / 3, 1 / 3, _z(7))),
    _angstrom(3.905, 3.905, 90, (0, 0, _z(38)), (0.5, 0.5, _z(22, 8)), (0.5, 0, _z(8)), (0, 0.5, _z(8))),
    _angstrom(3.95, 4.05, 90, (0, 0, _z(82)), (0.53, 0.5, _z(22, 8)), (0.6, 0, _z(8)), (0.1, 0.5, _z(8))),
    _angstrom(4.08, 2.885, 90, (0, 0, 1), (0.5, 0.5, 1)),
    _angstrom(2.885, 2.885, 90, (0, 0, 1)),
    _angstrom(2.77, 2.77, 120, (0, 0, 1)),
    _angstrom(5.43, 3.84, 90, (0, 0, 1), (0.25, 0, 1), (0.5, 0.5, 1), (0.75, 0.5, 1)),
    _angstrom(5.65, 4.00, 90, (0, 0, _z(31)), (0.25, 0, _z(33)), (0.5, 0.5, _z(31)), (0.75, 0.5, _z(33))),
    _angstrom(5.19, 2.76, 90, (0, 0, _z(31)), (0.5, 0.5, _z(31)), (0.38, 0, _z(7)), (0.88, 0.5, _z(7))),
    _angstrom(3.88, 6.1, 90, (0, 0.2, _z(83)), (0.5, 0.8, _z(83)), (0.5, 0.3, _z(34)), (0, 0.75, _z(8))),
    _angstrom(2.95, 2.95, 120, (0, 0, 1)),
)


def _distorted_trigonal(rng: np.random.Generator) -> tuple[Points, Points, Points]:
    """A 2x2 cell of a 1T layer whose four metals have moved into chains, as in ReS2, with single chalcogens between."""
    quarter = np.array([[0, 0], [0.5, 0], [0, 0.5], [0.5, 0.5]])
    move = rng.uniform(-0.07, 0.07, (2, 2))
    metals = quarter + np.concatenate([move, -move])
    light = np.concatenate([quarter + np.array([1 / 6, 1 / 3]), quarter + np.array([1 / 3, 1 / 6])]) + rng.uniform(
        -0.03, 0.03, (8, 2)
    )
    heavy, pale = rng.choice([_z(75), _z(42), _z(74)]), rng.choice([_z(16), _z(34)])
    weights = np.concatenate([np.full(4, heavy), np.full(8, pale)])
    vectors, _, _ = _angstrom(rng.uniform(6.2, 6.6), rng.uniform(6.2, 6.7), rng.uniform(117, 121), (0, 0, 1))
    return vectors, np.concatenate([metals, light]), weights


def known_crystal(rng: np.random.Generator) -> Cell:
    """Pick a material, with a probe 0.75 to 1.3 times as wide as usual and lattice constants off by a few per cent."""
    pick = int(rng.integers(-3, len(_CRYSTALS)))
    vectors, basis, weight = _distorted_trigonal(rng) if pick < 0 else _CRYSTALS[pick]
    weight = weight ** rng.uniform(0.85, 1.2)
    return Cell(vectors / rng.uniform(0.75, 1.3) * rng.uniform(0.98, 1.02), basis, weight / weight.max())


def random_crystal(rng: np.random.Generator) -> Cell:
    """Draw a Bravais lattice with 1 to 6 atoms at least 2.6 sigma apart and 2.8 to 11 sigma from each other on average."""
    count = int(rng.choice(6, p=[0.36, 0.25, 0.15, 0.1, 0.08, 0.06])) + 1
    apart = np.exp(rng.uniform(np.log(3.0), np.log(11.0)))
    angle = rng.choice([60.0, 90.0, rng.uniform(55.0, 125.0)], p=[0.3, 0.25, 0.45])
    ratio = 1.0 if rng.random() < 0.4 else rng.uniform(1.0, 1.9)
    b = np.sqrt(count * apart**2 * 0.9 / ratio / np.sin(np.deg2rad(angle)))
    vectors = np.array([[0.0, b * ratio], [b * np.sin(np.deg2rad(angle)), b * np.cos(np.deg2rad(angle))]])
    least = 1.8 if rng.random() < 0.05 else 2.6
    wraps = np.array([[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1)]) @ vectors
    basis = np.zeros((1, 2))
    for candidate in rng.random((60, 2)):
        if len(basis) == count:
            break
        gaps = ((candidate - basis) @ vectors)[:, None, :] + wraps
        if np.hypot(gaps[..., 0], gaps[..., 1]).min() >= least:
            basis = np.vstack([basis, candidate])
    if rng.random() < 0.4:
        weight = np.ones(len(basis))
    else:
        weight = np.exp(rng.uniform(np.log(0.08), 0.0, len(basis)))
    return Cell(vectors, basis + rng.random(2), weight / weight.max())


def tile(cell: Cell, side: float, angle: float, rng: np.random.Generator) -> tuple[Points, Points]:
    """Fill a square of `side` sigmas (plus 4 around it) with a rotated cell; return yx (N, 2) in sigmas and weights (N,)."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shear = np.eye(2) + np.clip(rng.normal(0, 0.02, (2, 2)), -0.05, 0.05)
    vectors = cell.vectors @ turn @ shear
    low, high = -4.0, side + 4.0
    corners = np.array([[low, low], [low, high], [high, low], [high, high]]) @ np.linalg.inv(vectors)
    first, last = np.floor(corners.min(0)).astype(int) - 1, np.ceil(corners.max(0)).astype(int) + 1
    i, j = np.meshgrid(np.arange(first[0], last[0] + 1), np.arange(first[1], last[1] + 1), indexing="ij")
    nodes = np.stack([i.ravel(), j.ravel()], 1)
    yx = ((nodes[:, None, :] + cell.basis[None]) @ vectors).reshape(-1, 2) + rng.uniform(0, 1, 2) @ vectors
    weight = np.tile(cell.weight, len(nodes))
    inside = ((yx > low) & (yx < high)).all(1)
    return yx[inside], weight[inside]


def _bend(yx: Points, side: float, rng: np.random.Generator) -> Points:
    """Add a smooth displacement of up to about 3 % strain."""
    strain = rng.uniform(0, 0.03)
    waves = 2 * np.pi * rng.uniform(-1.5, 1.5, (2, 2)) / side
    phase = rng.uniform(0, 2 * np.pi, 2)
    steep = np.maximum(np.abs(waves).max(1), 1e-9)
    return np.asarray(yx + strain / steep * np.sin(yx @ waves.T + phase))


def _on(mask: NDArray[np.float32], yx_px: Points) -> NDArray[np.bool_]:
    index = np.clip(np.rint(yx_px).astype(int), 0, np.array(mask.shape) - 1)
    return np.asarray(mask[index[:, 0], index[:, 1]] > 0.5)


def _thin(yx: Points, weight: Points, rng: np.random.Generator) -> tuple[Points, Points]:
    """Make vacancies (to 10 %), substitutions and per-column spread; return what stays."""
    rate = rng.choice([0.0, rng.uniform(0, 0.1)], p=[0.5, 0.5])
    gone = rng.random(len(yx)) < rate
    weight = weight * np.exp(rng.normal(0, rng.choice([0.0, 0.08, 0.2]), len(yx)))
    if rng.random() < 0.2:
        swap = rng.random(len(yx)) < rng.uniform(0, 0.08)
        weight = np.where(swap, weight * np.exp(rng.uniform(-1.2, 1.0)), weight)
    return yx[~gone], weight[~gone]


def crystal_scene(rng: np.random.Generator, shape: tuple[int, int], sigma_px: float) -> Scene:
    """One crystal, or two with a boundary, a second layer, an edge, a hole or a particle's outline."""
    side = max(shape) / sigma_px
    draw = known_crystal if rng.random() < 0.35 else random_crystal
    cell, angle = draw(rng), rng.uniform(0, 2 * np.pi)
    yx, weight = tile(cell, side, angle, rng)
    yx = _bend(yx, side, rng) if rng.random() < 0.6 else yx
    yx, weight = _thin(yx, weight, rng)
    backdrop = np.zeros(shape, np.float32)
    kind = rng.random()
    if kind < 0.12:
        mask = fields.region(rng, shape)
        other = cell if rng.random() < 0.7 else draw(rng)
        yx2, weight2 = tile(other, side, angle + rng.choice([rng.uniform(0, np.pi), np.pi / 3, 0.0]), rng)
        keep, keep2 = _on(mask, yx * sigma_px), ~_on(mask, yx2 * sigma_px)
        yx, weight = (
            np.concatenate([yx[keep], yx2[keep2]]),
            np.concatenate([weight[keep], weight2[keep2] * rng.uniform(0.6, 1.2)]),
        )
        backdrop += mask * rng.choice([0.0, rng.uniform(0, 2.0)])
    elif kind < 0.34:
        mask = fields.region(rng, shape)
        keep = _on(mask, yx * sigma_px)
        yx, weight = yx[keep], weight[keep]
        backdrop += (mask if rng.random() < 0.7 else 1.0 - mask) * rng.choice([0.0, rng.uniform(0, 1.5)])
    elif kind < 0.44:
        twist = rng.choice([0.0, np.pi, np.deg2rad(rng.uniform(2, 30))])
        yx2, weight2 = tile(cell, side, angle + twist, rng)
        yx, weight = np.concatenate([yx, yx2]), np.concatenate([weight, weight2])
    return Scene(yx * sigma_px, weight, backdrop)


def _honeycomb(rng: np.random.Generator) -> Cell:
    """Two kinds of column 2.4 to 4 sigma apart, each among three of the other, as metal and chalcogen of a 2H layer."""
    side = rng.uniform(2.4, 4.0) * np.sqrt(3.0)
    vectors = np.array([[0.0, side], [side * np.sin(2 * np.pi / 3), side * np.cos(2 * np.pi / 3)]])
    weight = np.array([1.0, np.exp(rng.uniform(np.log(0.12), 0.0))])
    return Cell(vectors, np.array([[0.0, 0.0], [1 / 3, 2 / 3]]), weight)


def _crowded(rng: np.random.Generator) -> Cell:
    """Two to five unlike columns in an oblique cell, the closest 2.4 sigma apart, 2.7 to 4.2 on average."""
    count = int(rng.integers(2, 6))
    apart, angle, ratio = rng.uniform(2.7, 4.2), np.deg2rad(rng.uniform(60.0, 120.0)), rng.uniform(1.0, 1.6)
    b = np.sqrt(count * apart**2 / ratio / np.sin(angle))
    vectors = np.array([[0.0, b * ratio], [b * np.sin(angle), b * np.cos(angle)]])
    wraps = np.array([[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1)]) @ vectors
    basis = np.zeros((1, 2))
    for candidate in rng.random((60, 2)):
        gaps = ((candidate - basis) @ vectors)[:, None, :] + wraps
        if len(basis) < count and np.hypot(gaps[..., 0], gaps[..., 1]).min() >= 2.4:
            basis = np.vstack([basis, candidate])
    weight = np.exp(rng.uniform(np.log(0.12), 0.0, len(basis)))
    return Cell(vectors, basis + rng.random(2), weight / weight.max())


def dense_scene(rng: np.random.Generator, shape: tuple[int, int], sigma_px: float) -> Scene:
    """Unlike columns close together: one layer, or two of the same crystal twisted, turned over or shifted."""
    side = max(shape) / sigma_px
    cell = (_honeycomb, _crowded, known_crystal)[int(rng.choice(3, p=[0.45, 0.3, 0.25]))](rng)
    angle = rng.uniform(0, 2 * np.pi)
    yx, weight = tile(cell, side, angle, rng)
    if rng.random() < 0.55:
        turn = rng.choice([0.0, np.pi / 3, np.deg2rad(rng.uniform(1, 59))], p=[0.2, 0.2, 0.6])
        above, above_weight = tile(cell, side, angle + turn, rng)
        yx, weight = np.concatenate([yx, above]), np.concatenate([weight, above_weight])
    yx = _bend(yx, side, rng) if rng.random() < 0.4 else yx
    yx, weight = _thin(yx, weight, rng)
    backdrop = np.zeros(shape, np.float32)
    if rng.random() < 0.25:
        mask = fields.region(rng, shape)
        keep = _on(mask, yx * sigma_px)
        yx, weight = yx[keep], weight[keep]
        backdrop += mask * rng.choice([0.0, rng.uniform(0, 1.5)])
    return Scene(yx * sigma_px, weight, backdrop)


def sparse_scene(rng: np.random.Generator, shape: tuple[int, int], sigma_px: float) -> Scene:
    """Single atoms and clusters on an amorphous, uneven support."""
    sides = np.array(shape) / sigma_px
    count = int(np.exp(rng.uniform(np.log(3), np.log(160))))
    yx = rng.random((count, 2)) * sides
    for _ in range(int(rng.integers(0, 6))):
        size = int(rng.integers(2, 12))
        yx = np.concatenate([yx, rng.random(2) * sides + rng.normal(0, 1.2 * np.sqrt(size), (size, 2))])
    weight = np.exp(rng.normal(0, rng.uniform(0.03, 0.35), len(yx)))
    if rng.random() < 0.3:
        weight *= rng.choice([1.0, rng.uniform(0.2, 0.7)], len(yx))
    strength = np.exp(rng.uniform(np.log(0.02), np.log(0.3)))
    backdrop = strength * fields.speckle(rng, shape, sigma_px)
    if rng.random() < 0.7:
        backdrop += np.exp(rng.uniform(np.log(0.1), np.log(6.0))) * fields.multiscale(rng, shape, sigma_px * rng.uniform(5, 12))
    return Scene(yx * sigma_px, weight, backdrop - backdrop.min(), sparse=True, speckle=float(strength))


def empty_scene(rng: np.random.Generator, shape: tuple[int, int], sigma_px: float) -> Scene:
    """No columns at all: vacuum, noise of every colour, amorphous film, contamination, edges, one-dimensional fringes."""
    kind = rng.choice(7, p=[0.16, 0.2, 0.2, 0.14, 0.12, 0.1, 0.08])
    backdrop = np.zeros(shape, np.float32)
    if kind == 1:
        backdrop = fields.speckle(rng, shape, sigma_px * rng.uniform(0.6, 1.8))
    elif kind == 2:
        backdrop = fields.coloured(rng, shape, np.exp(rng.uniform(np.log(0.3), np.log(6.0 * sigma_px))))
    elif kind == 3:
        backdrop = fields.multiscale(rng, shape, sigma_px * rng.uniform(0.7, 6.0))
    elif kind == 4:
        backdrop = 3.0 * fields.contamination(rng, shape, sigma_px) + rng.uniform(0, 0.5) * fields.speckle(rng, shape, sigma_px)
    elif kind == 5:
        texture = fields.speckle(rng, shape, sigma_px) * rng.uniform(0, 0.5)
        backdrop = fields.region(rng, shape) * (rng.uniform(0.5, 3.0) + texture)
    elif kind == 6:
        y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
        angle, period = rng.uniform(0, np.pi), sigma_px * rng.uniform(3, 14)
        backdrop = np.cos(2 * np.pi * (y * np.sin(angle) + x * np.cos(angle)) / period).astype(np.float32)
    return Scene(np.empty((0, 2)), np.empty(0), np.asarray(backdrop - backdrop.min(), np.float32), sparse=True)


def draw_kind(rng: np.random.Generator, empties: float, sparse: float = 0.2, dense: float = 0.0) -> str:
    """Draw "empty", "sparse", "dense" or, for what is left, "crystal"."""
    kind = rng.random()
    if kind < empties:
        return "empty"
    return "sparse" if kind < empties + sparse else "dense" if kind > 1.0 - dense else "crystal"


def draw_scene(rng: np.random.Generator, kind: str, shape: tuple[int, int], sigma_px: float) -> Scene:
    """Draw a scene of a kind; 45 % of the crystals are contaminated and 30 % stand on an amorphous film."""
    if kind == "empty":
        return empty_scene(rng, shape, sigma_px)
    if kind == "sparse":
        return sparse_scene(rng, shape, sigma_px)
    scene = (dense_scene if kind == "dense" else crystal_scene)(rng, shape, sigma_px)
    if rng.random() < 0.45:
        scene.backdrop += rng.uniform(0.1, 3.0) * fields.contamination(rng, shape, sigma_px)
    if rng.random() < 0.3:
        scene.speckle = float(np.exp(rng.uniform(np.log(0.01), np.log(0.2))))
        film = scene.speckle * fields.speckle(rng, shape, sigma_px)
        scene.backdrop += film - film.min()
    return scene
