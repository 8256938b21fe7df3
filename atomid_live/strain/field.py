"""Strain per column: a Gaussian-weighted affine fit of the lattice around it (D2min of Falk & Langer 1998, with error bars).

Every column is fitted with its neighbours of all site classes by one deformation gradient and a free offset per class, so a
four-site crystal gives the noise of its full density and no class pulls on another. The fit is made against the frame's own
lattice and carried over to the named reference, or directly against the reference's columns where those are known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numba
import numpy as np

from atomid_live.lattice.sites import LatticeFit, NodeTable
from atomid_live.types import FloatArray, IntArray

CUT_WINDOWS = 3.3
COUNTED_WEIGHT = 0.05
LEAST_NEIGHBOURS = 4
WORST_CONDITION = 50.0
STRAY_SPACINGS = 0.35
STRAY_PER_PX = 0.08
WEIGHT_RANGE = (0.05, 20.0)
POOR_VARIANCE = 10.0
RESIDUAL_COLUMNS = 30
SAMPLE_WINDOWS = 1.5
MANY_NEIGHBOURS = 450.0
THIN_WINDOWS = 0.5
ABSENT = 1e9


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Indexed columns of one frame in square pixels.

    Attributes
    ----------
    yx : ndarray, shape (N, 2)
        Positions, both axes in the same unit (pixels of the mean pixel size).
    variance : ndarray, shape (N,)
        Variance of one coordinate in square pixels, the mean of both axes; NaN where the detector gave none.
    cell, site : ndarray
        As in `Lattice`.
    table, fit : NodeTable, LatticeFit
        Nodes, and the straight lattice through the columns.
    spacing : float
        Mean nearest-neighbour distance in the same pixels.
    poor : ndarray of bool, shape (N,), optional
        Columns whose position is not to be trusted: they get a strain from their neighbours but give none to them.
    """

    yx: FloatArray = field(repr=False)
    variance: FloatArray = field(repr=False)
    cell: IntArray = field(repr=False)
    site: IntArray = field(repr=False)
    table: NodeTable = field(repr=False)
    fit: LatticeFit
    spacing: float
    poor: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Undeformed state of each column: its straight lattice, and where its node is, shape (N, 2), NaN where unknown."""

    fit: LatticeFit
    yx: FloatArray = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Deformation:
    """Deformation gradients (x, y order) per column, NaN where under-determined, and what their errors are made of.

    Attributes
    ----------
    gradient : ndarray, shape (N, 2, 2)
        F with row and column order x, y.
    sigma : ndarray, shape (N,)
        Standard error of a normal component.
    neighbours : ndarray, shape (N,)
        Columns that entered with more than 5 % of the greatest weight.
    d2min : ndarray, shape (N,)
        Mean square of what the affine fit leaves, per axis, in square pixels.
    position_sigma_px : float
        Effective standard error of one coordinate, from the residuals of the fits.
    sem : (float, float, float)
        Standard error of the frame's mean exx, eyy and (exy, rotation or hydrostatic), neighbours' shared columns counted.
    """

    gradient: FloatArray = field(repr=False)
    sigma: FloatArray = field(repr=False)
    neighbours: IntArray = field(repr=False)
    d2min: FloatArray = field(repr=False)
    position_sigma_px: float
    sem: tuple[float, float, float]

    @property
    def valid(self) -> np.ndarray:
        """Columns with a tensor, shape (N,), bool."""
        return np.isfinite(self.sigma)


@dataclass(frozen=True, slots=True)
class _Template:
    """Neighbours of a column of each class within the cut, grouped by class.

    `run[s, c] : run[s, c + 1]` are those of class c around one of class s; `full[s, c]` holds the sums of g, g y, g x, g yy,
    g yx, g xx and of g^2 likewise over them, so that a fit need only take off what is missing.
    """

    run: IntArray
    step: IntArray
    site: IntArray
    difference: FloatArray
    weight: FloatArray
    stray2: FloatArray
    full: FloatArray
    span: int


def _template(fit: LatticeFit, window: float, cells: int) -> _Template:
    """Template of a lattice; one reference serves many frames, so the last few are kept."""
    offset = np.round(fit.origin_yx_px - fit.origin_yx_px[0], 6) + 0.0
    return _template_of(fit.matrix.tobytes(), offset.tobytes(), window, -(-cells // 8) * 8)


@lru_cache(maxsize=8)
def _template_of(matrix_bytes: bytes, origin_bytes: bytes, window: float, cells: int) -> _Template:
    matrix = np.frombuffer(matrix_bytes).reshape(2, 2)
    origin = np.frombuffer(origin_bytes).reshape(-1, 2)
    spacing = float(np.sqrt(abs(np.linalg.det(matrix)) / len(origin)))
    reach = CUT_WINDOWS * window
    inverse = np.linalg.inv(matrix)
    span = int(np.ceil(np.hypot(inverse[:, 0], inverse[:, 1]) * reach).max()) + 1
    span = min(span, cells + 1)
    axis = np.arange(-span, span + 1)
    step = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    shift = np.linalg.solve(matrix, (origin - origin[0]).T).T
    classes = len(shift)
    run = np.zeros((classes, classes + 1), np.int64)
    sites, steps, differences, furthest = [], [], [], 0
    count = 0
    for own in range(classes):
        run[own, 0] = count
        for other in range(classes):
            near = np.rint(shift[other] - shift[own]).astype(np.int64)
            d = (step - near + shift[other] - shift[own]) @ matrix.T
            keep = (d**2).sum(axis=1) <= reach**2
            sites.append(np.full(keep.sum(), other))
            steps.append(step[keep] - near)
            differences.append(d[keep])
            count += int(keep.sum())
            run[own, other + 1] = count
            furthest = max(furthest, int(np.abs(steps[-1]).max(initial=0)))
    y, x = np.concatenate(differences).T
    square = y * y + x * x
    g = np.exp(-0.5 * square / window**2)
    moments = np.stack([h * m for h in (g, g * g) for m in (np.ones_like(g), y, x, y * y, y * x, x * x)], axis=1)
    total = np.concatenate([np.zeros((1, 12)), np.cumsum(moments, axis=0)])
    full = total[run[:, 1:]] - total[run[:, :-1]]
    stray2 = (STRAY_SPACINGS * spacing + STRAY_PER_PX * np.sqrt(square)) ** 2
    return _Template(run, np.concatenate(steps), np.concatenate(sites), np.stack([y, x], 1), g, stray2, full, furthest)


@numba.njit(nogil=True, cache=True)
def _fit_columns(at, own, site, todo, uy, ux, run, offset, diff, weight, stray2, full, part, out):  # type: ignore[no-untyped-def]
    """Fit the columns of `todo`; `at` is their place in the padded displacement arrays, where 1e9 stands for no column.

    out[i] = (Gyy, Gyx, Gxy, Gxx, Cyy, Cyx, Cxx, residual square sum, freedom, neighbours, Yinv yy, yx, xx).
    """
    classes = full.shape[1]
    m = np.empty(12)
    for i in range(len(at)):
        out[i, :] = np.nan
        out[i, 9] = 0.0
        if not todo[i]:
            continue
        y0, x0 = own[i, 0], own[i, 1]
        yyy, yyx, yxx = 0.0, 0.0, 0.0
        gyy, gyx, gxy, gxx = 0.0, 0.0, 0.0, 0.0
        zyy, zyx, zxx = 0.0, 0.0, 0.0
        rest, freedom, near = 0.0, 0.0, 0
        if uy[at[i]] == y0:
            near = -1
        for s in range(classes):
            m[:] = full[site[i], s]
            u1, u2, uyy, uyx, uxy, uxx, uu = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for k in range(run[site[i], s], run[site[i], s + 1]):
                j = at[i] + offset[k]
                dy, dx = uy[j] - y0, ux[j] - x0
                square = dy * dy + dx * dx
                g, ry, rx = weight[k], diff[k, 0], diff[k, 1]
                if square <= stray2[k]:
                    a, b = g * dy, g * dx
                    u1 += a
                    u2 += b
                    uyy += a * ry
                    uyx += a * rx
                    uxy += b * ry
                    uxx += b * rx
                    uu += g * square
                    if g > COUNTED_WEIGHT:
                        near += 1
                else:
                    h = g * g
                    m[0] -= g
                    m[1] -= g * ry
                    m[2] -= g * rx
                    m[3] -= g * ry * ry
                    m[4] -= g * ry * rx
                    m[5] -= g * rx * rx
                    m[6] -= h
                    m[7] -= h * ry
                    m[8] -= h * rx
                    m[9] -= h * ry * ry
                    m[10] -= h * ry * rx
                    m[11] -= h * rx * rx
            if m[0] > 1e-6:
                p = part[s]
                my, mx = m[1] / m[0], m[2] / m[0]
                yyy += p * (m[3] - m[1] * my)
                yyx += p * (m[4] - m[1] * mx)
                yxx += p * (m[5] - m[2] * mx)
                gyy += p * (uyy - u1 * my)
                gyx += p * (uyx - u1 * mx)
                gxy += p * (uxy - u2 * my)
                gxx += p * (uxx - u2 * mx)
                rest += p * (uu - (u1 * u1 + u2 * u2) / m[0])
                zyy += p * (m[9] - 2 * my * m[7] + my * my * m[6])
                zyx += p * (m[10] - my * m[8] - mx * m[7] + my * mx * m[6])
                zxx += p * (m[11] - 2 * mx * m[8] + mx * mx * m[6])
                freedom += m[0] - m[6] / m[0]
        out[i, 9] = max(near, 0)
        det = yyy * yxx - yyx * yyx
        trace = yyy + yxx
        if near < LEAST_NEIGHBOURS or det <= 1e-9 * trace * trace:
            continue
        spread = np.sqrt(max(trace * trace / 4 - det, 0.0))
        if trace / 2 + spread > WORST_CONDITION * (trace / 2 - spread):
            continue
        iyy, iyx, ixx = yxx / det, -yyx / det, yyy / det
        fyy, fyx = gyy * iyy + gyx * iyx, gyy * iyx + gyx * ixx
        fxy, fxx = gxy * iyy + gxx * iyx, gxy * iyx + gxx * ixx
        ayy, ayx = iyy * zyy + iyx * zyx, iyy * zyx + iyx * zxx
        axy, axx = iyx * zyy + ixx * zyx, iyx * zyx + ixx * zxx
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = fyy, fyx, fxy, fxx
        out[i, 4] = ayy * iyy + ayx * iyx
        out[i, 5] = ayy * iyx + ayx * ixx
        out[i, 6] = axy * iyx + axx * ixx
        out[i, 7] = max(0.0, rest - (fyy * gyy + fyx * gyx + fxy * gxy + fxx * gxx))
        out[i, 8] = freedom - ayy - axx
        out[i, 10], out[i, 11], out[i, 12] = iyy, iyx, ixx


@numba.njit(nogil=True, cache=True)
def _mean_weights(at, own, site, uy, ux, run, offset, diff, weight, stray2, full, part, out, sample):  # type: ignore[no-untyped-def]
    """Coefficients (nodes, 2) with which each node's displacement along y and x enters the mean gradient along y and x."""
    share = np.zeros((len(uy), 2))
    fits = 0
    for i in range(len(at)):
        if not sample[i] or np.isnan(out[i, 0]):
            continue
        fits += 1
        y0, x0 = own[i, 0], own[i, 1]
        for s in range(full.shape[1]):
            first, last = run[site[i], s], run[site[i], s + 1]
            w0, wy, wx = 0.0, 0.0, 0.0
            for k in range(first, last):
                j = at[i] + offset[k]
                if (uy[j] - y0) ** 2 + (ux[j] - x0) ** 2 <= stray2[k]:
                    w0 += weight[k]
                    wy += weight[k] * diff[k, 0]
                    wx += weight[k] * diff[k, 1]
            if w0 <= 1e-6:
                continue
            for k in range(first, last):
                j = at[i] + offset[k]
                if (uy[j] - y0) ** 2 + (ux[j] - x0) ** 2 <= stray2[k]:
                    w = part[s] * weight[k]
                    qy, qx = w * (diff[k, 0] - wy / w0), w * (diff[k, 1] - wx / w0)
                    share[j, 0] += out[i, 10] * qy + out[i, 11] * qx
                    share[j, 1] += out[i, 11] * qy + out[i, 12] * qx
    return share / max(fits, 1)


