"""Lattice vectors of an image from its autocorrelation, for frames whose columns gave no lattice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atomid_live.drift.overlap import Image

FloatArray = NDArray[np.float64]

LEAST_HEIGHT = 0.08
NEARLY_TOP = 0.86
CENTRED = 0.86
NOISE_SIGMAS = 1.5
WINDOW_SHARE = 0.26
HARMONIC_SHARE = 0.35
SECOND_RING = 0.3


@dataclass(frozen=True, slots=True)
class Periods:
    """Two translations under which the image repeats, reduced, |a| <= |b|, in pixels of the working image."""

    a_yx: tuple[float, float]
    b_yx: tuple[float, float]

    @property
    def matrix(self) -> FloatArray:
        """Rows a and b."""
        return np.array([self.a_yx, self.b_yx])

    @property
    def shortest(self) -> float:
        """Length of a."""
        return math.hypot(*self.a_yx)

    @property
    def longest(self) -> float:
        """Length of b."""
        return math.hypot(*self.b_yx)

    @property
    def third(self) -> tuple[int, int]:
        """Integer coordinates of the third shortest translation, a - b or a + b."""
        return (1, -1) if self.a_yx[0] * self.b_yx[0] + self.a_yx[1] * self.b_yx[1] > 0 else (1, 1)

    def star(self) -> FloatArray:
        """Return the six shortest translations, shape (6, 2)."""
        ones = np.array([(1, 0), (0, 1), self.third], float) @ self.matrix
        return np.vstack([ones, -ones])


def reduced(a_yx: FloatArray, b_yx: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Shortest basis of the lattice of two vectors (Gauss)."""
    for _ in range(50):
        if a_yx @ a_yx > b_yx @ b_yx:
            a_yx, b_yx = b_yx, a_yx
        times = np.round(a_yx @ b_yx / (a_yx @ a_yx))
        if times == 0:
            break
        b_yx = b_yx - times * a_yx
    return a_yx, b_yx


def parabola_peak(grid: NDArray[np.floating], y: int, x: int) -> tuple[float, float]:
    """Sub-pixel place of the maximum near (y, x), by one parabola per axis on the wrapped grid; within half a pixel."""
    rows, cols = grid.shape
    here = float(grid[y % rows, x % cols])
    place = []
    for before, after, at in (
        (float(grid[(y - 1) % rows, x % cols]), float(grid[(y + 1) % rows, x % cols]), y),
        (float(grid[y % rows, (x - 1) % cols]), float(grid[y % rows, (x + 1) % cols]), x),
    ):
        bend = before - 2 * here + after
        place.append(at + min(max(0.5 * (before - after) / bend, -0.5), 0.5) if bend < 0 else float(at))
    return place[0], place[1]


def climb(grid: NDArray[np.floating], y: int, x: int, steps: int = 6) -> tuple[int, int]:
    """Walk from (y, x) to the local maximum of the wrapped grid, at most `steps` pixels."""
    rows, cols = grid.shape
    offsets = np.arange(-1, 2)
    for _ in range(steps):
        near = grid[np.ix_((y + offsets) % rows, (x + offsets) % cols)]
        v, u = divmod(int(near.argmax()), 3)
        if (v, u) == (1, 1):
            break
        y, x = y + v - 1, x + u - 1
    return y, x


def _peaks(values: FloatArray, lags: FloatArray, least_lag: float) -> tuple[FloatArray, FloatArray]:
    inner = values[1:-1, 1:-1]
    top = np.ones(inner.shape, bool)
    for v in range(3):
        for u in range(3):
            if (v, u) != (1, 1):
                top &= inner >= values[v : v + inner.shape[0], u : u + inner.shape[1]]
    top &= np.hypot(lags[1:-1, 1:-1, 0], lags[1:-1, 1:-1, 1]) > least_lag
    return lags[1:-1, 1:-1][top], inner[top]


def find_periods(autocorrelation: Image, envelope: Image, scale_yx: tuple[float, float]) -> Periods | None:
    """Find the lattice of an image.

    Parameters
    ----------
    autocorrelation, envelope : ndarray, shape (rows, cols)
        Of the windowed image and of the window alone, zero lag at [0, 0], both on the same wrapped grid.
    scale_yx : (float, float)
        Pixels of the working image per pixel of the grid.

    Returns
    -------
    Periods or None
        None when nothing repeats.

    Notes
    -----
    Translations of the lattice stand about twice as high as vectors between different columns of a cell, so the shortest
    two independent vectors above 0.75 of the highest are taken; harmonics must be there too.
    """
    reach = min(autocorrelation.shape) // 4
    index = np.arange(-reach, reach + 1)
    values = np.asarray(autocorrelation[np.ix_(index, index)] / np.maximum(envelope[np.ix_(index, index)], 1e-6), np.float64)
    values /= values[reach, reach]
    lags = np.stack(np.meshgrid(index, index, indexing="ij"), axis=-1).astype(float)
    width = _first_fall(values, reach)
    # an autocorrelation of n independent patches is noisy by 1 / sqrt(n); a Hann window leaves about a quarter of them
    slack = NOISE_SIGMAS * math.sqrt(math.pi * width**2 / (WINDOW_SHARE * autocorrelation.size))
    places, heights = _peaks(values, lags, width)
    if len(places) < 2 or heights.max() < max(LEAST_HEIGHT, 2 * slack):
        return None
    basis = _shortest_pair(places[heights > max(NEARLY_TOP * heights.max() - slack, 0.4 * heights.max())])
    if basis is None:
        return None
    fitted = _fitted(values, reach, _primitive(values, reach, reduced(*basis), slack))
    if fitted is None:
        return None
    scale = np.array(scale_yx)
    a, b = reduced(fitted[0] * scale, fitted[1] * scale)
    return Periods((float(a[0]), float(a[1])), (float(b[0]), float(b[1])))


