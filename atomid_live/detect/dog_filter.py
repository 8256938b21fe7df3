"""The difference of Gaussians that answers to a column of known width, and the noise it passes."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from atomid_live.types import FloatArray

Image = NDArray[np.float32]

NARROW, WIDE = 0.8, 2.0


def _blur(image: Image, sigma_px: float) -> Image:
    side = 2 * ceil(3.0 * sigma_px) + 1
    return np.asarray(cv2.GaussianBlur(image, (side, side), sigma_px, borderType=cv2.BORDER_REFLECT))


def band_pass(image: Image, column_sigma_px: float, narrow: float = NARROW, wide: float = WIDE) -> Image:
    """Gaussian of 0.8 column widths minus Gaussian of 2.0 column widths, shape (rows, cols), float32."""
    out = _blur(image, narrow * column_sigma_px)
    out -= _blur(image, wide * column_sigma_px)
    return out


def transfer(frequency_per_px: FloatArray, column_sigma_px: float) -> FloatArray:
    """Transfer function of `band_pass` at a spatial frequency in cycles per pixel."""
    x = (2.0 * np.pi * column_sigma_px * frequency_per_px) ** 2
    return np.asarray(np.exp(-0.5 * NARROW**2 * x) - np.exp(-0.5 * WIDE**2 * x))


@lru_cache(maxsize=64)
def kernel_sums(column_sigma_px: float) -> tuple[float, float, float]:
    """Sums of the second, third and fourth power of the kernel: they carry the cumulants of white noise through the filter."""
    half = ceil(3.0 * WIDE * column_sigma_px)
    x = np.arange(-half, half + 1) ** 2
    narrow, wide = (np.exp(-0.5 * x / (k * column_sigma_px) ** 2) for k in (NARROW, WIDE))
    kernel = np.outer(narrow, narrow) / narrow.sum() ** 2 - np.outer(wide, wide) / wide.sum() ** 2
    return float((kernel**2).sum()), float((kernel**3).sum()), float((kernel**4).sum())
