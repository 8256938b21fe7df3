"""Geometric phase analysis: strain from the phases of the frame's strong reflections, without columns and without unwrapping.

Hytch, Snoeck, Kilaas 1998, with the local reciprocal vectors of Rouviere and Sarigiannidou 2005, so that large strain is exact.
The Gaussian window is the column method's, which makes the two comparable. Only the part of the spectrum around a reflection
is transformed back, onto a coarse grid.
"""

from __future__ import annotations

from dataclasses import dataclass

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

    def power_near(self, g_yx: FloatArray) -> float:
        """Greatest power within two bins of a reciprocal vector in cycles per raw pixel."""
        k = np.rint(g_yx * self.binning * np.array(self.shape)).astype(int)
        rows = np.arange(k[0] - 2, k[0] + 3)
        columns = np.arange(k[1] - 2, k[1] + 3)
        return float(np.abs(self.patch(rows, columns)).max())

    def patch(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.complex64]:
        """Values at signed bins; those left of the axis come from the mirrored half."""
        height, width = self.shape
        left = columns < 0
        out = np.empty((len(rows), len(columns)), np.complex64)
        out[:, ~left] = self.values[np.ix_(rows % height, np.minimum(columns[~left], width // 2))]
        if left.any():
            out[:, left] = self.values[np.ix_(-rows % height, np.minimum(-columns[left], width // 2))].conj()
        return out


def _taper(count: int, length: float) -> NDArray[np.float32]:
    """Rise from 0 to 1 over `length` at both ends, so that the far side does not wrap into a window near the border."""
    away = np.minimum(np.arange(count), np.arange(count)[::-1]) + 0.5
    return np.asarray(np.sin(np.pi / 2 * np.clip(away / length, 0, 1)) ** 2, np.float32)


def _lag(count: int, binning: int, window: float, at: FloatArray) -> FloatArray:
    """How far the centre of gravity under the tapered window moves per pixel that the window moves, shape of `at`.

    The phase of a windowed wave is that of its centre of gravity, so where the taper cuts into the window a slope reads low by
    this factor.
    """
    x = np.arange(count // binning) * binning + (binning - 1) / 2
    taper = _taper(count // binning, TAPER_WINDOWS * window / binning)
    weight = taper * np.exp(-0.5 * ((at[:, None] - x) / window) ** 2)
    total = np.maximum(weight.sum(axis=1), 1e-12)
    mean = weight @ x / total
    return np.asarray((weight @ (x * x) / total - mean**2) / window**2)


def _spectrum(frame: Frame, binning: int, window_yx: FloatArray) -> _Spectrum:
    import cv2
    import scipy.fft

    height, width = (n // binning for n in frame.shape)
    image = np.ascontiguousarray(frame.pixels[: height * binning, : width * binning], dtype=np.float32)
    if binning > 1:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    rise = TAPER_WINDOWS * window_yx / binning
    image = (image - image.mean()) * _taper(height, rise[0])[:, None] * _taper(width, rise[1])
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
    power = np.array([spectrum.power_near(v) for v in g])
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


def _local_phase(spectrum: _Spectrum, g: FloatArray, window_yx: FloatArray, y: FloatArray, x: FloatArray) -> _Phase:
    shape = np.array(spectrum.shape)
    size = shape * spectrum.binning
    spread = size / (2 * np.pi * window_yx)
    centre = g * size
    half = np.ceil(BAND_SIGMAS * spread).astype(int)
    rows = np.arange(int(np.floor(centre[0])) - half[0], int(np.ceil(centre[0])) + half[0] + 1)
    columns = np.arange(int(np.floor(centre[1])) - half[1], int(np.ceil(centre[1])) + half[1] + 1)
    limit = shape // 2 - 1
    rows, columns = rows[np.abs(rows) <= limit[0]], columns[np.abs(columns) <= limit[1]]
    dy, dx = (rows - centre[0]) / size[0], (columns - centre[1]) / size[1]
    band = np.outer(np.exp(-2 * (np.pi * window_yx[0] * dy) ** 2), np.exp(-2 * (np.pi * window_yx[1] * dx) ** 2))
    values = spectrum.patch(rows, columns) * band
    middle = (spectrum.binning - 1) / 2
    to_y = np.exp(2j * np.pi * np.outer(y - middle, dy))
    to_x = np.exp(2j * np.pi * np.outer(dx, x - middle))
    right = values @ to_x
    h = to_y @ right
    slope_y = (to_y * (2j * np.pi * dy)) @ right
    slope_x = to_y @ (values @ (to_x * (2j * np.pi * dx)[:, None]))
    power = np.maximum(np.abs(h) ** 2, 1e-30)
    lag = [_lag(int(n), spectrum.binning, float(w), at) for n, w, at in zip(size, window_yx, (y, x), strict=True)]
    dphase_y = np.imag(h.conj() * slope_y) / power / np.maximum(lag[0], LEAST_LAG)[:, None]
    dphase_x = np.imag(h.conj() * slope_x) / power / np.maximum(lag[1], LEAST_LAG)
    local = [g[0] + dphase_y / (2 * np.pi), g[1] + dphase_x / (2 * np.pi)]
    return _Phase(np.sqrt(power), np.stack(local, axis=-1))


def _gradients(phases: list[_Phase], g: FloatArray, window: Window) -> FloatArray:
    """Deformation gradients (gy, gx, 2, 2), x before y, in square pixels; NaN where fewer than two reflections hold."""
    scale = np.array(window.aspect_yx)
    reference = (g / scale)[:, ::-1]
    shape = phases[0].amplitude.shape
    left, right = np.zeros((*shape, 2, 2)), np.zeros((*shape, 2, 2))
    good = np.zeros(shape, int)
    for phase, ref in zip(phases, reference, strict=True):
        local = (phase.g_yx / scale)[..., ::-1]
        far = np.hypot(*(np.moveaxis(local, -1, 0) - ref[:, None, None])) > FAR_OF_G * np.hypot(*ref)
        ok = (phase.amplitude > WEAK * np.median(phase.amplitude)) & ~far
        weight = np.where(ok, phase.amplitude**2, 0.0)[..., None, None]
        left += weight * local[..., :, None] * ref
        right += weight * np.outer(ref, ref)
        good += ok
    held = good >= 2
    out = np.full((*shape, 2, 2), np.nan)
    turn = left[held] @ np.linalg.inv(right[held])
    out[held] = np.linalg.inv(turn).transpose(0, 2, 1)
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
    y, x = (np.arange(int((n - 1) / step) + 1, dtype=np.float64) * step for n in frame.shape)
    f = _gradients([_local_phase(spectrum, v, window_yx, y, x) for v in g], g, window)
    inside = np.outer(
        (y >= border[0]) & (y <= frame.shape[0] - 1 - border[0]), (x >= border[1]) & (x <= frame.shape[1] - 1 - border[1])
    )
    f[~inside] = np.nan
    exx, eyy, exy, rotation = strain_of(f)
    reason = "" if np.isfinite(exx).any() else "no place in the frame has two trustworthy phases"
    return GpaField(exx, eyy, exy, 1000 * rotation, step, tuple((float(v[0]), float(v[1])) for v in g), reason)
