"""Gaps: lattice sites whose column is missing, as evidence for which lattice vector a frame has moved by.

Vacancies always sit where the neighbours say a column should be, and are as deep as that column is high. Knowing place and
depth beforehand, a vacancy too faint to be told from noise by itself still counts for what it is worth: the evidence of a
candidate is the joint likelihood of reference and frame against that of the frame alone, summed over sites.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from atomid_live.drift.overlap import Image, local_extremes
from atomid_live.types import FloatArray

RATE = 0.01
LEAST_RATE, MOST_RATE = 1e-3, 0.05
ROUNDS = 3
MOST_CHANCE = 0.98
CHANCE_OVER_RATE = 3.0
MOST_SITES = 240
MOST_MAXIMA = 12000
LEAST_SITES = 60
BRIGHT_SHARE = 0.45
DEPTH_SHARE = 0.95
LOW_QUANTILE = 0.1
NEIGHBOURS = 6
MOST_LOG = 40.0
MAD = 1.4826


@dataclass(frozen=True, slots=True, eq=False)
class Gaps:
    """Sites that may be empty.

    Attributes
    ----------
    yx : ndarray, shape (N, 2), float64
        In pixels of the working image, in the reference.
    depth : ndarray, shape (N,), float64
        How much darker than its neighbours an empty site is.
    chance : ndarray, shape (N,), float64
        Probability that the site is empty, from the reference.
    rate : float
        Share of all sites that are empty.
    """

    yx: FloatArray = field(default_factory=lambda: np.empty((0, 2)), repr=False)
    depth: FloatArray = field(default_factory=lambda: np.empty(0), repr=False)
    chance: FloatArray = field(default_factory=lambda: np.empty(0), repr=False)
    rate: float = RATE

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self.yx)


def _log_ratio(depth: FloatArray, z: FloatArray) -> FloatArray:
    """Logarithm of the likelihood of a residual of -z noise units where an empty site shows `depth` of them."""
    return np.asarray(np.clip(-depth * z - 0.5 * depth**2, -MOST_LOG, MOST_LOG), float)


def _shrunk(height: FloatArray, noise_variance: FloatArray) -> FloatArray:
    """Heights drawn to their median as far as their scatter is noise (James and Stein)."""
    middle = float(np.median(height))
    scatter = (MAD * float(np.median(np.abs(height - middle)))) ** 2
    real = np.clip(1 - noise_variance / max(scatter, 1e-12), 0, 1)
    return np.asarray(middle + real * (height - middle), float)


def find_gaps(mean: Image, residual: Image, count: Image) -> Gaps:
    """Sites that may be empty.

    Parameters
    ----------
    mean : ndarray, shape (rows, cols), float32
        Reference, the mean of `count` frames, with columns bright.
    residual : ndarray, shape (rows, cols), float32
        Mean minus the mean of its lattice translates; 0 where that is unknown.
    """
    expected = np.where(residual != 0, mean - residual, np.float32(0))
    places = local_extremes(expected, np.float32(0), MOST_MAXIMA)
    height = expected[places[:, 0], places[:, 1]].astype(float)
    places, height = places[height > 0], height[height > 0]
    if len(places) < LEAST_SITES:
        return Gaps()
    bright = height > BRIGHT_SHARE * float(np.quantile(height, 0.75))
    places, height = places[bright], height[bright]
    frames = count[places[:, 0], places[:, 1]].astype(float)
    seen = residual[places[:, 0], places[:, 1]].astype(float) * np.sqrt(frames)
    middle = float(np.median(seen))
    noise = MAD * float(np.median(np.abs(seen - middle)))
    if len(places) < LEAST_SITES or not noise > 0:
        return Gaps()
    trough = float(np.quantile(mean[residual != 0][::11], LOW_QUANTILE))
    depth = DEPTH_SHARE * (_shrunk(height, noise**2 / NEIGHBOURS / frames) - trough)
    ratio = _log_ratio(depth * np.sqrt(frames) / noise, (seen - middle) / noise)
    rate, chance = RATE, np.zeros(len(places))
    for _ in range(ROUNDS):
        odds = rate / (1 - rate) * np.exp(ratio)
        chance = odds / (1 + odds)
        rate = min(max(float(chance.mean()), LEAST_RATE), MOST_RATE)
    order = np.argsort(-chance, kind="stable")[:MOST_SITES]
    order = order[chance[order] > CHANCE_OVER_RATE * rate]
    return Gaps(places[order].astype(float), depth[order], np.minimum(chance[order], MOST_CHANCE), rate)


def gap_nats(gaps: Gaps, difference: FloatArray) -> tuple[FloatArray, float]:
    """Evidence of each candidate, in nats, against "anywhere else on the lattice"; and how much the right one may hope for.

    Parameters
    ----------
    difference : ndarray, shape (N, C), float64
        The frame at each site for each candidate, minus its lattice neighbours; NaN where that is unknown.
    """
    seen = np.isfinite(difference)
    known = difference[seen]
    if not len(known):
        return np.zeros(difference.shape[1]), 0.0
    middle = float(np.median(known))
    noise = MAD * float(np.median(np.abs(known - middle)))
    if not noise > 0:
        return np.zeros(difference.shape[1]), 0.0
    z = np.where(seen, difference - middle, 0.0) / noise
    depth = gaps.depth[:, None] / noise
    found = _site_nats(gaps, _log_ratio(depth, z))
    hoped = _site_nats(gaps, _log_ratio(depth, -depth))[:, 0] * gaps.chance * seen.mean(axis=1)
    return np.asarray((found * seen).sum(axis=0), float), float(hoped.sum())


def _site_nats(gaps: Gaps, log_ratio: FloatArray) -> FloatArray:
    like = np.expm1(log_ratio)
    return np.asarray(np.log1p(gaps.chance[:, None] * like) - np.log1p(gaps.rate * like), float)
