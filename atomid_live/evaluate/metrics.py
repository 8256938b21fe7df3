"""Scores of predicted against true columns: strict one-to-one matching, chance level, localisation, and the thesis's rule.

Positions are (row, col) in pixels throughout; `spacing` d is the mean nearest-neighbour distance of the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from atomid_live.types import NAN, FloatArray, IntArray

Mask = tuple[float, float, float, float]

RADII = (0.1, 0.2, 0.3, 0.4, 0.5)
CHANCE_SHIFTS = 20


@dataclass(frozen=True, slots=True)
class Counts:
    """Found (TP), surplus (FP) and missed (FN) points, and the rates made of them."""

    tp: int
    fp: int
    fn: int

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 1 when there was nothing to find and nothing was said, 0 when nothing right was said."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else float(self.fn == 0)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 1 when there was nothing to find and nothing was said."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else float(self.fp == 0)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 when both sets are empty."""
        every = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / every if every else 1.0

    @property
    def jaccard(self) -> float:
        """TP / (TP + FP + FN) = F1 / (2 - F1); 1 when both sets are empty."""
        every = self.tp + self.fp + self.fn
        return self.tp / every if every else 1.0


def mean_spacing(yx: FloatArray) -> float:
    """Mean distance to the nearest other point; NaN under two points."""
    if len(yx) < 2:
        return NAN
    return float(np.mean(cKDTree(yx).query(yx, k=2)[0][:, 1]))


def eligible(
    yx: FloatArray, frame_size_xy: tuple[float, float] | None, border_px: float, masks: tuple[Mask, ...]
) -> NDArray[np.bool_]:
    """Points at least `border_px` inside the frame and outside every mask (x0, x1, y0, y1).

    Parameters
    ----------
    yx : ndarray, shape (N, 2)
    frame_size_xy : (float, float) or None
        Width and height in pixels; without it no border is taken off.
    border_px : float
    masks : tuple of (x0, x1, y0, y1)
        Edges included.
    """
    inside = np.ones(len(yx), np.bool_)
    if frame_size_xy is not None:
        width, height = frame_size_xy
        y, x = yx[:, 0], yx[:, 1]
        # pixel centres are whole numbers, so the frame ends half a pixel beyond the outermost ones
        inside &= (np.minimum(x, y) + 0.5 >= border_px) & (width - 0.5 - x >= border_px) & (height - 0.5 - y >= border_px)
    for x0, x1, y0, y1 in masks:
        inside &= ~((yx[:, 1] >= x0) & (yx[:, 1] <= x1) & (yx[:, 0] >= y0) & (yx[:, 0] <= y1))
    return inside


def match(predicted: FloatArray, truth: FloatArray, radius_px: float) -> tuple[IntArray, IntArray]:
    """Pair points one to one within a radius: the most pairs first, among those the shortest total distance.

    Solved exactly per connected component of the graph of possible pairs.

    Parameters
    ----------
    predicted, truth : ndarray, shapes (N, 2) and (M, 2)
    radius_px : float
        A pair at exactly this distance counts.

    Returns
    -------
    ndarray, ndarray, shape (K,), int64
        Indices into `predicted` and `truth`, ascending in `predicted`.
    """
    nobody = np.empty(0, np.int64)
    if len(predicted) == 0 or len(truth) == 0:
        return nobody, nobody
    near = cKDTree(predicted).query_ball_tree(cKDTree(truth), radius_px)
    i = np.repeat(np.arange(len(predicted)), [len(v) for v in near])
    if len(i) == 0:
        return nobody, nobody
    j = np.concatenate([np.asarray(v, np.int64) for v in near])
    distance = np.hypot(*(predicted[i] - truth[j]).T)
    nodes = len(predicted) + len(truth)
    _, label = connected_components(coo_matrix((np.ones(len(i)), (i, j + len(predicted))), (nodes, nodes)), directed=False)
    order = np.argsort(label[i], kind="stable")
    cuts = np.flatnonzero(np.diff(label[i][order])) + 1
    left, right = [], []
    for edges in np.split(order, cuts):
        if len(edges) == 1:
            left.append(i[edges])
            right.append(j[edges])
            continue
        a, b = _assign(i[edges], j[edges], distance[edges], radius_px)
        left.append(a)
        right.append(b)
    first, second = np.concatenate(left), np.concatenate(right)
    sorted_ = np.argsort(first, kind="stable")
    return first[sorted_].astype(np.int64), second[sorted_].astype(np.int64)


def _assign(i: IntArray, j: IntArray, distance: FloatArray, radius: float) -> tuple[IntArray, IntArray]:
    """One component: a forbidden pair costs more than all allowed ones together, so the number of pairs comes first."""
    rows, row = np.unique(i, return_inverse=True)
    cols, col = np.unique(j, return_inverse=True)
    forbidden = (min(len(rows), len(cols)) + 1.0) * max(radius, 1e-9) * 2.0
    cost = np.full((len(rows), len(cols)), forbidden)
    cost[row, col] = distance
    a, b = linear_sum_assignment(cost)
    allowed = cost[a, b] < forbidden
    return rows[a[allowed]], cols[b[allowed]]


