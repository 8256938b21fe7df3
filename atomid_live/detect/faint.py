"""A harder look for a lattice whose Bragg spots are too weak to stand out one by one.

Two spots that no line through the origin joins are judged together with their sum and difference: the improbability of each
over the noise around it, added up, against the number of pairs that chance could try. A lattice that is bent spreads its
spots, so the same is done with power summed over larger squares, which is what adding up the spectra of parts would do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import log

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.special import gammaincc

from atomid_live.types import FloatArray, IntArray

Image = NDArray[np.float32]

# samples a side over which power is summed
WIDTHS = (3, 5)
# samples next to the axes belong to scan lines, hum and the borders
AXIS = 3
LEAST_PLANES, SHORTEST_PLANE_PX, HIGHEST = 13.0, 3.7, 0.47
CANDIDATES, VERIFIED = 48, 6
# natural logarithms of probabilities: least of a candidate, most of a spot, and the price of the best of 3 x 3 places
LEAST, MOST, NEAR = 4.0, 40.0, 1.4
LEAST_ANGLE = np.deg2rad(25.0)
AROUND, INSIDE = 15, 7
# beside a strong spot nothing weaker is believed: within this distance, or under this part of its power
SHADE, SHADE_PART = 10, 0.004
SURE, SURE_BEYOND, SURE_SUM = 36.0, 17.0, 60.0
_EULER = 0.5772156649


@dataclass(frozen=True, slots=True, eq=False)
class FaintLattice:
    """The best two spots and what belongs to them.

    Attributes
    ----------
    spot_yx : ndarray, shape (M, 2)
        Frequency vectors in cycles per pixel of the samples that make up the spots: those of two, and of their sum and
        difference where seen.
    spot_power, spot_ratio : ndarray, shape (M,)
        Power there over the noise, and ratio to it.
    evidence : float
        Minus the natural logarithm of how probable they are in noise, less that of the pairs chance could try.
    beyond : float
        The same without the strongest: one line of spots may be mains hum or fringes.
    width : int
        Samples a side over which a spot is spread.
    """

    spot_yx: FloatArray = field(default_factory=lambda: np.empty((0, 2)), repr=False)
    spot_power: FloatArray = field(default_factory=lambda: np.empty(0), repr=False)
    spot_ratio: FloatArray = field(default_factory=lambda: np.empty(0), repr=False)
    evidence: float = -np.inf
    beyond: float = -np.inf
    width: int = WIDTHS[0]

    @property
    def margin(self) -> float:
        """By how much both numbers, and half their sum, exceed what they need."""
        return min(self.evidence - SURE, self.beyond - SURE_BEYOND, 0.5 * (self.evidence + self.beyond - SURE_SUM))

    @property
    def found(self) -> bool:
        """Whether chance is ruled out."""
        return self.margin > 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Plane:
    """Half of the frequency plane of frames of one shape."""

    window: Image
    ring: IntArray
    open_: NDArray[np.bool_]
    trials: float
    cols: int
    # samples in the order of their rings, and where each ring starts
    order: IntArray
    start: IntArray


@lru_cache(maxsize=8)
def _plane(rows: int, cols: int, side: int) -> _Plane:
    down, right = (np.sin(np.pi * (np.arange(n) + 0.5) / n) for n in (rows, cols))
    ky, kx = fft.fftfreq(rows)[:, None], fft.rfftfreq(cols)[None, :]
    radius = np.hypot(ky, kx)
    open_ = (np.abs(ky) * rows > AXIS) & (kx * cols > AXIS) & (radius * min(rows, cols) > LEAST_PLANES)
    open_ &= radius < min(side / SHORTEST_PLANE_PX, HIGHEST)
    ring = (radius * min(rows, cols) + 0.5).astype(np.int64)
    order = np.argsort(ring, axis=None, kind="stable")
    start = np.searchsorted(ring.ravel()[order], np.arange(ring.max() + 2))
    window = np.outer(down, right).astype(np.float32)
    return _Plane(window, ring, open_, float(np.count_nonzero(open_)), cols, order, start)


@lru_cache(maxsize=8)
def _samples(width: int) -> float:
    """Independent samples in a square of `width` samples of a sine-windowed power spectrum."""
    x = (np.arange(512) + 0.5) / 512
    lag = np.array([2.0 * abs(np.mean(np.sin(np.pi * x) ** 2 * np.exp(2j * np.pi * k * x))) for k in range(width)]) ** 2
    return float((width**2 / (width + 2.0 * np.sum(np.arange(width - 1, 0, -1) * lag[1:]))) ** 2)


def _improbability(ratio: FloatArray, width: int) -> FloatArray:
    """Minus the natural logarithm of the probability that noise reaches such a ratio to its mean, at most `MOST`."""
    n = _samples(width)
    chance = np.maximum(gammaincc(n, n * np.asarray(ratio, np.float64)), 1e-200)
    return np.asarray(np.minimum(-np.log(chance), MOST), np.float64)


@lru_cache(maxsize=8)
def _least_ratio(width: int) -> float:
    """Ratio to the noise that is as improbable as a candidate must be."""
    knots = np.linspace(1.0, 20.0, 2000)
    return float(np.interp(LEAST, _improbability(knots, width), knots))


def _around(logarithm: Image) -> Image:
    """Noise around every sample: geometric mean of a square without its middle, on the scale of a mean."""
    outer = cv2.blur(logarithm, (AROUND, AROUND), borderType=cv2.BORDER_REFLECT)
    inner = cv2.blur(logarithm, (INSIDE, INSIDE), borderType=cv2.BORDER_REFLECT)
    area, hole = AROUND**2, INSIDE**2
    return np.asarray(np.exp((area * outer - hole * inner) / (area - hole) + _EULER), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Power:
    """A power spectrum: logarithm, noise around each sample, and power summed over squares of one width."""

    plane: _Plane
    logarithm: Image
    noise: Image
    summed: Image
    near: Image
    width: int

    def read(self, values: Image, at: IntArray) -> FloatArray:
        """Values (of the half plane) at signed frequencies (..., 2); 0 where there is none or none may be."""
        down, right = np.where(at[..., 1] < 0, -at[..., 0], at[..., 0]), np.abs(at[..., 1])
        rows, cols = values.shape
        inside = (np.abs(down) < rows // 2) & (right < cols)
        down, right = np.where(inside, down, 0), np.where(inside, right, 0)
        return np.where(inside & self.plane.open_[down, right], values[down, right], 0.0).astype(np.float64)

    def spots(self, members: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Of the samples around members (N, 2): frequencies (M, 2), power over the noise (M,), ratio to the noise (M,)."""
        rows, cols = self.logarithm.shape
        step = np.arange(self.width) - self.width // 2
        square = np.stack(np.meshgrid(step, step, indexing="ij"), -1).reshape(-1, 2)
        at = np.unique((members[:, None] + square).reshape(-1, 2), axis=0)
        at = at[(at[:, 1] >= 0) & (at[:, 1] < cols)]
        ratio = (self.summed[at[:, 0], at[:, 1]] / self.noise[at[:, 0], at[:, 1]]).astype(np.float64)
        at, ratio = at[ratio > 1.0], ratio[ratio > 1.0]
        power = self.noise[at[:, 0], at[:, 1]] * (ratio - 1.0)
        return at / np.array([rows, self.plane.cols]), power, ratio

    def ring_noise(self, at: IntArray, members: IntArray) -> float:
        """Noise of the ring through a frequency (2,), from samples that belong to none of the members (M, 2)."""
        ring = int(self.plane.ring[at[0], at[1]])
        rows, cols = self.logarithm.shape
        down, right = np.divmod(self.plane.order[self.plane.start[ring - 1] : self.plane.start[ring + 2]], cols)
        signed = np.where(down > rows // 2, down - rows, down)
        free = np.ones(len(down), np.bool_)
        reach = self.width // 2 + 1
        for y, x in np.concatenate([members, -members]):
            free &= (np.abs(signed - y) > reach) | (np.abs(right - x) > reach)
        if free.sum() < 8:
            return np.inf
        return float(np.exp(self.logarithm[down[free], right[free]].mean() + _EULER))


def _signed(index: IntArray, rows: int) -> IntArray:
    return np.stack([np.where(index[:, 0] > rows // 2, index[:, 0] - rows, index[:, 0]), index[:, 1]], 1)


def _candidates(power: _Power, ratio: Image) -> IntArray:
    """Highest local maxima as signed frequencies (N, 2), none of them in the shade of a much stronger one."""
    kernel = np.ones((power.width + 2, power.width + 2), np.uint8)
    least = _least_ratio(power.width)
    top = np.stack(np.nonzero(power.plane.open_ & (ratio > least) & (ratio >= cv2.dilate(ratio, kernel))), 1)
    if not len(top):
        return top
    top = top[np.argsort(-ratio[top[:, 0], top[:, 1]], kind="stable")[: 2 * CANDIDATES]]
    height = power.summed[top[:, 0], top[:, 1]]
    signed = _signed(top, len(ratio))
    strong = int(np.argmax(height))
    apart = np.abs(signed - signed[strong]).max(1) > SHADE
    apart |= height > 0.3 * height[strong]
    return np.asarray(signed[apart & (height > SHADE_PART * height[strong])][:CANDIDATES])


def _pairs(top: IntArray) -> tuple[IntArray, IntArray]:
    i, j = np.triu_indices(len(top), 1)
    turn = np.abs(np.arctan2(top[i, 0], top[i, 1]) - np.arctan2(top[j, 0], top[j, 1]))
    apart = np.minimum(turn, np.pi - turn) > LEAST_ANGLE
    return i[apart], j[apart]


def _verified(power: _Power, first: IntArray, second: IntArray) -> FaintLattice:
    """Evidence of a pair over the greater of two noises: that around each spot, and that of its ring without the spots."""
    members = np.stack([first, second, first + second, first - second])
    ratio = power.read(power.summed, members)
    ratio[2:] = power.read(power.near, members[2:])
    half = np.where(members[:, 1:] < 0, -members, members)
    score = np.zeros(4)
    for n in np.flatnonzero(ratio > 0):
        noise = max(float(power.noise[half[n, 0], half[n, 1]]), power.ring_noise(half[n], members))
        score[n] = _improbability(np.asarray(ratio[n] / noise), power.width)
    score[2:] = np.maximum(score[2:] - NEAR, 0.0)
    trials = log(power.plane.trials / _samples(power.width))
    evidence = float(score.sum()) - 2.0 * trials + log(2.0)
    beyond = float(score.sum() - score.max()) - trials
    seen = score > (0.0, 0.0, LEAST, LEAST)
    return FaintLattice(*power.spots(half[seen]), evidence, beyond, power.width)


def _best(power: _Power) -> FaintLattice:
    ratio = power.summed / power.noise
    top = _candidates(power, ratio)
    i, j = _pairs(top)
    if not len(i):
        return FaintLattice(width=power.width)
    near = power.near / power.noise
    own = _improbability(power.read(ratio, top), power.width)
    total = own[i] + own[j]
    for third in (top[i] + top[j], top[i] - top[j]):
        total += np.maximum(_improbability(power.read(near, third), power.width) - NEAR, 0.0)
    order = np.argsort(-total, kind="stable")[:VERIFIED]
    most = float(total[order[0]]) - 2.0 * log(power.plane.trials / _samples(power.width)) + log(2.0)
    if most <= SURE:
        # the greater noise of the ring could only take from it
        return FaintLattice(evidence=most, width=power.width)
    return max((_verified(power, top[i[n]], top[j[n]]) for n in order), key=lambda one: one.margin)


def look_for_lattice(contrast: Image, side: int) -> FaintLattice:
    """Search an image for two faint Bragg spots.

    Parameters
    ----------
    contrast : ndarray, shape (rows, cols), float32
        After `local_contrast`.
    side : int
        Pixels of the frame per pixel of the image: columns of a frame have a least width, and their lattices a shortest plane.
    """
    plane = _plane(*contrast.shape, side)
    wave = fft.rfft2((contrast - np.float32(contrast.mean())) * plane.window)
    power = wave.real**2 + wave.imag**2
    power += np.float32(1e-7 * power.max() + 1e-20)
    logarithm = np.log(power)
    noise = _around(logarithm)
    found = []
    for width in WIDTHS:
        summed = np.asarray(cv2.blur(power, (width, width), borderType=cv2.BORDER_REFLECT), np.float32)
        near = np.asarray(cv2.dilate(summed, np.ones((3, 3), np.uint8)), np.float32)
        found.append(_best(_Power(plane, logarithm, noise, summed, near, width)))
    return max(found, key=lambda one: one.margin)
