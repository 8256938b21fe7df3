"""Landmarks: what in the reference does not repeat with the lattice, and how well each candidate shift explains it in a frame.

On a crystal every lattice vector gives the same correlation; only vacancies, dopants, adatoms, edges and dirt tell them
apart. A landmark is a local extreme of the reference minus its lattice neighbours. For a candidate shift the frame is read
at the landmark's place, minus its own lattice neighbours, and compared with the landmark's expected height: the sum of
log-likelihood ratios against "nothing there" is the evidence, in nats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from atomid_live.drift.gaps import Gaps, find_gaps, gap_nats
from atomid_live.drift.overlap import (
    Image,
    lattice_residual,
    local_extremes,
    sample_cells,
    sharpness_map,
    slope_samples,
    star_residual,
)
from atomid_live.drift.periods import Periods

FloatArray = NDArray[np.float64]

LEAST_Z = 2.3
SAMPLE_STRIDE = 3
LEAST_SAMPLES = 200
MOST_LANDMARKS = 240
MOST_AT_FIRST = 700
FEW_FRAMES = 3.0
MOST_EXTREMES = 4000
RARE = 0.01
SPREAD_Z = 4.0
MOST_HEIGHT = 3.5
MOST_EXCESS = 1.5
LEAST_REAL = 1e-3
MOST_REAL = 0.9999
FORGET = 0.9
LEAST_NOISE = 0.6
CONVINCING_NATS = 12.0
PATCH_CELLS = 0.7
SAME_CELLS = 0.35
PATCH_WITHOUT_CELL = 8.0
MAD = 1.4826


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks:
    """Places that do not repeat.

    Attributes
    ----------
    yx : ndarray, shape (N, 2), float64
        In pixels of the working image, in the reference.
    height : ndarray, shape (N,), float64
        Expected difference to the lattice neighbours, shrunk by the chance that it is noise.
    gaps : Gaps
        Sites that may be empty; they are no landmarks besides.
    """

    yx: FloatArray = field(default_factory=lambda: np.empty((0, 2)), repr=False)
    height: FloatArray = field(default_factory=lambda: np.empty(0), repr=False)
    gaps: Gaps = field(default_factory=Gaps, repr=False)

    def __len__(self) -> int:
        """Return the number of landmarks."""
        return len(self.yx)


@dataclass(frozen=True, slots=True)
class Trust:
    """How far the landmarks have proved real.

    Attributes
    ----------
    share, spread : float
        Part of their expected height that sure frames showed, mean and spread.
    real : float
        Probability that they are more than noise. It begins low: a perfect crystal has landmarks too, all of them noise, and
        the luckiest of many candidates must not be believed.
    """

    share: float = 0.5
    spread: float = 0.4
    real: float = LEAST_REAL

    def learned(self, seen: float, nats: float) -> Trust:
        """Trust after a sure frame that showed this share of the expected heights and this much evidence."""
        odds = FORGET * math.log(self.real / (1 - self.real)) + nats
        real = min(max(1 / (1 + math.exp(-min(max(odds, -30.0), 30.0))), LEAST_REAL), MOST_REAL)
        if nats < CONVINCING_NATS:
            return replace(self, real=real)
        seen = min(max(seen, 0.0), 1.3)
        spread = max(0.8 * self.spread, 0.12, 0.5 * abs(seen - self.share))
        return Trust(0.8 * self.share + 0.2 * seen, spread, real)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Log-likelihood ratio of candidate shifts against "none of them".

    Attributes
    ----------
    shift_yx : ndarray, shape (C, 2), float64
        Candidates, in pixels of the working image.
    nats : ndarray, shape (C,), float64
        Natural logarithm of the likelihood ratio.
    share : ndarray, shape (C,), float64
        Part of the expected heights found at each candidate.
    weight : float
        Squared expected heights in units of the noise: the evidence that could be had, twice over.
    hoped_nats : float
        Evidence that the gaps would give the right candidate.
    """

    shift_yx: FloatArray
    nats: FloatArray
    share: FloatArray
    weight: float
    hoped_nats: float = 0.0

    @classmethod
    def none_for(cls, shifts: FloatArray) -> Evidence:
        """Return the answer without landmarks."""
        return cls(shifts, np.zeros(len(shifts)), np.zeros(len(shifts)), 0.0)

    def plus(self, nats: FloatArray) -> Evidence:
        """Add independent evidence."""
        return replace(self, nats=self.nats + nats)

    def with_unknown(self, places: FloatArray) -> Evidence:
        """Add places of which nothing is known."""
        blank = np.zeros(len(places))
        shifts, nats, share = np.vstack([self.shift_yx, places]), np.append(self.nats, blank), np.append(self.share, blank)
        return replace(self, shift_yx=shifts, nats=nats, share=share)


