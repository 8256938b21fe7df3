"""Columns by lattice node: fitted lattice, table of nodes, and nodes that should hold a column and do not."""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np

from atomid_live.types import FloatArray, IntArray, Lattice

MARGIN_SPACINGS = 0.6
FULL_CLASS = 0.8
MAX_TABLE = 20_000_000


@dataclass(frozen=True, slots=True, eq=False)
class LatticeFit:
    """Least-squares lattice through indexed columns: position = origin[site] + matrix @ cell.

    `matrix` (2, 2) has columns a and b and rows y and x; `origin_yx_px` (S, 2); `residual_px` is the rms per axis about it.
    """

    matrix: FloatArray
    origin_yx_px: FloatArray = field(repr=False)
    residual_px: float

    @property
    def offset(self) -> FloatArray:
        """Position of each class in fractions of a cell relative to class 0, in [0, 1), shape (S, 2)."""
        raw = np.linalg.solve(self.matrix, (self.origin_yx_px - self.origin_yx_px[0]).T).T
        return np.asarray(raw - np.floor(raw + 1e-9))

    @property
    def area_px2(self) -> float:
        """Area of the cell in square pixels."""
        return abs(float(np.linalg.det(self.matrix)))


def fit_lattice(yx_px: FloatArray, cell: IntArray, site: IntArray) -> LatticeFit:
    """Fit one matrix and one origin per class to the columns with `site` >= 0 (at least three of one class not in line)."""
    count, mean_r, mean_n, left, right = _moments(yx_px, cell, site, int(site.max()) + 1)
    matrix: FloatArray = np.asarray(np.linalg.solve(left, right).T, np.float64)
    origin = mean_r - mean_n @ matrix.T
    freedom = max(1, 2 * int(count.sum()) - 4 - 2 * len(count))
    return LatticeFit(matrix, origin, float(np.sqrt(_square_rest(yx_px, cell, site, matrix, origin) / freedom)))


@numba.njit(nogil=True, cache=True)
def _moments(yx, cell, site, classes):  # type: ignore[no-untyped-def]
    """Per class number, mean position and mean cell; over all, about these, the products cell x cell and cell x position."""
    count, r, n = np.zeros(classes, np.int64), np.zeros((classes, 2)), np.zeros((classes, 2))
    for k in range(len(site)):
        s = site[k]
        if s >= 0:
            count[s] += 1
            for c in range(2):
                r[s, c] += yx[k, c]
                n[s, c] += cell[k, c]
    for s in range(classes):
        r[s] /= max(count[s], 1)
        n[s] /= max(count[s], 1)
    left, right = np.zeros((2, 2)), np.zeros((2, 2))
    for k in range(len(site)):
        s = site[k]
        if s >= 0:
            for c in range(2):
                for d in range(2):
                    left[c, d] += (cell[k, c] - n[s, c]) * (cell[k, d] - n[s, d])
                    right[c, d] += (cell[k, c] - n[s, c]) * (yx[k, d] - r[s, d])
    return count, r, n, left, right


@numba.njit(nogil=True, cache=True)
def _square_rest(yx, cell, site, matrix, origin):  # type: ignore[no-untyped-def]
    total = 0.0
    for k in range(len(site)):
        s = site[k]
        if s >= 0:
            for c in range(2):
                rest = yx[k, c] - origin[s, c] - matrix[c, 0] * cell[k, 0] - matrix[c, 1] * cell[k, 1]
                total += rest * rest
    return total


@dataclass(frozen=True, slots=True, eq=False)
class NodeTable:
    """Which column sits on node (site, i, j): `column[site, i - low[0], j - low[1]]`, -1 where none does."""

    column: IntArray = field(repr=False)
    low: IntArray


def node_table(cell: IntArray, site: IntArray) -> NodeTable:
    """Build the table of nodes; where two columns claim a node the first keeps it."""
    low, high = cell_range(cell, site)
    if high[0] < low[0]:
        return NodeTable(np.full((1, 1, 1), -1, np.int64), np.zeros(2, np.int64))
    shape = (int(site.max()) + 1, *(int(v) for v in high - low + 1))
    if np.prod(np.array(shape, float)) > MAX_TABLE:
        raise ValueError(f"cells span {shape}: the indexing is broken")
    return NodeTable(_fill(cell, site, low, np.full(shape, -1, np.int64)), low)


@numba.njit(nogil=True, cache=True)
def cell_range(cell, site):  # type: ignore[no-untyped-def]
    """Lowest and highest cell index of columns that have a class; highest below lowest when none has."""
    low, high = np.full(2, 1 << 60, np.int64), np.full(2, -(1 << 60), np.int64)
    for k in range(len(site)):
        if site[k] >= 0:
            for c in range(2):
                low[c], high[c] = min(low[c], cell[k, c]), max(high[c], cell[k, c])
    return low, high


@numba.njit(nogil=True, cache=True)
def _fill(cell, site, low, column):  # type: ignore[no-untyped-def]
    for k in range(len(site) - 1, -1, -1):
        if site[k] >= 0:
            column[site[k], cell[k, 0] - low[0], cell[k, 1] - low[1]] = k
    return column


@numba.njit(nogil=True, cache=True)
def _missing(column, yx, a, b, shape_y, shape_x, margin, least):  # type: ignore[no-untyped-def]
    found = []
    classes, ni, nj = column.shape
    held = np.array([(column[s] >= 0).sum() for s in range(classes)])
    for s in range(classes):
        if held[s] < FULL_CLASS * held.max():
            continue
        for i in range(ni):
            for j in range(nj):
                if column[s, i, j] >= 0:
                    continue
                near, y, x = 0, 0.0, 0.0
                for di, dj in ((1, 0), (0, 1), (1, 1), (-1, 0), (0, -1), (-1, -1)):
                    p, q = i + di, j + dj
                    if 0 <= p < ni and 0 <= q < nj and column[s, p, q] >= 0:
                        k = column[s, p, q]
                        near += 1
                        y += yx[k, 0] - di * a[0] - dj * b[0]
                        x += yx[k, 1] - di * a[1] - dj * b[1]
                if near >= least:
                    y, x = y / near, x / near
                    if margin <= y <= shape_y - 1 - margin and margin <= x <= shape_x - 1 - margin:
                        found.append((y, x))
    out = np.empty((len(found), 2))
    for k in range(len(found)):
        out[k, 0], out[k, 1] = found[k]
    return out


def missing_sites(
    yx_px: FloatArray, lattice: Lattice, shape: tuple[int, int], spacing_px: float, table: NodeTable | None = None
) -> FloatArray:
    """Positions (M, 2) in pixels of lattice nodes without a column: vacancies, or columns that were not detected.

    A node counts when at least four of its six nearest nodes of the same class hold a column, when it lies at least
    0.6 spacings inside the frame, and when no unindexed column stands within 0.35 spacings of it. A class of which under
    80 % of the largest class's number were found is hardly visible, and is left out.
    """
    if not lattice.found:
        return np.empty((0, 2))
    table = table or node_table(lattice.cell, lattice.site)
    a, b = np.array(lattice.a_yx_px), np.array(lattice.b_yx_px)
    found: FloatArray = _missing(table.column, yx_px, a, b, *shape, MARGIN_SPACINGS * spacing_px, 4)
    loose = yx_px[lattice.site < 0]
    if len(found) and len(loose):
        away = np.hypot(*(found[:, None, :] - loose[None, :, :]).transpose(2, 0, 1)).min(axis=1)
        found = found[away > 0.35 * spacing_px]
    return found