def _some_median(values: FloatArray) -> float:
    """Median of at most some 500 values spread over all."""
    return float(np.median(values[:: -(-len(values) // 500)])) if len(values) else float("nan")


def _class_weights(columns: Columns) -> tuple[FloatArray, np.ndarray, float]:
    """Relative weight per class, columns fit for use, and the typical variance in square pixels (NaN when unknown)."""
    classes = int(columns.site.max()) + 1
    indexed = columns.site >= 0
    if columns.poor is not None and (indexed & ~columns.poor).any():
        indexed = indexed & ~columns.poor
    known = np.isfinite(columns.variance) & (columns.variance > 0) & indexed
    if known.sum() < 0.5 * indexed.sum():
        return np.ones(classes), indexed, float("nan")
    middle = np.array([_some_median(columns.variance[known & (columns.site == s)]) for s in range(classes)])
    typical = _some_median(columns.variance[known])
    middle = np.where(np.isfinite(middle), middle, typical)
    use = indexed & ~(columns.variance > POOR_VARIANCE * middle[columns.site])
    return np.clip(typical / middle, *WEIGHT_RANGE), use, typical


@dataclass(frozen=True, slots=True)
class _Nodes:
    """Displacements from the straight lattice on a padded grid of nodes, flattened; 1e9 where no usable column is.

    `at` is each column's place in it and `own` its displacement, usable or not; `todo` says which columns have both.
    """

    uy: FloatArray
    ux: FloatArray
    at: IntArray
    own: FloatArray
    todo: np.ndarray
    shape: tuple[int, int, int]


def _nodes(columns: Columns, straight: FloatArray, use: np.ndarray, span: int) -> _Nodes:
    todo = (columns.site >= 0) & np.isfinite(straight[:, 0])
    use = use & todo
    cell = columns.cell - columns.table.low + span
    shape = (columns.table.column.shape[0], *(n + 2 * span for n in columns.table.column.shape[1:]))
    at = np.where(todo, (columns.site * shape[1] + cell[:, 0]) * shape[2] + cell[:, 1], 0)
    own = columns.yx - straight
    uy, ux = np.full(int(np.prod(shape)), ABSENT), np.full(int(np.prod(shape)), ABSENT)
    uy[at[use]], ux[at[use]] = own[use].T
    return _Nodes(uy, ux, at, own, todo, shape)


def _sample(columns: Columns, fit: LatticeFit, window: float) -> np.ndarray:
    """Columns on a regular coarse grid of cells, no wider than 1.5 windows: their mean has the error of the mean over all.

    The grid must be regular, or the sum over neighbours that cancels inside the crystal no longer does.
    """
    longest = float(np.hypot(fit.matrix[0], fit.matrix[1]).max())
    every = int(SAMPLE_WINDOWS * window / longest)
    if every < 1:
        return np.ones(len(columns.site), np.bool_)
    return np.asarray((columns.site == 0) & (columns.cell % every == 0).all(axis=1))


def _thinning(columns: Columns, fit: LatticeFit, window: float) -> int:
    """Every how many cells one column is fitted, where the window is so wide that strain cannot change between; 0 fits all."""
    neighbours = np.pi * (CUT_WINDOWS * window) ** 2 * len(fit.origin_yx_px) / fit.area_px2
    if neighbours < MANY_NEIGHBOURS:
        return 0
    longest = float(np.hypot(fit.matrix[0], fit.matrix[1]).max())
    across = int(min(columns.table.column.shape[1:]))
    return max(1, min(int(THIN_WINDOWS * window / longest), across // 8))


@numba.njit(nogil=True, cache=True)
def _fill_between(cell, todo, first_class, low, every, out):  # type: ignore[no-untyped-def]
    """Give the columns between fitted nodes of the first class the bilinear mean of those around them."""
    ni, nj = first_class.shape
    for i in range(len(cell)):
        if not todo[i] or not np.isnan(out[i, 0]):
            continue
        i0, j0 = cell[i, 0] // every * every, cell[i, 1] // every * every
        fi, fj = (cell[i, 0] - i0) / every, (cell[i, 1] - j0) / every
        total = 0.0
        held = np.zeros(10)
        for di in range(2):
            for dj in range(2):
                p, q = i0 + di * every - low[0], j0 + dj * every - low[1]
                w = (fi if di else 1 - fi) * (fj if dj else 1 - fj)
                if w > 0 and 0 <= p < ni and 0 <= q < nj:
                    k = first_class[p, q]
                    if k >= 0 and out[k, 8] == out[k, 8]:
                        total += w
                        held += w * out[k, :10]
        if total > 0:
            out[i, :7] = held[:7] / total
            out[i, 9] = held[9] / total


def measure_deformation(
    columns: Columns,
    window: float,
    reference: Reference | None = None,
    only: np.ndarray | None = None,
    with_sem: bool = True,
) -> Deformation:
    """Fit the deformation gradient at every indexed column.

    Parameters
    ----------
    columns : Columns
        The frame's columns.
    window : float
        Gaussian radius w of the weights in the pixels of `columns`.
    reference : Reference, optional
        Lattice and node positions to compare with; without it the frame's own straight lattice. A column whose node the
        reference does not know takes no part and stays NaN.
    only : ndarray of bool, shape (N,), optional
        Columns to give a tensor to; all take part as neighbours.
    with_sem : bool
        Whether the error of the mean is wanted (a third of the time); NaN otherwise.

    Returns
    -------
    Deformation
        Classes are weighted by their inverse variance; poor columns, and those of ten times their class's variance, give
        none. The error of exx for equal errors sigma and density rho is sigma / (sqrt(8 pi rho) w^2) where the
        window lies within the crystal.
    """
    part, use, typical = _class_weights(columns)
    fit = columns.fit if reference is None else reference.fit
    if reference is None:
        site = np.maximum(columns.site, 0)
        straight = fit.origin_yx_px[site] + columns.cell @ fit.matrix.T
    else:
        straight = reference.yx
    template = _template(fit, window, max(columns.table.column.shape[1:]))
    nodes = _nodes(columns, straight, use, template.span)
    stretch = np.array([nodes.shape[1] * nodes.shape[2], nodes.shape[2], 1])
    own = np.repeat(np.arange(len(template.run)), template.run[:, -1] - template.run[:, 0])
    offset = (template.site - own) * stretch[0] + template.step @ stretch[1:]
    shape = (template.run, offset, template.difference, template.weight, template.stray2, template.full, part)
    out = np.empty((len(columns.yx), 13))
    todo = nodes.todo if only is None else nodes.todo & only
    every = _thinning(columns, fit, window)
    sample = _sample(columns, fit, window)
    fit_some = (nodes.at, nodes.own, columns.site)
    if every:
        sample = (columns.site == 0) & (columns.cell % every == 0).all(axis=1)
        _fit_columns(*fit_some, nodes.todo & sample, nodes.uy, nodes.ux, *shape, out)
        _fill_between(columns.cell, todo, columns.table.column[0], columns.table.low, every, out)
        left = todo & np.isnan(out[:, 0])
        rest = np.empty_like(out)
        _fit_columns(*fit_some, left, nodes.uy, nodes.ux, *shape, rest)
        out[left] = rest[left]
    else:
        _fit_columns(*fit_some, todo, nodes.uy, nodes.ux, *shape, out)
    gradient = np.empty((len(out), 2, 2))
    gradient[:, 0, 0], gradient[:, 0, 1] = 1 + out[:, 3], out[:, 2]
    gradient[:, 1, 0], gradient[:, 1, 1] = out[:, 1], 1 + out[:, 0]
    d2min = out[:, 7] / (2 * np.maximum(out[:, 8], 1e-9))
    sigma2 = _effective_variance(d2min[out[:, 8] > 1], typical)
    sem = (float("nan"),) * 3
    if with_sem:
        share = _mean_weights(nodes.at, nodes.own, columns.site, nodes.uy, nodes.ux, *shape, out, sample)
        square = sigma2 * (np.repeat(1 / part, len(share) // len(part)) @ share**2)
        sem = (float(np.sqrt(square[1])), float(np.sqrt(square[0])), float(np.sqrt(square.sum()) / 2))
    sigma = np.sqrt(sigma2 * (out[:, 4] + out[:, 6]) / 2)
    return Deformation(gradient, sigma, out[:, 9].astype(np.int64), d2min, float(np.sqrt(sigma2)), sem)


def _effective_variance(d2min: FloatArray, typical: float) -> float:
    """Variance of one coordinate: what the fits leave, as they see all errors; with few fits no less than the detector says."""
    known = d2min[np.isfinite(d2min)]
    if not len(known):
        return typical
    left = float(np.median(known))
    if len(known) < RESIDUAL_COLUMNS and np.isfinite(typical):
        return max(left, typical)
    return left


def strain_of(gradient: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Split deformation gradients (..., 2, 2), x before y, into exx, eyy, exy and rotation in rad (clockwise on the screen).

    F = V R; the strain is V - 1, which is (F + F^T) / 2 - 1 to first order and, unlike it, does not change when the specimen
    turns. The rotation is atan2(Fyx - Fxy, Fxx + Fyy).
    """
    f = gradient
    along, across = f[..., 0, 0] + f[..., 1, 1], f[..., 1, 0] - f[..., 0, 1]
    size = np.hypot(along, across)
    c, s = along / size, across / size
    exx = f[..., 0, 0] * c - f[..., 0, 1] * s - 1
    eyy = f[..., 1, 0] * s + f[..., 1, 1] * c - 1
    exy = f[..., 0, 0] * s + f[..., 0, 1] * c
    return exx, eyy, exy, np.arctan2(across, along)


def gradient_of(exx: FloatArray, eyy: FloatArray, exy: FloatArray, rotation: FloatArray) -> FloatArray:
    """Inverse of `strain_of`: deformation gradients (..., 2, 2) of strain and rotation in rad."""
    c, s = np.cos(rotation), np.sin(rotation)
    v = np.stack([np.stack([1 + exx, exy], -1), np.stack([exy, 1 + eyy], -1)], -2)
    turn = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    return np.asarray(v @ turn)
