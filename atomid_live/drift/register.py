"""Shift of one image against another: correlation for the coarse place, least squares over the overlap for the fine one.

Convention everywhere: a feature at p in the reference is found at p + shift in the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from atomid_live.drift.overlap import MARGIN, SUMS, Image, overlap_sums
from atomid_live.drift.periods import Periods, climb, find_periods, parabola_peak

Spectrum = NDArray[np.complex64]
Pair = tuple[float, float]

BLOCKS = 16
LEAST_OVERLAP = 0.12


@dataclass(frozen=True, slots=True)
class Fine:
    """Displacement by least squares over the overlap.

    Attributes
    ----------
    shift_yx : (float, float)
        Pixels of the working image.
    variance_yx : (float, float)
        Of the difference image minus reference, from the scatter of horizontal blocks: noise and row jitter together.
    correlation : float
        Normalised, -1 to 1, over the overlap.
    trend_yx : (float, float)
        Change of the displacement from the first to the last row of the overlap: drift within the frame.
    """

    shift_yx: Pair
    variance_yx: Pair
    correlation: float
    trend_yx: Pair


@dataclass(frozen=True, slots=True)
class PairShift:
    """Answer of `register`.

    Attributes
    ----------
    shift_yx_px, sigma_yx_px : (float, float)
        The most likely shift and its standard error.
    candidates_yx_px : tuple of (float, float)
        Other shifts at which the images agree nearly as well, best first.
    quality : float
        Normalised correlation over the overlap, 0 to 1.
    """

    shift_yx_px: Pair
    sigma_yx_px: Pair
    candidates_yx_px: tuple[Pair, ...]
    quality: float


class Correlator:
    """Windowed cross-correlation of images of one shape on a grid of half their size.

    Columns carry next to nothing above half the Nyquist frequency once smoothed, so half the grid holds the peak.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.window = np.outer(np.hanning(shape[0] + 2)[1:-1], np.hanning(shape[1] + 2)[1:-1]).astype(np.float32)
        self._grid = tuple(2 * math.ceil(n / 4) for n in shape)
        self.scale_yx = shape[0] / self._grid[0], shape[1] / self._grid[1]
        self._windowed = np.empty(shape, np.float32)
        self._product = np.zeros((self._grid[0], self._grid[1] // 2 + 1), np.complex64)
        own = self._cropped(self.window)
        envelope = self.correlation(own, own)
        self.envelope: Image = np.maximum(envelope / envelope[0, 0], np.float32(1e-3))
        dense = self._dense(own)
        self._dense_envelope: Image = np.maximum(dense / dense[0, 0], np.float32(1e-3))

    def spectrum(self, image: Image) -> Spectrum:
        """Cropped spectrum of the windowed image."""
        np.multiply(image, self.window, out=self._windowed)
        return self._cropped(self._windowed)

    def _cropped(self, image: Image) -> Spectrum:
        half, cols = self._grid[0] // 2, self._grid[1] // 2 + 1
        # the second transform is made of the columns that are kept
        rows = np.ascontiguousarray(fft.rfft(image, axis=1, workers=1)[:, :cols])
        full = fft.fft(rows, axis=0, workers=1, overwrite_x=True)
        return np.concatenate([full[:half], full[-half:]]).astype(np.complex64, copy=False)

    def correlation(self, reference: Spectrum, image: Spectrum) -> Image:
        """Correlation on the wrapped grid, zero shift at [0, 0]."""
        np.multiply(np.conj(reference), image, out=self._product)
        answer: Image = fft.irfft2(self._product, self._grid, workers=1, overwrite_x=False)
        return answer

    def _dense(self, spectrum: Spectrum) -> Image:
        """Autocorrelation on a grid of twice the density."""
        half = self._grid[0] // 2
        padded = np.zeros((2 * self._grid[0], self._grid[1] + 1), np.complex64)
        power = (spectrum * np.conj(spectrum)).astype(np.complex64)
        padded[:half, : power.shape[1]] = power[:half]
        padded[-half:, : power.shape[1]] = power[half:]
        answer: Image = fft.irfft2(padded, (2 * self._grid[0], 2 * self._grid[1]), workers=1)
        return answer

    def periods(self, spectrum: Spectrum) -> Periods | None:
        """Lattice of the image of that spectrum, in pixels of the image."""
        scale = self.scale_yx[0] / 2, self.scale_yx[1] / 2
        return find_periods(self._dense(spectrum), self._dense_envelope, scale)

    def _to_shift(self, y: float, x: float) -> Pair:
        rows, cols = self._grid
        return (
            ((y + rows / 2) % rows - rows / 2) * self.scale_yx[0],
            ((x + cols / 2) % cols - cols / 2) * self.scale_yx[1],
        )

    def highest_near(self, correlation: Image, centre_yx: Pair, radius: float) -> Pair:
        """Shift of the highest local maximum within `radius` of a shift."""
        rows, cols = self._grid
        cy, cx = centre_yx[0] / self.scale_yx[0], centre_yx[1] / self.scale_yx[1]
        ry, rx = math.ceil(radius / self.scale_yx[0]), math.ceil(radius / self.scale_yx[1])
        ys, xs = np.arange(round(cy) - ry, round(cy) + ry + 1), np.arange(round(cx) - rx, round(cx) + rx + 1)
        at = np.ix_(ys % rows, xs % cols)
        near = correlation[at] / self.envelope[at]
        outside = ((ys[:, None] - cy) / max(ry, 1)) ** 2 + ((xs[None, :] - cx) / max(rx, 1)) ** 2 > 1.2
        near[outside] = -np.inf
        v, u = divmod(int(near.argmax()), len(xs))
        y, x = climb(correlation, int(ys[v]), int(xs[u]))
        return self._to_shift(*parabola_peak(correlation, y, x))

    def highest(self, correlation: Image, number: int, apart: float) -> list[tuple[Pair, float]]:
        """Return the highest peaks anywhere, best first, at least `apart` pixels from each other, with heights."""
        work = correlation.copy()
        rows, cols = self._grid
        ry, rx = math.ceil(apart / self.scale_yx[0]), math.ceil(apart / self.scale_yx[1])
        found = []
        for _ in range(number):
            y, x = divmod(int(work.argmax()), cols)
            if not work[y, x] > 0:
                break
            found.append((self._to_shift(*parabola_peak(correlation, y, x)), float(work[y, x])))
            work[np.ix_(np.arange(y - ry, y + ry + 1) % rows, np.arange(x - rx, x + rx + 1) % cols)] = -np.inf
        return found


def overlap_share(shape: tuple[int, int], shift_yx: Pair) -> float:
    """Share of the image that also lies in the reference."""
    return max(0.0, 1 - abs(shift_yx[0]) / shape[0]) * max(0.0, 1 - abs(shift_yx[1]) / shape[1])


def _solve(total: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    normal = np.array([[total[0], total[2]], [total[2], total[1]]])
    scale = max(normal[0, 0], normal[1, 1])
    if not scale > 0 or np.linalg.det(normal) < 1e-6 * scale * scale:
        return np.full(2, np.nan), np.full((2, 2), np.nan)
    inverse = np.linalg.inv(normal)
    return -inverse @ total[3:5], inverse


def refine(reference: Image, image: Image, shift_yx: Pair, steps: int = 2, stride: int = 1) -> Fine | None:
    """Improve a shift that is right to about a column width.

    Returns None when the overlap is too small or holds no contrast. Gauss-Newton on the sum of squared differences; the last
    step is read per block of rows, whose scatter gives the error without a model of noise or jitter.
    """
    shift = np.array(shift_yx, float)
    sums = np.zeros((BLOCKS, SUMS))
    total = np.zeros(SUMS)
    for step in range(steps):
        if not np.isfinite(shift).all() or overlap_share(image.shape, (shift[0], shift[1])) < LEAST_OVERLAP:
            return None
        last = step == steps - 1
        sums = overlap_sums(reference, image, float(shift[0]), float(shift[1]), BLOCKS, stride if last else 3 * stride)
        total = sums.sum(axis=0)
        move, _ = _solve(total)
        if not np.isfinite(move).all():
            return None
        shift += np.clip(move, -1.5, 1.5)
    correlation = total[7] / math.sqrt(max(total[5] * total[6], 1e-30))
    variance, trend = _block_scatter(sums)
    return Fine((float(shift[0]), float(shift[1])), variance, float(correlation), trend)


def _block_scatter(sums: NDArray[np.float64]) -> tuple[Pair, Pair]:
    """Variance of the mean displacement from the blocks' scatter about a straight line, and the line's rise."""
    used = sums[(sums[:, 8] > 0) & (sums[:, 9] > 0)]
    if len(used) < 4:
        return (math.nan, math.nan), (math.nan, math.nan)
    place = np.linspace(-0.5, 0.5, len(used))
    variance, rise = [], []
    for curvature, product, gradient in ((0, 3, 8), (1, 4, 9)):
        weight = used[:, gradient] / used[:, gradient].sum()
        signal = used[:, curvature].sum()
        if not signal > 0:
            return (math.nan, math.nan), (math.nan, math.nan)
        moves = -used[:, product] / (weight * signal)
        centre = place - (weight * place).sum()
        slope = (weight * centre * moves).sum() / (weight * centre**2).sum()
        rest = moves - (weight * moves).sum() - slope * centre
        variance.append(float((weight**2 * rest**2).sum() * len(used) / (len(used) - 2)))
        rise.append(float(slope))
    return (variance[0], variance[1]), (rise[0], rise[1])


def register(reference: Image, image: Image, expected_yx: Pair | None = None, reach: float = math.inf) -> PairShift:
    """Shift of `image` against `reference` from the pixels alone.

    Parameters
    ----------
    reference, image : ndarray, shape (rows, cols), float32
        Same shape, at least 48 x 48, mean near zero; smooth them to the width of what they show.
    expected_yx : (float, float), optional
        Where the shift is sought, within `reach` pixels; anywhere by default.

    Returns
    -------
    PairShift
        NaN and quality 0 when nothing agrees. On a periodic image the answer is one of `candidates_yx_px` and itself: which
        one, only the past or what does not repeat can tell (`DriftTracker`).
    """
    nothing = PairShift((math.nan, math.nan), (math.nan, math.nan), (), 0.0)
    if reference.shape != image.shape or min(image.shape) < 8 * MARGIN:
        return nothing
    correlator = Correlator((image.shape[0], image.shape[1]))
    grid = correlator.correlation(correlator.spectrum(reference), correlator.spectrum(image))
    peaks = correlator.highest(grid, 12, 4.0)
    if expected_yx is not None and math.isfinite(reach):
        peaks = [p for p in peaks if math.dist(p[0], expected_yx) <= reach] or [
            (correlator.highest_near(grid, expected_yx, reach), 0.0)
        ]
    fine = refine(reference, image, peaks[0][0], steps=3) if peaks else None
    if fine is None:
        return nothing
    others = tuple(p[0] for p in peaks[1:] if p[1] > 0.5 * peaks[0][1])
    sigma = (math.sqrt(fine.variance_yx[0]), math.sqrt(fine.variance_yx[1]))
    return PairShift(fine.shift_yx, sigma, others, min(max(fine.correlation, 0.0), 1.0))
