"""Brightness where a column should be and none was found: least squares of a column of known place and width on the pixels.

Without it a column that fell under the detector's threshold could not be told from one that is gone.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from atomid_live.types import FloatArray

HALF_SIGMAS = 1.5
MOST_HALF_PX = 12


def forced_amplitude(pixels: NDArray[Any], yx_px: FloatArray, column_sigma_px: float) -> FloatArray:
    """Height over the local background at each place (M, 2), in units of the pixels; NaN at the border or on NaN pixels.

    The model is height * exp(-r^2 / 2 sigma^2) + background over a square of 1.5 sigma each way, both linear.
    """
    half = int(min(max(2, round(HALF_SIGMAS * column_sigma_px)), MOST_HALF_PX))
    if not len(yx_px) or not column_sigma_px > 0:
        return np.full(len(yx_px), np.nan)
    out: FloatArray = _heights(pixels, np.asarray(yx_px, np.float64), float(column_sigma_px), half)
    return out


@numba.njit(nogil=True, cache=True)
def _heights(pixels, yx, sigma, half):  # type: ignore[no-untyped-def]
    side = 2 * half + 1
    out, y, x = np.full(len(yx), np.nan), np.empty(side), np.empty(side)
    for k in range(len(yx)):
        row, col = round(yx[k, 0]), round(yx[k, 1])
        if row < half or row >= pixels.shape[0] - half or col < half or col >= pixels.shape[1] - half:
            continue
        for i in range(side):
            y[i] = np.exp(-0.5 * ((row - half + i - yx[k, 0]) / sigma) ** 2)
            x[i] = np.exp(-0.5 * ((col - half + i - yx[k, 1]) / sigma) ** 2)
        mean, both, square = y.sum() * x.sum() / side**2, 0.0, 0.0
        for i in range(side):
            for j in range(side):
                shape = y[i] * x[j] - mean
                both += shape * pixels[row - half + i, col - half + j]
                square += shape * shape
        out[k] = both / square
    return out
