"""Columns of a crystal laid over a frame, and the defects and displacements put into them.

Positions are (row, column) in pixels, origin at the centre of the top-left pixel; rotation is positive clockwise on the screen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import cos, sin

import numpy as np
from numpy.typing import NDArray

from atomid_live.simulate.crystals import CRYSTALS, Crystal, crystal_named
from atomid_live.types import FloatArray, IntArray

__all__ = ["CRYSTALS", "Columns", "Crystal", "crystal_named", "displace", "fill", "lattice_matrix", "rotation"]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Atom columns in a frame.

    Attributes
    ----------
    yx_px : ndarray, shape (N, 2), float64
        Positions, some of them outside the frame (margin).
    cross_section_A2 : ndarray, shape (N,), float64
        Cross-section of each column in square angstrom.
    site : ndarray, shape (N,), int64
        Index of the site in the crystal's basis, -1 for an adatom.
    cell : ndarray, shape (N, 2), int64
        Cell numbers along a and b.
    """

    yx_px: FloatArray = field(repr=False)
    cross_section_A2: FloatArray = field(repr=False)  # noqa: N815
    site: IntArray = field(repr=False)
    cell: IntArray = field(repr=False)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self.yx_px)

    def take(self, which: NDArray[np.bool_] | IntArray) -> Columns:
        """Return the columns chosen by a mask or an index array."""
        return Columns(self.yx_px[which], self.cross_section_A2[which], self.site[which], self.cell[which])

    def inside(self, shape: tuple[int, int], border_px: float = 0.0) -> NDArray[np.bool_]:
        """Tell which columns have their centre on the frame and at least `border_px` from its outermost pixel centres."""
        y, x = self.yx_px.T
        return np.asarray(
            (y >= border_px) & (x >= border_px) & (y <= shape[0] - 1 - border_px) & (x <= shape[1] - 1 - border_px)
        )

    @classmethod
    def joined(cls, *parts: Columns) -> Columns:
        """Return all columns of several sets, e.g. two grains or two layers."""
        return cls(
            np.concatenate([p.yx_px for p in parts]),
            np.concatenate([p.cross_section_A2 for p in parts]),
            np.concatenate([p.site for p in parts]),
            np.concatenate([p.cell for p in parts]),
        )


def rotation(angle_rad: float) -> FloatArray:
    """Return the matrix that turns (row, column) vectors clockwise on the screen, shape (2, 2)."""
    c, s = cos(angle_rad), sin(angle_rad)
    return np.array([[c, s], [-s, c]])


def lattice_matrix(
    crystal: Crystal, pixel_size_yx_nm: tuple[float, float], angle_rad: float = 0.0, deformation: FloatArray | None = None
) -> FloatArray:
    """Matrix from cell fractions (along a, along b) to (row, column) in pixels, shape (2, 2).

    `deformation` is a gradient F acting on (row, column) vectors in nm after the rotation.
    """
    strained = rotation(angle_rad) @ crystal.cell_yx_nm
    if deformation is not None:
        strained = np.asarray(deformation, dtype=np.float64) @ strained
    return np.asarray(strained / np.asarray(pixel_size_yx_nm)[:, None])


def cells_covering(matrix: FloatArray, origin_yx_px: FloatArray, shape: tuple[int, int], margin_px: float) -> IntArray:
    """Numbers of all cells that may put a column on the frame or its margin, shape (M, 2)."""
    reach_y, reach_x = shape[0] - 1 + margin_px, shape[1] - 1 + margin_px
    corners = np.array([(y, x) for y in (-margin_px, reach_y) for x in (-margin_px, reach_x)])
    fraction = (corners - origin_yx_px) @ np.linalg.inv(matrix).T
    low, high = np.floor(fraction.min(0)).astype(np.int64) - 1, np.ceil(fraction.max(0)).astype(np.int64) + 1
    i, j = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1), indexing="ij")
    cells = np.stack([i.ravel(), j.ravel()], axis=1)
    cell_px = float(np.abs(matrix).sum())
    y, x = (origin_yx_px + cells @ matrix.T).T
    near = (y > -margin_px - cell_px) & (y < reach_y + cell_px) & (x > -margin_px - cell_px) & (x < reach_x + cell_px)
    return np.asarray(cells[near])


def fill(
    crystal: Crystal,
    shape: tuple[int, int],
    pixel_size_nm: float | tuple[float, float],
    angle_rad: float = 0.0,
    offset_yx_px: tuple[float, float] = (0.0, 0.0),
    deformation: FloatArray | None = None,
    margin_px: float = 0.0,
) -> Columns:
    """Lay a crystal over a frame of `shape` (rows, cols), with every column up to `margin_px` outside it.

    The corner of cell (0, 0) lies at the centre of the frame plus `offset_yx_px`. `pixel_size_nm` may be a (y, x) pair.
    """
    pair = (pixel_size_nm, pixel_size_nm) if isinstance(pixel_size_nm, (int, float)) else pixel_size_nm
    matrix = lattice_matrix(crystal, pair, angle_rad, deformation)
    origin = (np.array(shape) - 1) / 2 + np.asarray(offset_yx_px)
    cells = cells_covering(matrix, origin, shape, margin_px)
    columns = populate(crystal, matrix, origin, cells)
    return columns.take(columns.inside(shape, -margin_px - 0.5))


def populate(crystal: Crystal, matrix: FloatArray, origin_yx_px: FloatArray, cells: IntArray) -> Columns:
    """All columns of the given cells, cell by cell, site by site."""
    sites = len(crystal.basis)
    basis = np.tile(np.array(crystal.basis, dtype=np.float64), (len(cells), 1))
    cell = np.repeat(cells, sites, axis=0)
    return Columns(
        yx_px=origin_yx_px + (cell + basis) @ matrix.T,
        cross_section_A2=np.tile(np.array(crystal.cross_section_A2, dtype=np.float64), len(cells)),
        site=np.tile(np.arange(sites, dtype=np.int64), len(cells)),
        cell=cell,
    )


def displace(columns: Columns, displacement_yx_px: FloatArray) -> Columns:
    """Move each column by its row of `displacement_yx_px`, shape (N, 2) or (2,)."""
    return replace(columns, yx_px=columns.yx_px + displacement_yx_px)