def _robust_sigma(values: FloatArray) -> float:
    return MAD * float(np.median(np.abs(values - np.median(values)))) if len(values) else math.nan


def shrink(z: FloatArray) -> FloatArray:
    """Posterior mean of a rare Gaussian signal in unit noise (spike and slab)."""
    gain = SPREAD_Z**2 / (1 + SPREAD_Z**2)
    log_odds = math.log(RARE / (1 - RARE)) - 0.5 * math.log1p(SPREAD_Z**2) + 0.5 * gain * np.minimum(z**2, 1400)
    return np.asarray(z * gain / (1 + np.exp(-log_odds)), float)


def find_landmarks(mean: Image, count: Image, periods: Periods | None) -> Landmarks:
    """Landmarks of a reference; without a lattice its own extremes."""
    *_, found = search_landmarks(mean, count, periods)
    return found or Landmarks()


def search_landmarks(mean: Image, count: Image, periods: Periods | None) -> Iterator[Landmarks | None]:
    """Like `find_landmarks` in four steps of like length, the last of which yields them."""
    most = MOST_AT_FIRST if float(count.mean()) < FEW_FRAMES else MOST_LANDMARKS
    if periods is None:
        yield _extremes_of(mean, mean, np.sqrt(count).astype(np.float32), None, most)
        return
    star = periods.star()
    # noise of the mean falls with the number of frames, so heights times sqrt(count) compare places of different age
    residual = lattice_residual(mean, star)
    yield None
    sharpness = sharpness_map(mean, residual, count, _flank_noise(mean, residual, count))
    yield None
    found = _extremes_of(residual, mean, sharpness, star, most)
    yield None
    yield _apart_from(found, find_gaps(mean, residual, count), periods.shortest)


def _apart_from(found: Landmarks, gaps: Gaps, cell_px: float) -> Landmarks:
    """Join landmarks and gaps, without the landmarks that are the same vacancies."""
    if not len(gaps) or not len(found):
        return replace(found, gaps=gaps)
    near = np.abs(found.yx[:, None, :] - gaps.yx[None, :, :]).max(axis=2).min(axis=1) < SAME_CELLS * cell_px
    other = ~near | (found.height > 0)
    return Landmarks(found.yx[other], found.height[other], gaps)


def _flank_noise(mean: Image, residual: Image, count: Image) -> float:
    """How much scan jitter adds on the flanks of columns to the shot noise everywhere, per squared slope.

    variance = c0 (1 + answer * slope^2), from the median residual on flat and on steep pixels.
    """
    steep, size = slope_samples(mean, residual, count, SAMPLE_STRIDE)
    if len(size) < LEAST_SAMPLES:
        return 0.0
    low, high = np.quantile(steep, (0.3, 0.8))
    flat, flank = steep <= low, steep >= high
    base = float(np.median(size[flat])) ** 2
    rise = (float(np.median(size[flank])) ** 2 - base) / max(float(steep[flank].mean() - steep[flat].mean()), 1e-12)
    return max(rise, 0.0) / max(base, 1e-12)


