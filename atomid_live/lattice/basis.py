"""The two shortest translations that carry a frame's columns onto each other.

The autocorrelation of the columns, taken as a histogram of pair differences, has its high peaks at lattice vectors and lower
ones at differences between the atoms of one cell: in ReS2 the nearest neighbour is not the lattice. A pair of vectors counts
only when its sum or difference is a peak too, which keeps vectors of different grains, and the rings of disorder, apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np

from atomid_live.lattice.grid import Bins, extent
from atomid_live.types import FloatArray

BINS_PER_SPACING = 10
SMOOTH_SPACINGS = (0.1, 0.18)
REACHES_SPACINGS = (4.6, 8.0)
SOURCES = (1600, 1000)
TOP_FRACTION = 0.75
GRAIN_TOP_FRACTION = 0.5
CLOSURE_FRACTION = 0.5
LEAST_HEIGHT = 0.18
LEAST_SINE = 0.3
CANDIDATES = 40


@dataclass(frozen=True, slots=True)
class Basis:
    """Reduced basis vectors (|a| <= |b|, a.b <= 0) in pixels, (row, column), and the height of the weaker peak (0 to 1)."""

    a_yx_px: FloatArray
    b_yx_px: FloatArray
    height: float

    @property
    def matrix(self) -> FloatArray:
        """Shape (2, 2), columns a and b, rows y and x."""
        return np.column_stack([self.a_yx_px, self.b_yx_px])


@numba.njit(nogil=True, cache=True)
def _pair_histogram(yx, order, start, size, low_y, low_x, rows, cols, stride, bin_px, reach):  # type: ignore[no-untyped-def]
    half = int(reach / bin_px) + 1
    hist = np.zeros((2 * half + 1, 2 * half + 1), np.float64)
    span = int(reach / size) + 1
    reach2 = reach * reach
    inverse = 1.0 / bin_px
    sources = 0
    for i in range(0, len(yx), stride):
        sources += 1
        y, x = yx[i, 0], yx[i, 1]
        r0 = int((y - low_y) / size)
        c0 = int((x - low_x) / size)
        for r in range(max(0, r0 - span), min(rows, r0 + span + 1)):
            first = start[r * cols + max(0, c0 - span)]
            last = start[r * cols + min(cols, c0 + span + 1)]
            for k in range(first, last):
                j = order[k]
                dy, dx = yx[j, 0] - y, yx[j, 1] - x
                if dy * dy + dx * dx <= reach2 and j != i:
                    v, u = dy * inverse + half, dx * inverse + half
                    iv, iu = int(v), int(u)
                    fv, fu = v - iv, u - iu
                    if iv < 2 * half and iu < 2 * half:
                        hist[iv, iu] += (1 - fv) * (1 - fu)
                        hist[iv, iu + 1] += (1 - fv) * fu
                        hist[iv + 1, iu] += fv * (1 - fu)
                        hist[iv + 1, iu + 1] += fv * fu
    return hist, sources


@lru_cache(maxsize=8)
def _band(count: int, sigma: float) -> FloatArray:
    """Matrix (count, count) that smooths a column by a Gaussian of peak 1."""
    away = np.arange(count)[:, None] - np.arange(count)[None, :]
    return np.where(np.abs(away) <= int(4 * sigma) + 1, np.exp(-0.5 * (away / sigma) ** 2), 0.0)


def _smooth(image: FloatArray, sigma: float) -> FloatArray:
    """Gaussian of peak 1, so that a full, sharp peak reads its number of pairs."""
    band = _band(image.shape[0], sigma)
    return np.asarray(band @ image @ band.T)


@dataclass(frozen=True, slots=True)
class PairDensity:
    """Share of columns that have a partner at a difference, the share expected by chance taken off; symmetric.

    `height[half + i, half + j]` belongs to the difference (i, j) * bin_px; `noise` is its standard error for random columns.
    """

    height: FloatArray
    bin_px: float
    reach_px: float
    noise: float

    @property
    def half(self) -> int:
        """Index of the zero difference."""
        return int(self.height.shape[0]) // 2

    def at(self, difference_yx_px: FloatArray) -> float:
        """Highest value within one bin of a difference; NaN beyond the reach."""
        if np.hypot(*difference_yx_px) > self.reach_px - 2 * self.bin_px:
            return float("nan")
        i, j = np.rint(difference_yx_px / self.bin_px).astype(int) + self.half
        return float(self.height[i - 1 : i + 2, j - 1 : j + 2].max())


def pair_density(yx_px: FloatArray, bins: Bins, spacing_px: float, wide: bool = False, soft: bool = False) -> PairDensity:
    """Histogram of pair differences out to 4.6 (wide: 8) spacings, from at most 1600 (1000) columns spread over the frame.

    Soft, it forgives position errors of a fifth of the spacing; sharp, it tells a distorted cell from its parent's smaller one.
    """
    bin_px = spacing_px / BINS_PER_SPACING
    reach = REACHES_SPACINGS[wide] * spacing_px
    stride = -(-len(yx_px) // SOURCES[wide])
    raw, sources = _pair_histogram(
        yx_px, bins.order, bins.start, bins.size_px, *bins.low_yx_px, bins.rows, bins.cols, stride, bin_px, reach
    )
    smooth = _smooth(raw + raw[::-1, ::-1], SMOOTH_SPACINGS[soft] * BINS_PER_SPACING)
    low, high = extent(yx_px)
    chance = _take_chance(smooth, sources, np.maximum(high - low, spacing_px), bin_px, 1.2 * spacing_px, reach - spacing_px)
    return PairDensity(smooth, bin_px, reach, float(np.sqrt(chance / (2 * sources))))


@numba.njit(nogil=True, cache=True)
def _take_chance(height, sources, span, bin_px, least, most):  # type: ignore[no-untyped-def]
    """Turn numbers of pairs, in place, into shares of columns above chance; returns what chance alone gives."""
    half = len(height) // 2
    total, count = 0.0, 0
    for i in range(len(height)):
        y = abs(i - half) * bin_px
        for j in range(len(height)):
            x = abs(j - half) * bin_px
            height[i, j] /= 2 * sources * max(1 - y / span[0], 0.2) * max(1 - x / span[1], 0.2)
            if least * least < y * y + x * x < most * most:
                total += height[i, j]
                count += 1
    chance = total / max(count, 1)
    height -= chance
    return chance


@numba.njit(nogil=True, cache=True)
def _tops(h):  # type: ignore[no-untyped-def]
    """Positive local maxima in the lower half-plane, rows (y, x, height) in bins from the middle, by a parabola per axis."""
    half = len(h) // 2
    found = []
    for i in range(half, len(h) - 1):
        for j in range(1, len(h) - 1):
            if (i == half and j <= half) or not h[i, j] > 0:
                continue
            top = True
            for v in range(i - 1, i + 2):
                for u in range(j - 1, j + 2):
                    top &= h[i, j] >= h[v, u]
            if top:
                y, x = float(i - half), float(j - half)
                bend_y = h[i - 1, j] - 2 * h[i, j] + h[i + 1, j]
                bend_x = h[i, j - 1] - 2 * h[i, j] + h[i, j + 1]
                y += 0.5 * (h[i - 1, j] - h[i + 1, j]) / bend_y if bend_y < 0 else 0.0
                x += 0.5 * (h[i, j - 1] - h[i, j + 1]) / bend_x if bend_x < 0 else 0.0
                found.append((y, x, h[i, j]))
    out = np.empty((len(found), 3))
    for k in range(len(found)):
        out[k, 0], out[k, 1], out[k, 2] = found[k]
    return out


def _peaks(density: PairDensity, spacing_px: float) -> tuple[FloatArray, FloatArray]:
    """Local maxima in one half-plane, shortest first: differences (M, 2) in pixels and their heights (M,)."""
    peaks = _tops(density.height)
    peaks[:, :2] *= density.bin_px
    length = np.hypot(peaks[:, 0], peaks[:, 1])
    keep = (length > 0.6 * spacing_px) & (length < density.reach_px - 2 * density.bin_px)
    peaks = peaks[keep][np.argsort(length[keep], kind="stable")]
    return peaks[:, :2], peaks[:, 2]


def reduce_basis(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gauss-reduce two independent vectors: |a| <= |b| <= |a + b|, with a.b <= 0 (angle 90 to 120 degrees)."""
    for _ in range(100):
        if a @ a > b @ b:
            a, b = b, a
        steps = np.rint((a @ b) / (a @ a))
        if steps == 0:
            break
        b = b - steps * a
    if a @ b > 0:
        b = -b
    return a, b