def count(predicted: FloatArray, truth: FloatArray, radius_px: float) -> Counts:
    """TP, FP and FN at a radius."""
    pairs = len(match(predicted, truth, radius_px)[0])
    return Counts(pairs, len(predicted) - pairs, len(truth) - pairs)


def without_dont_care(predicted: FloatArray, truth: FloatArray, dont_care: FloatArray, radius_px: float) -> FloatArray:
    """Predictions without those that fall on a don't-care point and on no real target."""
    if not len(dont_care) or not len(predicted):
        return predicted
    near = cKDTree(dont_care).query(predicted)[0] <= radius_px
    near[match(predicted, truth, radius_px)[0]] = False
    return np.asarray(predicted[~near])


def chance(predicted: FloatArray, truth: FloatArray, spacing_px: float, radius_px: float, seed: int = 0) -> float:
    """Mean F1 of the same predictions shifted by 20 random vectors of length 0.3 to 0.7 d."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, CHANCE_SHIFTS)
    length = rng.uniform(0.3, 0.7, CHANCE_SHIFTS) * spacing_px
    shifts = np.stack([np.sin(angle), np.cos(angle)], 1) * length[:, None]
    return float(np.mean([count(predicted + shift, truth, radius_px).f1 for shift in shifts]))


def skill(f1: float, chance_f1: float) -> float:
    """(F1 - chance) / (1 - chance): 0 for luck, 1 for all; NaN where chance leaves no room."""
    return (f1 - chance_f1) / (1.0 - chance_f1) if chance_f1 < 1.0 else NAN


def chamfer(predicted: FloatArray, truth: FloatArray) -> float:
    """Mean distance prediction to truth plus mean distance truth to prediction; NaN when a set is empty."""
    if len(predicted) == 0 or len(truth) == 0:
        return NAN
    return float(cKDTree(truth).query(predicted)[0].mean() + cKDTree(predicted).query(truth)[0].mean())


@dataclass(frozen=True, slots=True)
class Localisation:
    """Position errors (prediction minus truth) of matched pairs, in px; NaN without pairs.

    `bias_xy`, `rmse_xy` and `mad_xy` (1.4826 x median absolute deviation) are per axis, `rmse` the mean over both axes
    (root of the mean square per coordinate), `p95` the 95th percentile of the distance.
    """

    pairs: int = 0
    bias_xy: tuple[float, float] = (NAN, NAN)
    rmse_xy: tuple[float, float] = (NAN, NAN)
    mad_xy: tuple[float, float] = (NAN, NAN)
    rmse: float = NAN
    p95: float = NAN


def localisation(predicted: FloatArray, truth: FloatArray, radius_px: float) -> Localisation:
    """Errors of the pairs within a radius, usually 0.25 d."""
    i, j = match(predicted, truth, radius_px)
    if not len(i):
        return Localisation()
    xy = (predicted[i] - truth[j])[:, ::-1]
    bias, square = xy.mean(0), np.sqrt(np.mean(xy**2, 0))
    mad = 1.4826 * np.median(np.abs(xy - np.median(xy, 0)), 0)
    radial = np.hypot(xy[:, 0], xy[:, 1])

    def pair(v: FloatArray) -> tuple[float, float]:
        return float(v[0]), float(v[1])

    rmse = sqrt(float(np.mean(xy**2)))
    return Localisation(len(i), pair(bias), pair(square), pair(mad), rmse, float(np.percentile(radial, 95)))


@dataclass(frozen=True, slots=True)
class ThesisScore:
    """The thesis's own numbers: mutual nearest neighbours at any distance; for comparison, never the headline."""

    f1: float
    jaccard: float
    jaccard_as_coded: float
    cd: float


def thesis_score(predicted: FloatArray, truth: FloatArray) -> ThesisScore:
    """Score by mutual nearest neighbours without a distance limit.

    `jaccard_as_coded` repeats the published program's slip (predictions counted twice, truth not at all).
    """
    n, m = len(predicted), len(truth)
    if n == 0 or m == 0:
        both = float(n == m)
        return ThesisScore(both, both, both, NAN)
    to_truth = cKDTree(truth).query(predicted)[1]
    to_predicted = cKDTree(predicted).query(truth)[1]
    mutual = int(np.count_nonzero(to_predicted[to_truth] == np.arange(n)))
    return ThesisScore(2 * mutual / (n + m), mutual / (n + m - mutual), mutual / (2 * n - mutual), chamfer(predicted, truth))


def efficiency(jaccard: float, rmse_pm: float) -> float:
    """Detection and localisation in one number, 1 - sqrt((1 - J)^2 + (RMSE / 100 pm)^2)."""
    return 1.0 - sqrt((1.0 - jaccard) ** 2 + (rmse_pm / 100.0) ** 2)


def false_fill(predicted: FloatArray, vacancies: FloatArray, spacing_px: float) -> float:
    """Fraction of true vacancies with a prediction within 0.35 d; NaN without vacancies."""
    if len(vacancies) == 0:
        return NAN
    if len(predicted) == 0:
        return 0.0
    return float(np.mean(cKDTree(predicted).query(vacancies)[0] <= 0.35 * spacing_px))


def false_per_mpx(false: int, area_px: float) -> float:
    """False columns per million pixels."""
    return false / area_px * 1e6 if area_px > 0 else NAN
