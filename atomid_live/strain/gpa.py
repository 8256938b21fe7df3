"""Geometric phase analysis: strain from the phases of the frame's strong reflections, without columns and without unwrapping.

Hytch, Snoeck, Kilaas 1998, with the local reciprocal vectors of Rouviere and Sarigiannidou 2005, so that large strain is exact.
The Gaussian window is the column method's, which makes the two comparable. Only the part of the spectrum around a reflection
is transformed back, onto a coarse grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from atomid_live.settings import StrainSettings
from atomid_live.strain.field import strain_of
from atomid_live.strain.window import Window, window_for
from atomid_live.types import FloatArray, Frame, GpaField, Lattice

BAND_SIGMAS = 4.2
BORDER_WINDOWS = 2.25
TAPER_WINDOWS = 1.25
LEAST_LAG = 0.3
STEP_OF_WINDOW = 0.6
MOST_STEPS = 160
FURTHEST_REFLECTION = 1.7
FINEST_PER_BIN = 0.4
WEAK = 0.25
FAR_OF_G = 0.25
REFLECTIONS = 3
LEAST_SINE = 0.3
ORDERS = 4
LEAST_POWER = 4.0


@dataclass(frozen=True, slots=True)
class _Spectrum:
    """Half spectrum of the frame, averaged over squares of `binning` pixels; `shape` is the size before the transform."""

    values: NDArray[np.complex64]
    shape: tuple[int, int]
    binning: int

    def power_near(self, g_yx: FloatArray) -> FloatArray:
        """Greatest power (M,) within two bins of reciprocal vectors (M, 2) in cycles per raw pixel."""
        height, width = self.shape
        k = np.rint(g_yx * self.binning * np.array(self.shape)).astype(np.int64)
        around = np.arange(-2, 3)
        rows, columns = k[:, :1] + around, k[:, 1:] + around
        left = columns < 0
        columns = np.minimum(np.abs(columns), width // 2)
        turned = np.where(left[:, None, :], -rows[:, :, None], rows[:, :, None]) % height
        return np.asarray(np.abs(self.values[turned, columns[:, None, :]]).max(axis=(1, 2)), np.float64)

    def patch(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.complex64]:
        """Values at signed bins; those left of the axis come from the mirrored half."""
        height, width = self.shape
        left = columns < 0
        out = np.empty((len(rows), len(columns)), np.complex64)
        out[:, ~left] = self.values[np.ix_(rows % height, np.minimum(columns[~left], width // 2))]
        if left.any():
            out[:, left] = self.values[np.ix_(-rows % height, np.minimum(-columns[left], width // 2))].conj()
        return out


@lru_cache(maxsize=16)
def _taper(count: int, length: float) -> NDArray[np.float32]:
    """Rise from 0 to 1 over `length` at both ends, so that the far side does not wrap into a window near the border."""
    away = np.minimum(np.arange(count), np.arange(count)[::-1]) + 0.5
    return np.asarray(np.sin(np.pi / 2 * np.clip(away / length, 0, 1)) ** 2, np.float32)


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of the coarse grid: `count` raw pixels in bins, points every `step` pixels, Gaussian window in pixels."""

    count: int
    binning: int
    step: float
    window: float

    @property
    def at(self) -> FloatArray:
        """Points of the grid in raw pixels."""
        return np.arange(int((self.count - 1) / self.step) + 1, dtype=np.float64) * self.step

    @property
    def size(self) -> int:
        """Raw pixels that the bins cover."""
        return self.count // self.binning * self.binning

    def inside(self) -> NDArray[np.bool_]:
        """Points far enough from the border."""
        border = BORDER_WINDOWS * self.window
        at = self.at
        return np.asarray((at >= border) & (at <= self.count - 1 - border))

    def band(self, g: float) -> NDArray[np.int64]:
        """Bins of the spectrum that the Gaussian around a frequency in cycles per raw pixel reaches."""
        centre = g * self.size
        half = int(np.ceil(BAND_SIGMAS * self.size / (2 * np.pi * self.window)))
        bins = np.arange(int(np.floor(centre)) - half, int(np.ceil(centre)) + half + 1)
        return bins[np.abs(bins) <= self.size // self.binning // 2 - 1]


@lru_cache(maxsize=8)
def _lag(axis: _Axis) -> FloatArray:
    """How far the centre of gravity under the tapered window moves per pixel that the window moves, at each point.

    The phase of a windowed wave is that of its centre of gravity, so where the taper cuts into the window a slope reads low by
    this factor.
    """
    bins = axis.size // axis.binning
    x = np.arange(bins) * axis.binning + (axis.binning - 1) / 2
    taper = _taper(bins, TAPER_WINDOWS * axis.window / axis.binning)
    weight = taper * np.exp(-0.5 * ((axis.at[:, None] - x) / axis.window) ** 2)
    total = np.maximum(weight.sum(axis=1), 1e-12)
    mean = weight @ x / total
    return np.asarray(np.maximum((weight @ (x * x) / total - mean**2) / axis.window**2, LEAST_LAG))


@lru_cache(maxsize=8)
def _waves(axis: _Axis) -> NDArray[np.complex64]:
    """exp(2 pi i y k / size) for each point y and k = 0, 1, ... as wide as any band of this axis.

    Counted from the first bin of a band instead of from the reflection, the phase of a point is off by a constant, which the
    slope of the phase does not feel; so the table serves every reflection of every frame.
    """
    widest = 2 * int(np.ceil(BAND_SIGMAS * axis.size / (2 * np.pi * axis.window))) + 3
    middle = (axis.binning - 1) / 2
    wave: NDArray[np.complex64] = np.exp(2j * np.pi / axis.size * np.outer(axis.at - middle, np.arange(widest))).astype(
        np.complex64
    )
    return wave


def _spectrum(frame: Frame, binning: int, window_yx: FloatArray) -> _Spectrum:
    import cv2
    import scipy.fft

    height, width = (n // binning for n in frame.shape)
    image = np.ascontiguousarray(frame.pixels[: height * binning, : width * binning], dtype=np.float32)
    if binning > 1:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    rise = TAPER_WINDOWS * window_yx / binning
    image = (image - image.mean()) * _taper(height, float(rise[0]))[:, None] * _taper(width, float(rise[1]))
    return _Spectrum(np.asarray(scipy.fft.rfft2(image)), (height, width), binning)


def _candidates(lattice: Lattice) -> FloatArray:
    """Reciprocal vectors (M, 2) in cycles per pixel, one of each pair, out to 1.7 times that of the columns' own spacing."""
    matrix = np.column_stack([lattice.a_yx_px, lattice.b_yx_px])
    reciprocal = np.linalg.inv(matrix).T
    classes = int(lattice.site.max(initial=0)) + 1
    furthest = FURTHEST_REFLECTION * float(np.sqrt(classes * abs(np.linalg.det(reciprocal)) * 2 / np.sqrt(3)))
    axis = np.arange(-ORDERS, ORDERS + 1)
    hk = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    hk = hk[(hk[:, 0] > 0) | ((hk[:, 0] == 0) & (hk[:, 1] > 0))]
    g = hk @ reciprocal.T
    length = np.hypot(g[:, 0], g[:, 1])
    return np.asarray(g[(length <= furthest) & (length < 0.45)])


def _strongest(spectrum: _Spectrum, g: FloatArray) -> FloatArray:
    """Up to three strong reflections, the first two not in line; empty when fewer than two stand out of the spectrum."""
    power = spectrum.power_near(g)
    order = np.argsort(-power)
    chosen = [order[0]]
    for k in order[1:]:
        cross = [abs(g[k, 0] * g[m, 1] - g[k, 1] * g[m, 0]) / (np.hypot(*g[k]) * np.hypot(*g[m])) for m in chosen]
        if min(cross) > LEAST_SINE and len(chosen) < REFLECTIONS:
            chosen.append(k)
    floor = LEAST_POWER * float(np.median(np.abs(spectrum.values[::7, ::5])))
    chosen = [k for k in chosen if power[k] > floor]
    return g[chosen] if len(chosen) > 1 else g[:0]


@dataclass(frozen=True, slots=True)
class _Phase:
    """Amplitude and local reciprocal vector (gy, gx, 2) of one reflection on the grid."""

    amplitude: FloatArray
    g_yx: FloatArray


def _local_phase(spectrum: _Spectrum, g: FloatArray, axes: tuple[_Axis, _Axis]) -> _Phase:
    bins = [axis.band(float(v)) for axis, v in zip(axes, g, strict=True)]
    dy, dx = (np.asarray(b - v * a.size, np.float32) / a.size for b, v, a in zip(bins, g, axes, strict=True))
    bell_y, bell_x = (np.exp(-2 * (np.pi * a.window * d) ** 2) for a, d in zip(axes, (dy, dx), strict=True))
    values = spectrum.patch(*bins) * np.outer(bell_y, bell_x).astype(np.float32)
    to_y, to_x = (_waves(a)[:, : len(b)] for a, b in zip(axes, bins, strict=True))
    right = np.concatenate([values, values * dx]) @ to_x.T
    plain, sloped = right[: len(dy)], right[len(dy) :]
    both = to_y @ np.concatenate([plain, plain * dy[:, None], sloped], axis=1)
    many = to_x.shape[0]
    return _Phase(*_slopes(both[:, :many], both[:, many : 2 * many], both[:, 2 * many :], g, _lag(axes[0]), _lag(axes[1])))


@numba.njit(nogil=True, cache=True)
def _slopes(h, slope_y, slope_x, g, lag_y, lag_x):  # type: ignore[no-untyped-def]
    """Amplitude and local reciprocal vector from a filtered wave and its derivatives over 2 pi i."""
    rows, cols = h.shape
    amplitude, local = np.empty((rows, cols)), np.empty((rows, cols, 2))
    for i in range(rows):
        for j in range(cols):
            re, im = np.float64(h[i, j].real), np.float64(h[i, j].imag)
            power = max(re * re + im * im, 1e-30)
            amplitude[i, j] = np.sqrt(power)
            local[i, j, 0] = g[0] + (re * slope_y[i, j].real + im * slope_y[i, j].imag) / (power * lag_y[i])
            local[i, j, 1] = g[1] + (re * slope_x[i, j].real + im * slope_x[i, j].imag) / (power * lag_x[j])
    return amplitude, local


@numba.njit(nogil=True, cache=True)
def _fit_gradients(amplitude, local, reference, weak, inside_y, inside_x):  # type: ignore[no-untyped-def]
    """Deformation gradient per point from its reflections (all x before y), weighted by their power."""
    reflections, rows, cols = amplitude.shape
    out = np.full((rows, cols, 2, 2), np.nan)
    for i in range(rows):
        for j in range(cols):
            if not (inside_y[i] and inside_x[j]):
                continue
            good = 0
            lxx, lxy, lyx, lyy = 0.0, 0.0, 0.0, 0.0
            rxx, rxy, ryy = 0.0, 0.0, 0.0
            for k in range(reflections):
                x, y, rx, ry = local[k, i, j, 0], local[k, i, j, 1], reference[k, 0], reference[k, 1]
                far = (x - rx) ** 2 + (y - ry) ** 2 > FAR_OF_G * FAR_OF_G * (rx * rx + ry * ry)
                if far or not amplitude[k, i, j] > weak[k]:
                    continue
                w = amplitude[k, i, j] ** 2
                good += 1
                lxx += w * x * rx
                lxy += w * x * ry
                lyx += w * y * rx
                lyy += w * y * ry
                rxx += w * rx * rx
                rxy += w * rx * ry
                ryy += w * ry * ry
            if good < 2:
                continue
            # local = turn @ reference, and F is the inverse transpose of turn = left @ inverse(right)
            det = rxx * ryy - rxy * rxy
            txx, txy = (lxx * ryy - lxy * rxy) / det, (lxy * rxx - lxx * rxy) / det
            tyx, tyy = (lyx * ryy - lyy * rxy) / det, (lyy * rxx - lyx * rxy) / det
            size = txx * tyy - txy * tyx
            out[i, j, 0, 0], out[i, j, 0, 1] = tyy / size, -tyx / size
            out[i, j, 1, 0], out[i, j, 1, 1] = -txy / size, txx / size
    return out


def _gradients(phases: list[_Phase], g: FloatArray, window: Window, axes: tuple[_Axis, _Axis]) -> FloatArray:
    """Deformation gradients (gy, gx, 2, 2), x before y, in square pixels; NaN where fewer than two reflections hold."""
    scale = np.array(window.aspect_yx)
    amplitude = np.stack([phase.amplitude for phase in phases])
    local = np.stack([(phase.g_yx / scale)[..., ::-1] for phase in phases])
    weak = WEAK * np.median(amplitude.reshape(len(phases), -1), axis=1)
    reference = np.ascontiguousarray((g / scale)[:, ::-1])
    out: FloatArray = _fit_gradients(amplitude, local, reference, weak, axes[0].inside(), axes[1].inside())
    return out


def gpa(frame: Frame, lattice: Lattice, settings: StrainSettings) -> GpaField:
    """Measure strain against the frame's own mean lattice by geometric phase analysis.

    Parameters
    ----------
    frame : Frame
        The image.
    lattice : Lattice
        Its lattice, which gives the reciprocal vectors.
    settings : StrainSettings
        The Gaussian window.

    Returns
    -------
    GpaField
        Empty, with a reason, without a lattice or without two reflections that stand out. Points nearer to the border than
        2.25 windows, and points of weak or far-off phase, are NaN. Error of exx
        for equal column errors: sigma / (sqrt(8 pi rho) w^2).
    """
    if not lattice.found:
        return GpaField(reason=lattice.reason or "no lattice")
    window = window_for(frame, lattice, settings.window_nm)
    window_yx = window.px / np.array(window.aspect_yx)
    border = BORDER_WINDOWS * window_yx
    if (2 * border + window_yx > np.array(frame.shape)).any():
        return GpaField(reason="the window is too wide for this frame")
    g = _candidates(lattice)
    binning = max((b for b in (1, 2, 4) if np.abs(g).max() * b <= FINEST_PER_BIN), default=1)
    spectrum = _spectrum(frame, binning, window_yx)
    g = _strongest(spectrum, g)
    if len(g) < 2:
        return GpaField(reason="fewer than two reflections stand out of the noise")
    nearest = np.hypot(*np.linalg.inv(np.column_stack([lattice.a_yx_px, lattice.b_yx_px]))).min()
    if 2 / (2 * np.pi * window.px) > nearest:
        return GpaField(reason="the window is narrower than the cell, so that reflections run into each other")
    step = max(STEP_OF_WINDOW * window.px, max(frame.shape) / MOST_STEPS)
    sides = zip(frame.shape, window_yx, strict=True)
    axis_y, axis_x = (_Axis(int(n), binning, float(step), float(w)) for n, w in sides)
    axes = (axis_y, axis_x)
    f = _gradients([_local_phase(spectrum, v, axes) for v in g], g, window, axes)
    exx, eyy, exy, rotation = strain_of(f)
    reason = "" if np.isfinite(exx).any() else "no place in the frame has two trustworthy phases"
    return GpaField(exx, eyy, exy, 1000 * rotation, step, tuple((float(v[0]), float(v[1])) for v in g), reason)
