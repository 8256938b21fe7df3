"""Small rendered frames of points, without noise but for what is asked."""

from __future__ import annotations

import numpy as np

from atomid_live.types import Frame, Origin


def render(points: np.ndarray, shape: tuple[int, int], sigma_px: float) -> np.ndarray:
    """Sum of Gaussians of height 1."""
    image = np.zeros(shape)
    reach = int(5 * sigma_px) + 1
    for y, x in points[((points > -reach) & (points < np.array(shape) + reach)).all(axis=1)]:
        rows = np.arange(max(0, int(y) - reach), min(shape[0], int(y) + reach + 1))
        cols = np.arange(max(0, int(x) - reach), min(shape[1], int(x) + reach + 1))
        blob = np.outer(np.exp(-0.5 * ((rows - y) / sigma_px) ** 2), np.exp(-0.5 * ((cols - x) / sigma_px) ** 2))
        image[np.ix_(rows, cols)] += blob
    return image


def frame_of(pixels: np.ndarray, pixel_nm=(0.0125, 0.0125), sequence=0, time_s=0.0, **more) -> Frame:
    """Frame with a pixel size, y before x."""
    return Frame(sequence, pixels, time_s, Origin("test"), pixel_size_yx_nm=pixel_nm, **more)
