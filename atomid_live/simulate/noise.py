"""From expected electrons to the numbers in a file: shot noise, read-out, correlation, gain, offset, bits and clipping."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import gammaln

from atomid_live.simulate.imaging import FloatImage
from atomid_live.types import FloatArray, IntArray

_STEP = 0.5
_LARGEST = 200.0


@dataclass(frozen=True, slots=True)
class Camera:
    """How electrons become numbers.

    Attributes
    ----------
    gain, offset : float
        Grey values per electron, and at zero electrons.
    readout_e : float
        Standard deviation of the read-out noise in electrons.
    correlation_yx : (float, float)
        Correlation of the noise of neighbouring pixels along the slow and the fast axis, 0 to 0.45.
    bits : int
        8 or 16, or 0 for float32 grey values without rounding or clipping.
    """

    gain: float = 1.0
    offset: float = 0.0
    readout_e: float = 0.0
    correlation_yx: tuple[float, float] = (0.0, 0.0)
    bits: int = 16


@lru_cache(maxsize=1)
def _alias_tables() -> tuple[FloatArray, IntArray, IntArray]:
    """Alias tables (Walker 1977) of Poisson laws with means 0, 0.5, ... 200: thresholds, aliases, and start, size and base."""
    thresholds: list[FloatArray] = []
    aliases: list[IntArray] = []
    layout = []
    start = 0
    for mean in np.arange(0.0, _LARGEST + _STEP, _STEP):
        reach = 9.0 * np.sqrt(mean) + 25.0
        low, high = max(0, int(mean - reach)), int(mean + reach)
        k = np.arange(low, high + 1)
        mass = np.exp(k * np.log(mean) - mean - gammaln(k + 1)) if mean > 0 else (k == 0).astype(float)
        cut, other = _alias(mass / mass.sum())
        thresholds.append(cut)
        aliases.append(other)
        layout.append((start, len(k), low))
        start += len(k)
    return np.concatenate(thresholds), np.concatenate(aliases), np.array(layout, dtype=np.int64)


def _alias(mass: FloatArray) -> tuple[FloatArray, IntArray]:
    share = mass * len(mass)
    cut, other = np.ones(len(mass)), np.arange(len(mass), dtype=np.int64)
    small = [int(i) for i in np.flatnonzero(share < 1)]
    large = [int(i) for i in np.flatnonzero(share >= 1)]
    while small and large:
        s, g = small.pop(), large[-1]
        cut[s], other[s] = share[s], g
        share[g] -= 1.0 - share[s]
        if share[g] < 1.0:
            small.append(large.pop())
    return cut, other


@njit(nogil=True, cache=True)
def _draw(
    expected: NDArray[np.float32],
    uniform: FloatArray,
    second: FloatArray,
    thresholds: FloatArray,
    aliases: IntArray,
    layout: IntArray,
    out: NDArray[np.float32],
) -> None:
    for i in range(expected.size):
        mean = max(float(expected[i]), 0.0)
        row = min(int(mean / _STEP), layout.shape[0] - 1)
        u = uniform[i] * layout[row, 1]
        k = int(u)
        j = layout[row, 0] + k
        if u - k >= thresholds[j]:
            k = aliases[j]
        count = k + layout[row, 2]
        # What the grid of means leaves over, drawn by inversion: a sum of independent Poisson numbers is Poisson.
        rest = mean - row * _STEP
        v, term = second[i], np.exp(-rest)
        more = 0
        while v > term and more < 60:
            v -= term
            more += 1
            term *= rest / more
        out[i] = count + more


def poisson(rng: np.random.Generator, expected_e: FloatImage) -> FloatImage:
    """Poisson counts of the given means (same shape, float32), exact and about ten times as fast as numpy's for images."""
    flat = np.ascontiguousarray(expected_e, dtype=np.float32).ravel()
    out = np.empty_like(flat)
    _draw(flat, rng.random(flat.size), rng.random(flat.size), *_alias_tables(), out)
    bright = np.flatnonzero(flat >= _LARGEST)
    if len(bright):
        out[bright] = rng.poisson(flat[bright])
    return out.reshape(expected_e.shape)


def _kernel(correlation: float) -> tuple[float, float]:
    """Weights (side, middle) of a symmetric three-point filter of unit power whose output has this neighbour correlation."""
    if not 0.0 <= correlation < 0.5:
        raise ValueError(f"noise correlation {correlation} is outside 0 to 0.5")
    # For weights (a, 1, a): lag-1 correlation is 2a / (1 + 2a^2).
    a = correlation and (1.0 - np.sqrt(max(1.0 - 2.0 * correlation**2, 0.0))) / (2.0 * correlation)
    power = np.sqrt(1.0 + 2.0 * a * a)
    return float(a / power), float(1.0 / power)


def correlated(counts: FloatImage, expected_e: FloatImage, correlation_yx: tuple[float, float]) -> FloatImage:
    """Counts whose noise is correlated between neighbours with its variance kept; the expected image does not move or blur."""
    if not any(correlation_yx):
        return counts
    from cv2 import BORDER_REFLECT, sepFilter2D

    (side_y, middle_y), (side_x, middle_x) = (_kernel(c) for c in correlation_yx)
    smooth = sepFilter2D(
        counts - expected_e,
        -1,
        np.array([side_x, middle_x, side_x], np.float32),
        np.array([side_y, middle_y, side_y], np.float32),
        borderType=BORDER_REFLECT,
    )
    return np.asarray(expected_e + smooth, dtype=np.float32)


def record(rng: np.random.Generator, expected_e: FloatImage, camera: Camera) -> NDArray[Any]:
    """Turn expected electrons per pixel into grey values of the camera's type, shape kept."""
    signal = correlated(poisson(rng, expected_e), expected_e, camera.correlation_yx)
    if camera.readout_e > 0:
        signal += np.float32(camera.readout_e) * rng.standard_normal(signal.shape, dtype=np.float32)
    signal *= np.float32(camera.gain)
    signal += np.float32(camera.offset)
    return quantised(signal, camera.bits)


def quantised(grey: FloatImage, bits: int) -> NDArray[Any]:
    """Round and clip to 8 or 16 bits; 0 bits leaves float32."""
    if bits == 0:
        return grey
    if bits not in (8, 16):
        raise ValueError(f"{bits} bits asked for; a camera here has 8 or 16, or 0 for float")
    rounded = np.rint(grey)
    np.clip(rounded, 0, 2**bits - 1, out=rounded)
    return rounded.astype(np.uint8 if bits == 8 else np.uint16)


def to_eight_bit(grey: FloatArray | FloatImage, clipped: float = 0.0025) -> NDArray[np.uint8]:
    """Stretch to 8 bits as a display export does, with a fraction `clipped` of the pixels at either limit."""
    low, high = np.quantile(grey, [clipped, 1.0 - clipped])
    span = max(float(high - low), 1e-9)
    return np.asarray(np.clip(np.rint((grey - low) * (255.0 / span)), 0, 255), dtype=np.uint8)
