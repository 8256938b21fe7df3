"""Strain per column: a Gaussian-weighted affine fit of the lattice around it (D2min of Falk & Langer 1998, with error bars).

Every column is fitted with its neighbours of all site classes by one deformation gradient and a free offset per class, so a
four-site crystal gives the noise of its full density and no class pulls on another. The fit is made against the frame's own
lattice and carried over to the named reference, or directly against the reference's columns where those are known.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from atomid_live.lattice.sites import LatticeFit, NodeTable
from atomid_live.strain.affine import fill_between, fit_columns, place_nodes
from atomid_live.strain.template import CUT_WINDOWS, template_for
from atomid_live.types import FloatArray, IntArray

WEIGHT_RANGE = (0.05, 20.0)
POOR_VARIANCE = 10.0
RESIDUAL_COLUMNS = 30
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
        Mean square of what the affine fit leaves, per axis and degree of freedom, in square pixels; NaN without freedom.
    position_sigma_px : float
        Effective standard error of one coordinate, from the residuals of the fits.
    """

    gradient: FloatArray = field(repr=False)
    sigma: FloatArray = field(repr=False)
    neighbours: IntArray = field(repr=False)
    d2min: FloatArray = field(repr=False)
    position_sigma_px: float

    @property
    def valid(self) -> np.ndarray:
        """Columns with a tensor, shape (N,), bool."""
        return np.isfinite(self.sigma)


def _some_median(values: FloatArray) -> float:
    """Median of at most some 500 values spread over all."""
    return float(np.median(values[:: -(-len(values) // 500)])) if len(values) else float("nan")


@dataclass(frozen=True, slots=True)
class ClassWeights:
    """Relative weight per class, columns fit for use (N,), and the typical variance in square pixels (NaN when unknown)."""

    part: FloatArray
    use: np.ndarray
    typical: float


def class_weights(columns: Columns) -> ClassWeights:
    """Weigh the classes by their inverse variance and leave poor columns out; the same for every fit of a frame."""
    classes = int(columns.site.max()) + 1
    indexed = columns.site >= 0
    if columns.poor is not None and (indexed & ~columns.poor).any():
        indexed = indexed & ~columns.poor
    known = np.isfinite(columns.variance) & (columns.variance > 0) & indexed
    if known.sum() < 0.5 * indexed.sum():
        return ClassWeights(np.ones(classes), indexed, float("nan"))
    site, variance = columns.site[known], columns.variance[known]
    middle = np.array([_some_median(variance[site == s]) for s in range(classes)])
    typical = _some_median(variance)
    middle = np.where(np.isfinite(middle), middle, typical)
    use = indexed & ~(columns.variance > POOR_VARIANCE * middle[columns.site])
    return ClassWeights(np.clip(typical / middle, *WEIGHT_RANGE), use, typical)


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
    shape = (columns.table.column.shape[0], *(n + 2 * span for n in columns.table.column.shape[1:]))
    size = shape[0] * shape[1] * shape[2]
    uy, ux = np.full(size, ABSENT), np.full(size, ABSENT)
    low = columns.table.low - span
    at, own, todo = place_nodes(columns.yx, straight, columns.cell, columns.site, use, low, np.array(shape), uy, ux)
    return _Nodes(uy, ux, at, own, todo, shape)


def _thinning(columns: Columns, fit: LatticeFit, window: float) -> int:
    """Every how many cells one column is fitted, where the window is so wide that strain cannot change between; 0 fits all."""
    neighbours = np.pi * (CUT_WINDOWS * window) ** 2 * len(fit.origin_yx_px) / fit.area_px2
    if neighbours < MANY_NEIGHBOURS:
        return 0
    longest = float(np.hypot(fit.matrix[0], fit.matrix[1]).max())
    across = int(min(columns.table.column.shape[1:]))
    return max(1, min(int(THIN_WINDOWS * window / longest), across // 8))


def measure_deformation(
    columns: Columns,
    window: float,
    reference: Reference | None = None,
    only: np.ndarray | None = None,
    weights: ClassWeights | None = None,
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
    weights : ClassWeights, optional
        What `class_weights` gave for these columns already.

    Returns
    -------
    Deformation
        Classes are weighted by their inverse variance; poor columns, and those of ten times their class's variance, give
        none. The error of exx for equal errors sigma and density rho is sigma / (sqrt(8 pi rho) w^2) where the
        window lies within the crystal.
    """
    weights = weights or class_weights(columns)
    part, typical = weights.part, weights.typical
    fit = columns.fit if reference is None else reference.fit
    if reference is None:
        site = np.maximum(columns.site, 0)
        straight = fit.origin_yx_px[site] + columns.cell @ fit.matrix.T
    else:
        straight = reference.yx
    template = template_for(fit, window, max(columns.table.column.shape[1:]))
    nodes = _nodes(columns, straight, weights.use, template.span)
    stretch = np.array([nodes.shape[1] * nodes.shape[2], nodes.shape[2], 1])
    offset = template.stride @ stretch
    shape = (template.run, offset, template.difference, template.weight, template.stray2, template.full, part)
    out = np.empty((len(columns.yx), 14))
    todo = nodes.todo if only is None else nodes.todo & only
    every = _thinning(columns, fit, window)
    fit_some = (nodes.at, nodes.own, columns.site)
    if every:
        thinned = (columns.site == 0) & (columns.cell % every == 0).all(axis=1)
        fit_columns(*fit_some, nodes.todo & thinned, nodes.uy, nodes.ux, *shape, out)
        fill_between(columns.cell, todo, columns.table.column[0], columns.table.low, every, out)
        left = todo & np.isnan(out[:, 0])
        rest = np.empty_like(out)
        fit_columns(*fit_some, left, nodes.uy, nodes.ux, *shape, rest)
        out[left] = rest[left]
    else:
        fit_columns(*fit_some, todo, nodes.uy, nodes.ux, *shape, out)
    gradient = np.empty((len(out), 2, 2))
    gradient[:, 0, 0], gradient[:, 0, 1] = 1 + out[:, 3], out[:, 2]
    gradient[:, 1, 0], gradient[:, 1, 1] = out[:, 1], 1 + out[:, 0]
    d2min = np.where(out[:, 8] > 1, out[:, 7] / (2 * np.maximum(out[:, 8], 1e-9)), np.nan)
    sigma2 = _effective_variance(d2min, typical)
    # where nearly all neighbours were taken off again, rounding can leave less than nothing
    spread = np.where(out[:, 4] + out[:, 6] > 0, out[:, 4] + out[:, 6], np.nan)
    sigma = np.sqrt(sigma2 * spread / 2)
    return Deformation(gradient, sigma, out[:, 9].astype(np.int64), d2min, float(np.sqrt(sigma2)))


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
