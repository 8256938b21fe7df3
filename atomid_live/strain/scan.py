"""Apparent strain explained by drift within the frame (raster scan, fast along x, slow along y).

While line after line is written the specimen moves on. A point at (x, y) of the specimen is met on row Y when Y = y + ky Y and
drawn at X = x + kx Y, with k = drift velocity times the time from row to row, so that to the picture it seems deformed by
F = [[1, kx / (1 - ky)], [0, 1 / (1 - ky)]]. (CONTRACT's sign: drift is the motion of the specimen's features on the screen.)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from atomid_live.flags import Flag
from atomid_live.types import NAN, DriftEstimate, FloatArray, Frame, Lattice, ScanMotion

REMEMBERED = 6
LEAST_FRAMES = 3
FRAMES_FOR_CHANGE = 5
LEAST_SIGMA_PX = 0.02
UNTOLD_FLYBACK = 0.1
UNSURE = int(Flag.DRIFT_POOR | Flag.DRIFT_LOST)
SETTLED = 0.6
BROKEN = int(Flag.DRIFT_JUMP | Flag.CLOCK_STEP)


@dataclass(frozen=True, slots=True)
class DriftStrain:
    """Apparent strain of one frame by drift within it, and its standard error; NaN when drift or line time is unknown."""

    shear_exy: float = NAN
    stretch_eyy: float = NAN
    rotation_mrad: float = NAN
    sigma_shear: float = NAN
    sigma_stretch: float = NAN


@dataclass(frozen=True, slots=True)
class LineTime:
    """Seconds from the start of one row to the next, relative standard error, and what it leaves out ("" for nothing)."""

    seconds: float = NAN
    relative_sigma: float = 0.0
    remark: str = ""


def line_time(frame: Frame) -> LineTime:
    """Time per row from the metadata: line time, or frame time over rows, both with fly-back, or dwell time without it."""
    meta = frame.meta
    if meta.line_time_s > 0:
        return LineTime(meta.line_time_s)
    if meta.frame_time_s > 0:
        return LineTime(meta.frame_time_s / frame.shape[0])
    if meta.dwell_s > 0:
        return LineTime(meta.dwell_s * frame.shape[1], UNTOLD_FLYBACK, "line time from the dwell time, fly-back not known")
    return LineTime()


def apparent_gradient(per_row_yx_px: tuple[float, float], aspect_yx: float = 1.0) -> FloatArray:
    """Apparent deformation gradient (2, 2), x before y, of a specimen drifting while it is scanned.

    Parameters
    ----------
    per_row_yx_px : (float, float)
        Motion of the specimen in pixels from one row to the next.
    aspect_yx : float
        Height of a pixel over its width.
    """
    ky, kx = per_row_yx_px
    return np.array([[1.0, kx / aspect_yx / (1 - ky)], [0.0, 1 / (1 - ky)]])


def aspect_of(frame: Frame) -> float:
    """Height of a pixel over its width; 1 where unknown."""
    y_nm, x_nm = frame.pixel_size_yx_nm
    return y_nm / x_nm if np.isfinite(y_nm / x_nm) else 1.0


def drift_strain(motion: ScanMotion, aspect_yx: float = 1.0) -> DriftStrain:
    """Apparent strain that a motion within the frame explains."""
    if not motion.known:
        return DriftStrain()
    f = apparent_gradient(motion.per_row_yx_px, aspect_yx)
    sigma_y, sigma_x = motion.sigma_per_row_yx_px
    return DriftStrain(f[0, 1] / 2, f[1, 1] - 1, -1000 * f[0, 1] / 2, sigma_x / aspect_yx / 2, sigma_y)


@dataclass(frozen=True, slots=True)
class _Total:
    time_s: float
    yx_px: tuple[float, float]
    sigma_yx_px: tuple[float, float]
    time_sigma_s: float
    ambiguous: bool


class MotionMemory:
    """Velocity of the specimen at the newest frame, from the last six totals.

    Notes
    -----
    Shear within a frame wants the velocity *of that frame*; one over a dozen frames lags behind a drift that settles. So: a
    straight line through three or four totals, a parabola through five or six, its slope at the newest. Weights follow the
    error of each total and, times the velocity, of its time stamp; the error is the larger of the stated errors and the scatter
    about the curve.
    """

    def __init__(self) -> None:
        """Begin without a past; `beginning` is true while more frames will tell a velocity."""
        self._kept: deque[_Total] = deque(maxlen=REMEMBERED)
        self.beginning = False

    def update(self, frame: Frame, drift: DriftEstimate) -> ScanMotion:
        """Motion within this frame; a total that is not sure is not remembered and explains nothing."""
        line = line_time(frame)
        if drift.flags & BROKEN:
            self._kept.clear()
        sure = not drift.flags & UNSURE and np.isfinite([*drift.total_yx_px, frame.time_s]).all()
        if sure:
            known = [s if np.isfinite(s) else 0.0 for s in drift.sigma_yx_px]
            stamp = frame.time_sigma_s if np.isfinite(frame.time_sigma_s) else 0.0
            ambiguous = bool(drift.flags & Flag.MODULO_LATTICE)
            self._kept.append(_Total(frame.time_s, drift.total_yx_px, (known[0], known[1]), stamp, ambiguous))
        self.beginning = False
        if not np.isfinite(line.seconds):
            return ScanMotion(reason="the frame does not say its line, frame or dwell time")
        if not sure:
            return ScanMotion(reason=drift.note or "drift of this frame is not sure")
        self.beginning = len(self._kept) < LEAST_FRAMES
        if self.beginning:
            return ScanMotion(reason=f"a velocity needs {LEAST_FRAMES} frames")
        return self._motion(line)

    def _motion(self, line: LineTime) -> ScanMotion:
        time = np.array([t.time_s for t in self._kept]) - self._kept[-1].time_s
        stamp = np.array([t.time_sigma_s for t in self._kept])
        if not np.ptp(time) > max(1e-9, float(stamp.max())):
            return ScanMotion(reason="the time stamps of the last frames do not tell them apart")
        slopes = []
        for axis in (0, 1):
            place = np.array([t.yx_px[axis] for t in self._kept])
            sigma = np.array([t.sigma_yx_px[axis] for t in self._kept])
            slopes.append(_slope_now(time, place, np.maximum(sigma, LEAST_SIGMA_PX), stamp))
        (vy, sy), (vx, sx) = slopes
        lines = line.seconds
        interval = float(np.ptp(time)) / (len(time) - 1)
        return ScanMotion(
            (vy * lines, vx * lines),
            (lines * float(np.hypot(sy, vy * line.relative_sigma)), lines * float(np.hypot(sx, vx * line.relative_sigma))),
            "",
            line.remark,
            lines / interval if any(t.ambiguous for t in self._kept) else 0.0,
        )


def settled(motion: ScanMotion, lattice: Lattice, mean_gradient: FloatArray, there: FloatArray, aspect_yx: float) -> ScanMotion:
    """Decide about a drift known only up to a lattice vector by the shear of the frame itself.

    A vector too many per frame would shear the frame by per cents. The motion stands when the frame's mean strain, corrected by
    it, is clearly smaller than corrected by any neighbouring motion; else it is not known.

    Parameters
    ----------
    mean_gradient, there : ndarray, shape (2, 2)
        Gradient of the frame's mean lattice against the reference, and apparent gradient of the reference itself.
    """
    if not motion.known or not motion.row_share:
        return motion
    a, b = np.array(lattice.a_yx_px), np.array(lattice.b_yx_px)
    sizes = []
    for i, j in ((0, 0), (1, 0), (0, 1), (1, 1), (1, -1), (-1, 0), (0, -1), (-1, -1), (-1, 1)):
        y, x = np.array(motion.per_row_yx_px) + motion.row_share * (i * a + j * b)
        f = np.linalg.inv(apparent_gradient((float(y), float(x)), aspect_yx)) @ mean_gradient @ there
        sizes.append(float(np.linalg.norm(f.T @ f - np.eye(2))))
    if sizes[0] < SETTLED * min(sizes[1:]):
        told = "drift known only up to a lattice vector, which the frame's own shear decides"
        return replace(motion, remark="; ".join(word for word in (motion.remark, told) if word))
    return ScanMotion(reason="drift is known only up to a lattice vector")


def _slope_now(time: FloatArray, place: FloatArray, sigma: FloatArray, stamp: FloatArray) -> tuple[float, float]:
    """Slope at time 0 of a line or parabola through places, and its standard error."""
    degree = 2 if len(time) >= FRAMES_FOR_CHANGE else 1
    scale = float(np.ptp(time))
    terms = np.stack([(time / scale) ** d for d in range(degree + 1)], axis=1)
    slope, error = 0.0, sigma
    for _ in range(2):
        error = np.hypot(sigma, slope * stamp)
        inverse = np.linalg.inv((terms / error[:, None] ** 2).T @ terms)
        coefficient = inverse @ terms.T @ (place / error**2)
        slope = float(coefficient[1]) / scale
    rest = (place - terms @ coefficient) / error
    freedom = len(time) - degree - 1
    excess = float(rest @ rest) / freedom if freedom else 1.0
    return slope, float(np.sqrt(max(excess, 1.0) * inverse[1, 1])) / scale
