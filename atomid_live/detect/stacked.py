"""The width of columns from the mean of many, pixel by pixel."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from atomid_live.types import NAN, IntArray

Image = NDArray[np.float32]


def stacked_sigma(image: Image, yx: IntArray, guess_px: float, use: Image | None = None) -> float:
    """Width of the mean column around `yx`, by a Gaussian on a constant within 1.7 guesses; NaN where none fits.

    Parameters
    ----------
    image : ndarray, shape (rows, cols), float32
    yx : ndarray, shape (N, 2), int64
    guess_px : float
    use : ndarray, shape (rows, cols), float32, or None
        1 where a pixel may be used.
    """
    half = max(2, int(1.7 * guess_px + 0.5))
    rows, cols = image.shape
    inner = (yx[:, 0] >= half) & (yx[:, 0] < rows - half) & (yx[:, 1] >= half) & (yx[:, 1] < cols - half)
    centres = yx[inner][:600]
    if len(centres) < 3:
        return NAN
    step = np.arange(-half, half + 1)
    square = (step[:, None] ** 2 + step**2).astype(np.float64)
    near = square <= (1.7 * guess_px) ** 2 + 0.5
    down, right = np.nonzero(near)
    where = (centres[:, 0, None] * cols + centres[:, 1, None]) + (down - half) * cols + (right - half)
    values = image.reshape(-1)[where]
    held = np.ones_like(values) if use is None else use.reshape(-1)[where]
    weight = held.sum(0, dtype=np.float64)
    some = weight > 0
    mean = (values * held).sum(0, dtype=np.float64)[some] / weight[some]
    weight, r2 = weight[some], square[near][some]
    ladder = guess_px * np.geomspace(0.5, 2.0, 61)
    shape = np.exp(-0.5 * r2 / ladder[:, None] ** 2)
    # weighted straight line of the mean column against each shape
    total = weight.sum()
    shape -= (shape @ weight)[:, None] / total
    mean = mean - mean @ weight / total
    up, own = shape @ (weight * mean), (shape**2) @ weight
    gain = np.where(up > 0, up**2 / np.maximum(own, 1e-30), 0.0)
    if not gain.max() > 0:
        return NAN
    # whole-pixel stacking widens the mean by the variance of the rounding
    return sqrt(max(float(ladder[int(np.argmax(gain))]) ** 2 - 1.0 / 12.0, 0.25))
