"""Points of crystals with exact truth, for tests of lattice and strain."""

from __future__ import annotations

import numpy as np

from atomid_live.types import Detections

NM = 10.0
CRYSTALS = {
    "square": ((0.39, 0.39, 90.0), [(0, 0)]),
    "hexagonal": ((0.316, 0.316, 120.0), [(0, 0)]),
    "honeycomb": ((0.316, 0.316, 120.0), [(0, 0), (1 / 3, 2 / 3)]),
    "oblique": ((0.31, 0.42, 103.0), [(0, 0)]),
    "rectangular": ((0.30, 0.55, 90.0), [(0, 0)]),
    "dumbbell": ((0.384, 0.543, 90.0), [(0, 0), (0, 0.25), (0.5, 0.5), (0.5, 0.75)]),
    "res2": ((0.642, 0.651, 118.8), [(0, 0), (0.57, 0.01), (0.55, 0.62), (0.13, 0.63)]),
}


def cell_matrix(name: str, pixel_nm: float, turn_deg: float = 0.0) -> np.ndarray:
    """Columns a and b in pixels, rows y and x; positive turn is clockwise on the screen."""
    a, b, gamma = CRYSTALS[name][0]
    g, t = np.radians(gamma), np.radians(turn_deg)
    xy = np.array([[a, b * np.cos(g)], [0, b * np.sin(g)]]) / pixel_nm
    xy = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) @ xy
    return xy[::-1]


def crystal(name: str, shape: tuple[int, int], pixel_nm: float, turn_deg: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Positions (N, 2) in pixels of a crystal larger than the frame by a quarter, and site numbers; not yet cut."""
    matrix = cell_matrix(name, pixel_nm, turn_deg)
    basis = np.array(CRYSTALS[name][1], float)
    reach = int(1.3 * np.hypot(*shape) / np.sqrt(abs(np.linalg.det(matrix)))) + 4
    ij = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij"), -1).reshape(-1, 2)
    centre = (np.array(shape) - 1) / 2
    points = np.concatenate([(ij + off) @ matrix.T for off in basis]) + centre
    site = np.repeat(np.arange(len(basis)), len(ij))
    near = (np.abs(points - centre) < 0.75 * np.array(shape)).all(axis=1)
    return points[near], site[near]


def deform(points: np.ndarray, shape: tuple[int, int], xx=0.0, yy=0.0, xy=0.0, turn_mrad=0.0) -> np.ndarray:
    """Apply small strain (exact symmetric part) and a clockwise turn about the frame's centre."""
    t = turn_mrad * 1e-3
    turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    f_xy = turn @ np.array([[1 + xx, xy], [xy, 1 + yy]])
    centre = (np.array(shape) - 1) / 2
    return ((points - centre)[:, ::-1] @ f_xy.T)[:, ::-1] + centre


def seen(
    points: np.ndarray, shape: tuple[int, int], sigma_px=0.0, rng=None, missing=0.0, false=0
) -> tuple[Detections, np.ndarray]:
    """Detections of points: noise, vacancies, false columns, cut to the frame and ordered; and the kept point per column."""
    rng = rng or np.random.default_rng(0)
    keep = np.flatnonzero(rng.random(len(points)) >= missing)
    noisy = points[keep] + rng.normal(0, sigma_px, (len(keep), 2)) if sigma_px else points[keep]
    inside = ((noisy >= 3) & (noisy <= np.array(shape) - 4)).all(axis=1)
    yx, who = noisy[inside], keep[inside]
    if false:
        yx = np.concatenate([yx, rng.uniform(3, np.array(shape) - 4, (false, 2))])
        who = np.concatenate([who, np.full(false, -1)])
    order = np.lexsort((yx[:, 1], yx[:, 0]))
    return as_detections(yx[order], sigma_px or 0.02), who[order]


def as_detections(yx: np.ndarray, sigma_px: float = 0.1) -> Detections:
    """Wrap positions, with the mean nearest-neighbour distance as a detector gives it."""
    from scipy.spatial import cKDTree

    n = len(yx)
    spacing = float(cKDTree(yx).query(yx, 2)[0][:, 1].mean()) if n > 1 else float("nan")
    return Detections(yx, np.ones(n), np.full((n, 2), sigma_px), np.ones(n), np.zeros(n, np.int64), spacing)