def _first_fall(values: FloatArray, reach: int) -> float:
    """Lag at which the central peak has ended along the axes."""
    for lag in range(1, reach):
        ring = (
            values[reach + lag, reach] + values[reach - lag, reach] + values[reach, reach + lag] + values[reach, reach - lag]
        ) / 4
        if ring < 0.1:
            return float(lag)
    return float(reach)


def _shortest_pair(places: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    order = np.argsort(np.hypot(*places.T), kind="stable")
    places = places[order]
    if not len(places):
        return None
    first = places[0]
    for other in places[1:]:
        area = abs(first[0] * other[1] - first[1] * other[0])
        if area > 0.35 * np.hypot(*first) * np.hypot(*other):
            return first, other
    return None


def _primitive(
    values: FloatArray, reach: int, basis: tuple[FloatArray, FloatArray], slack: float
) -> tuple[FloatArray, FloatArray]:
    """Halve the cell while a centring translation stands as high as the basis: a peak may have been missed in the noise."""
    for _ in range(3):
        a, b = basis
        full = min(_height(values, reach, a), _height(values, reach, b))
        least = max(CENTRED * full - slack, 0.45 * full)
        centred = [v for v in ((a + b) / 2, (a - b) / 2, b / 2, a / 2) if _height(values, reach, v) > least]
        if not centred:
            break
        half = min(centred, key=lambda v: float(np.hypot(*v)))
        parallel_to_a = abs(half[0] * a[1] - half[1] * a[0]) < 0.1 * np.hypot(*a) * np.hypot(*half)
        basis = reduced(half, b if parallel_to_a else a)
    return basis


def _height(values: FloatArray, reach: int, lag: FloatArray) -> float:
    """Height of a local maximum at a lag; -1 where the nearest maximum lies elsewhere or in the central peak."""
    y, x = climb(values, round(lag[0]) + reach, round(lag[1]) + reach, steps=3)
    if not (0 < y < 2 * reach and 0 < x < 2 * reach) or math.hypot(y - reach - lag[0], x - reach - lag[1]) > 1.6:
        return -1.0
    return float(values[y, x])


def _fitted(values: FloatArray, reach: int, basis: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray] | None:
    """Least-squares basis through the peaks at small multiples; None when the multiples do not repeat too."""
    top = max(values[tuple(np.round(v).astype(int) + reach)] for v in basis)
    matrix = np.array(basis)
    for largest in (1, 2, 3):
        multiples, found, low = [], [], 0
        for i in range(-largest, largest + 1):
            for j in range(-largest, largest + 1):
                lag = np.array([i, j]) @ matrix
                if (i, j) == (0, 0) or np.abs(lag).max() > reach - 3:
                    continue
                y, x = climb(values, round(lag[0]) + reach, round(lag[1]) + reach, steps=2)
                if not (0 < y < 2 * reach and 0 < x < 2 * reach):
                    continue
                low += values[y, x] < HARMONIC_SHARE * top
                multiples.append((i, j))
                found.append(np.array(parabola_peak(values, y, x)) - reach)
        if len(found) < 4 or (largest <= 2 and low > 0.25 * len(found)):
            return None
        matrix = np.linalg.lstsq(np.array(multiples, float), np.array(found), rcond=None)[0]
    return (matrix[0], matrix[1]) if _repeats(values, reach, matrix, top) else None


def _repeats(values: FloatArray, reach: int, matrix: FloatArray, top: float) -> bool:
    """Whether the second ring of translates, which nobody chose for being high, is high on average."""
    ring = np.array([(i, j) for i in range(-2, 3) for j in range(-2, 3) if max(abs(i), abs(j)) == 2])
    places = np.round(ring @ matrix).astype(int)
    places = places[np.abs(places).max(axis=1) < reach] + reach
    return len(places) >= 4 and float(values[places[:, 0], places[:, 1]].mean()) > SECOND_RING * top
