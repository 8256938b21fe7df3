"""Apparent strain explained by drift within the frame (raster scan, fast along x, slow along y).

While line after line is written the specimen moves on. A point at (x, y) of the specimen is met on row Y when Y = y + ky Y and
drawn at X = x + kx Y, with k = drift velocity times the time from row to row, so that to the picture it seems deformed by
F = [[1, kx / (1 - ky)], [0, 1 / (1 - ky)]]. (CONTRACT's sign: drift is the motion of the specimen's features on the screen.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atomid_live.types import NAN, DriftEstimate, FloatArray, Frame


@dataclass(frozen=True, slots=True)
class DriftStrain:
    """Apparent strain of one frame by drift within it, and its standard error; NaN when drift or line time is unknown."""

    shear_exy: float = NAN
    stretch_eyy: float = NAN
    rotation_mrad: float = NAN
    sigma_shear: float = NAN
    sigma_stretch: float = NAN


def line_time(frame: Frame) -> float:
    """Seconds from the start of one row to the next, from the metadata; NaN when they do not say."""
    meta = frame.meta
    if meta.line_time_s > 0:
        return meta.line_time_s
    if meta.frame_time_s > 0:
        return meta.frame_time_s / frame.shape[0]
    if meta.dwell_s > 0:
        return meta.dwell_s * frame.shape[1]
    return NAN


def apparent_gradient(velocity_yx_px_s: tuple[float, float], line_time_s: float, aspect_yx: float = 1.0) -> FloatArray:
    """Apparent deformation gradient (2, 2), x before y, of a specimen drifting while it is scanned.

    Parameters
    ----------
    velocity_yx_px_s : (float, float)
        Drift in pixels per second.
    line_time_s : float
        Seconds from row to row.
    aspect_yx : float
        Height of a pixel over its width.
    """
    ky, kx = (v * line_time_s for v in velocity_yx_px_s)
    return np.array([[1.0, kx / aspect_yx / (1 - ky)], [0.0, 1 / (1 - ky)]])


def drift_strain(frame: Frame, drift: DriftEstimate) -> DriftStrain:
    """Apparent strain of this frame from the drift velocity over the last frames."""
    seconds = line_time(frame)
    if not (np.isfinite(seconds) and np.isfinite(drift.velocity_yx_px_s).all()):
        return DriftStrain()
    y_nm, x_nm = frame.pixel_size_yx_nm
    f = apparent_gradient(drift.velocity_yx_px_s, seconds, y_nm / x_nm if np.isfinite(y_nm / x_nm) else 1.0)
    error = drift.sigma_velocity_nm_min / 60 * seconds
    return DriftStrain(f[0, 1] / 2, f[1, 1] - 1, -1000 * f[0, 1] / 2, error / (2 * y_nm), error / y_nm)