def _best_pair(density: PairDensity, spacing_px: float, below_px: float) -> Basis | None:
    vectors, heights = _peaks(density, spacing_px)
    short = np.hypot(vectors[:, 0], vectors[:, 1]) < below_px
    vectors, heights = vectors[short], heights[short]
    if len(heights) < 2:
        return None
    fraction = TOP_FRACTION if np.isinf(below_px) else GRAIN_TOP_FRACTION
    strong = heights >= max(fraction * heights.max(), LEAST_HEIGHT, 5 * density.noise)
    vectors, heights = vectors[strong][:CANDIDATES], heights[strong][:CANDIDATES]
    length = np.hypot(vectors[:, 0], vectors[:, 1])
    for j in range(1, len(vectors)):
        for i in range(j):
            cross = vectors[i, 0] * vectors[j, 1] - vectors[i, 1] * vectors[j, 0]
            if abs(cross) < LEAST_SINE * length[i] * length[j]:
                continue
            closing = (density.at(vectors[i] + vectors[j]), density.at(vectors[i] - vectors[j]))
            known = [c for c in closing if np.isfinite(c)]
            weaker = min(heights[i], heights[j])
            if known and max(known) >= CLOSURE_FRACTION * weaker:
                return Basis(*reduce_basis(vectors[i], vectors[j]), float(weaker))
    return None


def find_basis(yx_px: FloatArray, bins: Bins, spacing_px: float, below_px: float = np.inf) -> Basis | None:
    """Find the reduced primitive translations of a set of columns.

    Parameters
    ----------
    yx_px : ndarray, shape (N, 2)
        Positions in pixels.
    bins : Bins
        The same, sorted.
    spacing_px : float
        Typical distance of nearest columns in pixels; it sets bins and reach, not the answer.
    below_px : float
        Vectors this long or longer are left out; then peaks of one grain beside those that two grains share count too.

    Returns
    -------
    Basis or None
        Accurate to about a tenth of a bin (1 % of the spacing); None when no two closing translations stand out.
    """
    for wide, soft in ((False, False), (False, True), (True, False), (True, True)):
        basis = _best_pair(pair_density(yx_px, bins, spacing_px, wide, soft), spacing_px, below_px)
        if basis is not None:
            return basis
    return None
