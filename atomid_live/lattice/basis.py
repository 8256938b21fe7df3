"""The two shortest translations that carry a frame's columns onto each other.

The autocorrelation of the columns, taken as a histogram of pair differences, has its high peaks at lattice vectors and lower
ones at differences between the atoms of one cell: in ReS2 the nearest neighbour is not the lattice. A pair of vectors counts
only when its sum or difference is a peak too, which keeps vectors of different grains, and the rings of disorder, apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from atomid_live.lattice.grid import Bins
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


def _smooth(image: FloatArray, sigma: float) -> FloatArray:
    """Gaussian of peak 1, so that a full, sharp peak reads its number of pairs."""
    reach = int(4 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    n = image.shape[0]
    band = np.zeros((n, n))
    for k, value in enumerate(kernel, -reach):
        band += value * np.eye(n, k=k)
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
    half = smooth.shape[0] // 2
    span = np.maximum(yx_px.max(axis=0) - yx_px.min(axis=0), spacing_px)
    away = np.abs(np.arange(-half, half + 1)) * bin_px
    seen = np.outer(np.maximum(1 - away / span[0], 0.2), np.maximum(1 - away / span[1], 0.2))
    share = smooth / (2 * sources * seen)
    radius = np.hypot(away[:, None], away[None, :])
    chance = float(share[(radius > 1.2 * spacing_px) & (radius < reach - spacing_px)].mean())
    return PairDensity(share - chance, bin_px, reach, float(np.sqrt(chance / (2 * sources))))


def _peaks(density: PairDensity, spacing_px: float) -> tuple[FloatArray, FloatArray]:
    """Local maxima in one half-plane, shortest first: differences (M, 2) in pixels and their heights (M,)."""
    h, half = density.height, density.half
    inner = h[1:-1, 1:-1]
    top = np.ones(inner.shape, bool)
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            if (dy, dx) != (1, 1):
                top &= inner >= h[dy : dy + inner.shape[0], dx : dx + inner.shape[1]]
    ij = np.argwhere(top & (inner > 0)) + 1
    ij = ij[(ij[:, 0] > half) | ((ij[:, 0] == half) & (ij[:, 1] > half))]
    found = []
    for i, j in ij:
        around = h[i - 1 : i + 2, j - 1 : j + 2]
        shift = []
        for before, here, after in (around[:, 1], around[1, :]):
            bend = before - 2 * here + after
            shift.append(0.5 * (before - after) / bend if bend < 0 else 0.0)
        found.append((*((np.array([i, j]) - half + shift) * density.bin_px), h[i, j]))
    peaks = np.array(found).reshape(-1, 3)
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
