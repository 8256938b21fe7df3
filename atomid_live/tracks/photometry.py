"""Brightness where a column should be and none was found: least squares of a column of known place and width on the pixels.

Without it a column that fell under the detector's threshold could not be told from one that is gone.
"""

from __future__ import annotations

from typing import Any

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
    out = np.full(len(yx_px), np.nan)
    centre = np.rint(yx_px).astype(np.int64)
    inside = ((centre >= half) & (centre < np.array(pixels.shape) - half)).all(axis=1)
    if not inside.any() or not column_sigma_px > 0:
        return out
    step = np.arange(-half, half + 1)
    rows = centre[inside, 0][:, None] + step
    cols = centre[inside, 1][:, None] + step
    window = pixels[rows[:, :, None], cols[:, None, :]].astype(np.float64)
    y = np.exp(-0.5 * ((rows - yx_px[inside, 0][:, None]) / column_sigma_px) ** 2)
    x = np.exp(-0.5 * ((cols - yx_px[inside, 1][:, None]) / column_sigma_px) ** 2)
    shape = y[:, :, None] * x[:, None, :]
    shape -= shape.mean(axis=(1, 2), keepdims=True)
    out[inside] = (shape * window).sum(axis=(1, 2)) / (shape**2).sum(axis=(1, 2))
    return out
