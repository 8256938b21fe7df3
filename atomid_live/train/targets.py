"""What the network is asked for: a Gaussian on every visible column, and silence about those at the limit of visibility.

A column counts by its detectability d' = A sqrt(pi) sigma / noise: a matched filter's signal over noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Points = NDArray[np.float64]

TARGET_SIGMA_PX = 2.0
VISIBLE_MAIN = 1.8
VISIBLE = 2.5
IGNORED = 1.6
MAIN_WEIGHT = 0.6
MERGED_SIGMAS = 1.9
RESOLVED_SIGMAS = 2.4
SWALLOWED_SIGMAS = 2.6


@dataclass(frozen=True, slots=True)
class Labels:
    """Centres (N, 2) that are asked for and centres (M, 2) about which nothing is asked, in the same pixels."""

    wanted: Points
    ignored: Points


def hidden(ratio: Points, apart: Points) -> NDArray[np.bool_]:
    """Whether a column of height `ratio` (<= 1) of its neighbour's has no maximum of its own at distance `apart` sigmas.

    A maximum exists if anywhere between the two the slope of the fainter outweighs that of the brighter.
    """
    x = np.array([0.3, 0.5, 0.7, 0.9, 1.1, 1.3])
    own = ratio[:, None] * x * np.exp(-0.5 * x**2)
    rest = apart[:, None] - x
    other = rest * np.exp(-0.5 * rest**2)
    lead = np.where(x < 0.5 * apart[:, None], own - other, -1.0)
    return np.asarray(lead.max(1) <= 0)


def label_columns(
    yx: Points, height: Points, noise: Points, sigma_px: float, sparse: bool = False, shaded: bool = False
) -> Labels:
    """Sort columns into wanted, ignored and invisible.

    Parameters
    ----------
    yx, height, noise : ndarray, shapes (N, 2), (N,), (N,)
        Centres, peak heights and standard deviation of the noise of one pixel there, in the units of the height.
    sigma_px : float
        Width of a column in the same pixels.
    sparse : bool
        No lattice, hence no kind of column that a lattice helps to see.
    shaded : bool
        Ask also for columns whose brighter neighbours, 2.6 sigma and more away, leave them no maximum of their own.

    Notes
    -----
    The brightest kind (60 % of the crop's 90th percentile and more) is wanted from d' = 1.8, because a lattice helps the eye;
    others from 2.5. Up to 0.6 and 0.9 below that they are ignored: wider bands taught a network to fire freely in them.
    Pairs within 1.9 sigma are one column at their centre of mass; to 2.4 sigma they are ignored; a fainter column without
    a maximum of its own is ignored.
    """
    if len(yx) == 0:
        return Labels(np.empty((0, 2)), np.empty((0, 2)))
    detectable = height * math.sqrt(math.pi) * sigma_px / noise
    main = (height >= MAIN_WEIGHT * np.quantile(height, 0.9)) & (not sparse)
    seen = detectable >= np.where(main, VISIBLE_MAIN, VISIBLE)
    vague = ~seen & (detectable >= np.where(main, 1.2, IGNORED))
    centre, dead = yx.copy(), np.zeros(len(yx), bool)
    pairs = cKDTree(yx).query_pairs(3.6 * sigma_px, output_type="ndarray")
    if len(pairs):
        bright = np.where(height[pairs[:, 0]] >= height[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
        faint = pairs.sum(1) - bright
        apart = np.hypot(*(yx[bright] - yx[faint]).T) / sigma_px
        ratio = height[faint] / np.maximum(height[bright], 1e-12)
        counts = detectable[faint] >= 1.0
        merged = (apart < MERGED_SIGMAS) & counts
        for i, j in zip(bright[merged], faint[merged], strict=True):
            if not dead[i] and not dead[j]:
                centre[i] = (height[i] * centre[i] + height[j] * yx[j]) / (height[i] + height[j])
                dead[j] = True
        alone = (apart >= SWALLOWED_SIGMAS) if shaded else np.zeros(len(apart), np.bool_)
        unclear = counts & ~merged & ((apart < RESOLVED_SIGMAS) | (hidden(ratio, apart) & ~alone))
        vague[faint[unclear]] |= seen[faint[unclear]]
        near = unclear & (apart < RESOLVED_SIGMAS) & (ratio > 0.5)
        vague[bright[near]] |= seen[bright[near]]
    wanted = seen & ~vague & ~dead
    return Labels(centre[wanted], centre[vague & ~dead])


@njit(nogil=True, cache=True)
def draw_maps(
    wanted: Points, ignored: Points, shape: tuple[int, int], stride: int, reach_ignored: float, sigma: float = TARGET_SIGMA_PX
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the target map and the weight of each of its pixels, both of shape `shape`.

    Map pixel i lies at input pixel ``stride * i + (stride - 1) / 2``. The target is the maximum over columns of
    ``exp(-r^2 / 2 sigma^2)``, r in input pixels; the weight is 0 within `reach_ignored` of an ignored centre unless a wanted
    one is nearer.
    """
    rows, cols = shape
    heat = np.zeros((rows, cols), np.float32)
    weight = np.ones((rows, cols), np.float32)
    offset = 0.5 * (stride - 1)
    reach = 3.2 * sigma
    for n in range(len(wanted)):
        y, x = (wanted[n, 0] - offset) / stride, (wanted[n, 1] - offset) / stride
        span = int(reach / stride) + 1
        for r in range(max(0, int(y) - span), min(rows, int(y) + span + 2)):
            for c in range(max(0, int(x) - span), min(cols, int(x) + span + 2)):
                square = ((r - y) ** 2 + (c - x) ** 2) * stride * stride
                value = math.exp(-0.5 * square / sigma**2)
                heat[r, c] = max(heat[r, c], value)
    for n in range(len(ignored)):
        y, x = (ignored[n, 0] - offset) / stride, (ignored[n, 1] - offset) / stride
        span = int(reach_ignored / stride) + 1
        for r in range(max(0, int(y) - span), min(rows, int(y) + span + 2)):
            for c in range(max(0, int(x) - span), min(cols, int(x) + span + 2)):
                square = ((r - y) ** 2 + (c - x) ** 2) * stride * stride
                if square <= reach_ignored**2 and heat[r, c] < 0.4:
                    weight[r, c] = 0.0
    return heat, weight


def mean_spacing(points: Points) -> float:
    """Mean nearest-neighbour distance (Eq. 4 of the thesis); NaN under six points, which is not yet a spacing."""
    if len(points) < 6:
        return math.nan
    distance, _ = cKDTree(points).query(points, k=2)
    return float(distance[:, 1].mean())
