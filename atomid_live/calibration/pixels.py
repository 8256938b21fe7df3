"""The only px <-> nm code, and the one place that turns (row, column) into the x, y of files, messages and screens."""

from __future__ import annotations

import math

import numpy as np

from atomid_live.types import FloatArray


def xy(pair_yx: tuple[float, float]) -> tuple[float, float]:
    """Turn a (row, column) pair into (x, y): x is the column, to the right; y the row, downwards."""
    return pair_yx[1], pair_yx[0]


def yx(pair_xy: tuple[float, float]) -> tuple[float, float]:
    """Turn an (x, y) pair of a file or the user into (row, column)."""
    return pair_xy[1], pair_xy[0]


def xy_columns(points_yx: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the x and y columns, each of shape (N,), of points of shape (N, 2) in (row, column)."""
    return points_yx[:, 1], points_yx[:, 0]


def yx_points(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return points of shape (N, 2) in (row, column) from the x and y columns of a file."""
    return np.column_stack([y, x]).astype(np.float64, copy=False)


def is_calibrated(pixel_size_yx_nm: tuple[float, float]) -> bool:
    """Whether both pixel sizes are known: finite and positive."""
    return all(math.isfinite(size) and size > 0 for size in pixel_size_yx_nm)


def pair_nm(pair_yx_px: tuple[float, float], pixel_size_yx_nm: tuple[float, float]) -> tuple[float, float]:
    """Return a (row, column) displacement or position in nm; NaN when uncalibrated."""
    if not is_calibrated(pixel_size_yx_nm):
        return math.nan, math.nan
    return pair_yx_px[0] * pixel_size_yx_nm[0], pair_yx_px[1] * pixel_size_yx_nm[1]


def points_nm(points_yx_px: FloatArray, pixel_size_yx_nm: tuple[float, float]) -> FloatArray:
    """Return points of shape (N, 2) in nm from the centre of the top-left pixel; all NaN when uncalibrated."""
    size = np.array(pixel_size_yx_nm if is_calibrated(pixel_size_yx_nm) else (math.nan, math.nan))
    return np.asarray(points_yx_px * size, dtype=np.float64)


def mean_pixel_nm(pixel_size_yx_nm: tuple[float, float]) -> float:
    """Side in nm of the square of a pixel's area, for lengths without a direction; NaN when uncalibrated."""
    return math.sqrt(pixel_size_yx_nm[0] * pixel_size_yx_nm[1]) if is_calibrated(pixel_size_yx_nm) else math.nan


def length_nm(length_px: float, pixel_size_yx_nm: tuple[float, float]) -> float:
    """Return a length without a direction (a spacing, a width) in nm; NaN when uncalibrated."""
    return length_px * mean_pixel_nm(pixel_size_yx_nm)


def length_px(length_nm: float, pixel_size_yx_nm: tuple[float, float]) -> float:
    """Return a length without a direction (a window, a separation) in pixels; NaN when uncalibrated."""
    return length_nm / mean_pixel_nm(pixel_size_yx_nm)
