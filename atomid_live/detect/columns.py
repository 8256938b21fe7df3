"""From candidates to the columns of a frame: the one place where both detectors refine, merge, flag and order."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from atomid_live.detect.near import nearest_px
from atomid_live.detect.normalise import Prepared
from atomid_live.detect.refine import Refined, refine
from atomid_live.flags import Flag
from atomid_live.types import NAN, Detections, FloatArray, IntArray

CROWDED_SIGMA = 3.0
MERGED_SIGMA = 1.3
TYPICAL_SIGMA = 5.5


def _neighbours(yx: FloatArray, typical_px: float) -> FloatArray:
    """Distance of each column to its nearest neighbour; infinity for a single one."""
    return nearest_px(yx, typical_px)


def _unmerged(yx: FloatArray, score: FloatArray, nearest: FloatArray, least_px: float) -> NDArray[np.bool_]:
    """Which columns stay when of two that ended on one place only the better scored is kept."""
    keep = np.ones(len(yx), np.bool_)
    close = np.flatnonzero(nearest < least_px)
    if not len(close):
        return keep
    pairs = cKDTree(yx[close]).query_pairs(least_px, output_type="ndarray")
    first, second = close[pairs[:, 0]], close[pairs[:, 1]]
    for a, b in sorted(zip(first, second, strict=True), key=lambda p: -max(score[p[0]], score[p[1]])):
        if keep[a] and keep[b]:
            keep[b if (score[a], -a) >= (score[b], -b) else a] = False
    return keep


def _clipped(prepared: Prepared, yx: FloatArray, sigma_px: float) -> NDArray[np.bool_]:
    """Whether a pixel within one width of the column is at the limit."""
    if not np.isfinite(prepared.ceiling) or not len(yx):
        return np.zeros(len(yx), np.bool_)
    full = prepared.image >= prepared.ceiling
    rows, cols = full.shape
    y = np.clip(np.rint(yx[:, 0]).astype(np.int64), 0, rows - 1)
    x = np.clip(np.rint(yx[:, 1]).astype(np.int64), 0, cols - 1)
    half = max(1, round(sigma_px * 0.7))
    if len(yx) * (2 * half + 1) ** 2 > full.size:
        return np.asarray(maximum_filter(full, 2 * half + 1)[y, x])
    step = np.arange(-half, half + 1)
    around = full[np.clip(y[:, None, None] + step[:, None], 0, rows - 1), np.clip(x[:, None, None] + step, 0, cols - 1)]
    return np.asarray(around.any((1, 2)))


def _flags(refined: Refined, prepared: Prepared, nearest: FloatArray) -> IntArray:
    sigma = refined.column_sigma_px
    flags = np.zeros(len(nearest), np.int64)
    for bit, where in (
        (Flag.EDGE, refined.at_edge),
        (Flag.FIT_FAILED, refined.failed),
        (Flag.CLIPPED, _clipped(prepared, refined.yx_px, sigma)),
        (Flag.CROWDED, nearest < CROWDED_SIGMA * sigma),
    ):
        flags[where] |= int(bit)
    return flags


def _reading_order(yx: FloatArray) -> IntArray:
    """Order by (y, x)."""
    order = np.argsort(yx[:, 0], kind="stable")
    y = yx[order, 0]
    return np.lexsort((yx[:, 1], yx[:, 0])) if (y[1:] == y[:-1]).any() else order


def _odd(spacing_px: float, plane_px: float) -> bool:
    """Nearest neighbours are 0.6 (honeycomb) to 1.2 (hexagonal) plane distances apart; twice that leaves room for bases."""
    return bool(np.isfinite(plane_px) and np.isfinite(spacing_px) and not 0.35 < spacing_px / plane_px < 2.0)


def collect(
    prepared: Prepared,
    yx_px: FloatArray,
    score: FloatArray,
    column_sigma_px: float,
    *,
    least_px: float | None = None,
    plane_px: float = NAN,
    faintest_part: float = 0.0,
    fit_width: bool = True,
    first: FloatArray | None = None,
    mode: Literal["full", "fast"] = "full",
) -> Detections:
    """Refine candidates on the raw pixels and put the frame's answer together.

    Parameters
    ----------
    prepared : Prepared
        Full-resolution frame with bright columns.
    yx_px : ndarray, shape (N, 2), float64
        Candidates in pixels of the frame.
    score : ndarray, shape (N,), float64
        0 to 1.
    column_sigma_px : float
        Width of a column in pixels of the frame.
    least_px : float or None
        Two columns that end closer than this are one; default 1.3 widths.
    plane_px : float
        Plane distance seen in the spectrum, for SPACING_ODD.
    faintest_part : float
        A candidate whose height on the raw pixels is under this part of the median height is none: local contrast shows
        the noise of a hole as large as columns.
    fit_width : bool
        Improve the width on all columns together; in noisy frames it would shrink towards the noise that was picked.
    first : ndarray, shape (N, 3), float64, or None
        y, x and height of a quick fit of the candidates, if there was one.
    mode : str
        "full" fits among the neighbours, "fast" by one step each, neighbours and all.

    Returns
    -------
    Detections
        Ordered by (y, x).
    """
    if len(yx_px) == 0:
        return Detections.empty(int(Flag.EMPTY) | prepared.frame_flags, column_sigma_px)
    refined = refine(prepared.image, yx_px, column_sigma_px, fit_width=fit_width, first=first, subtract=mode == "full")
    return assemble(prepared, refined, score, least_px=least_px, plane_px=plane_px, faintest_part=faintest_part)


def assemble(
    prepared: Prepared,
    refined: Refined,
    score: FloatArray,
    *,
    least_px: float | None = None,
    plane_px: float = NAN,
    faintest_part: float = 0.0,
) -> Detections:
    """Put the frame's answer together from fitted columns and their scores; see `collect` for the rest."""
    if not len(score):
        return Detections.empty(int(Flag.EMPTY) | prepared.frame_flags, refined.column_sigma_px)
    sigma = refined.column_sigma_px
    yx = refined.yx_px
    nearest = _neighbours(yx, TYPICAL_SIGMA * sigma)
    keep = _unmerged(yx, score, nearest, MERGED_SIGMA * sigma if least_px is None else least_px)
    # a peak on the border whose column lies beyond it is no column of this frame
    keep &= ~refined.outside
    keep &= ~(refined.amplitude < faintest_part * np.median(refined.amplitude))
    order = np.flatnonzero(keep)[_reading_order(yx[keep])]
    picked = refined.take(order)
    nearest = nearest[order] if keep.all() else _neighbours(picked.yx_px, TYPICAL_SIGMA * sigma)
    spacing = float(nearest.mean()) if len(nearest) > 1 else NAN
    frame_flags = prepared.frame_flags | (int(Flag.SPACING_ODD) if _odd(spacing, plane_px) else 0)
    flags = _flags(picked, prepared, nearest)
    return Detections(
        picked.yx_px, np.asarray(score)[order], picked.sigma_yx_px, picked.amplitude, flags, spacing, sigma, frame_flags
    )