def _extremes_of(residual: Image, mean: Image, sharpness: Image, star: FloatArray | None, most: int) -> Landmarks:
    """Strongest extremes of the residual, whose noise is 1 / sharpness up to a common factor."""
    z_map = residual * sharpness
    apart = PATCH_CELLS * float(np.hypot(*star.T).min()) if star is not None else PATCH_WITHOUT_CELL
    noise = _robust_sigma(z_map[z_map != 0][::7].astype(float))
    if not noise > 0:
        return Landmarks()
    places = local_extremes(z_map, np.float32(LEAST_Z * noise), MOST_EXTREMES)
    if star is not None:
        height = star_residual(mean, places, star)
        places, height = places[height != 0], height[height != 0]
    else:
        height = residual[places[:, 0], places[:, 1]].astype(float)
    if not len(places):
        return Landmarks()
    z = height * sharpness[places[:, 0], places[:, 1]] / noise
    height = shrink(z) * (height / z)
    order = np.argsort(-np.abs(shrink(z)), kind="stable")
    strongest = order[_one_per_patch(places[order], apart)][:most]
    return Landmarks(places[strongest].astype(float), height[strongest])


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What is asked of the landmarks: an image, the reach in lattice vectors around a fine shift, and the trust in them."""

    image: Image = field(repr=False)
    trust: Trust
    reach: int = 3


def _one_per_patch(places: NDArray[np.int64], apart: float) -> NDArray[np.int64]:
    """Indices of the first place in each square patch, in order: one bright atom must not count as many landmarks."""
    patch = np.floor(places / apart).astype(np.int64)
    _, first = np.unique(patch[:, 0] * 100003 + patch[:, 1], return_index=True)
    return np.sort(first)


def lattice_evidence(landmarks: Landmarks, query: Query, fine_yx: tuple[float, float], periods: Periods) -> Evidence:
    """Evidence for the shifts fine + i a + j b with |i|, |j| <= reach."""
    reach = query.reach
    steps = np.arange(-reach, reach + 1)
    multiples = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    shifts = np.asarray(fine_yx) + multiples @ periods.matrix
    evidence = Evidence.none_for(shifts)
    if len(landmarks):
        difference = _differences(landmarks.yx, query, fine_yx, periods)
        evidence = _evidence(shifts, difference, landmarks.height, query.trust)
    if len(landmarks.gaps):
        nats, hoped = gap_nats(landmarks.gaps, _differences(landmarks.gaps.yx, query, fine_yx, periods))
        evidence = replace(evidence.plus(nats), hoped_nats=hoped)
    return evidence


def _differences(yx: FloatArray, query: Query, fine_yx: tuple[float, float], periods: Periods) -> FloatArray:
    """The image at each place moved by each candidate, minus its six lattice neighbours; shape (N, candidates)."""
    reach, third = query.reach, periods.third
    a, b = periods.matrix
    values = sample_cells(query.image, yx + np.asarray(fine_yx), a, b, reach + 1)
    size = 2 * reach + 1

    def moved(i: int, j: int) -> FloatArray:
        part: FloatArray = values[:, 1 + i : 1 + i + size, 1 + j : 1 + j + size]
        return part

    around = moved(1, 0) + moved(-1, 0) + moved(0, 1) + moved(0, -1) + moved(*third) + moved(-third[0], -third[1])
    return (moved(0, 0) - around / 6).reshape(len(yx), -1)


def free_evidence(landmarks: Landmarks, query: Query, shifts: FloatArray) -> Evidence:
    """Evidence for any shifts of an image without a lattice."""
    if not len(landmarks):
        return Evidence.none_for(shifts)
    nothing = np.zeros(2)
    columns = [sample_cells(query.image, landmarks.yx + shift, nothing, nothing, 0)[:, 0, 0] for shift in shifts]
    return _evidence(shifts, np.stack(columns, axis=1), landmarks.height, query.trust)


def _evidence(shifts: FloatArray, difference: FloatArray, height: FloatArray, trust: Trust) -> Evidence:
    """Gaussian evidence with an unknown share of the expected heights, integrated over its prior in closed form."""
    seen = np.isfinite(difference)
    known = difference[seen]
    noise = _robust_sigma(known[:: max(1, len(known) // 1500)])
    if not noise > 0:
        return Evidence.none_for(shifts)
    # a landmark on the flank of a column feels scan jitter, one between columns does not: each has its own noise, read where
    # the other candidates put it, all at the same place of the cell
    with np.errstate(invalid="ignore"):
        own = 1.2533 * np.where(seen, np.abs(difference), 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    noise_each = np.maximum(own, LEAST_NOISE * noise)[:, None]
    # one landmark that moved, vanished or appeared must not decide alone against all others
    expected = np.clip(height[:, None] / noise_each, -MOST_HEIGHT, MOST_HEIGHT)
    bound = np.abs(expected) + MOST_EXCESS
    found = np.clip(np.where(seen, difference, 0.0) / noise_each, -bound, bound)
    product = (expected * found).sum(axis=0)
    square = (expected**2 * seen).sum(axis=0)
    precision = 1 / trust.spread**2
    mean = (product + trust.share * precision) / (square + precision)
    nats = 0.5 * (square + precision) * mean**2 - 0.5 * precision * trust.share**2 - 0.5 * np.log1p(square / precision)
    share = product / np.maximum(square, 1e-9)
    nats = np.where(mean > 0, nats, -0.5 * np.log1p(square / precision))
    return Evidence(shifts, nats, share, float(square.max()))
