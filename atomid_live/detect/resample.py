"""The frame at its canonical scale, where a column is about 1.9 px wide; a frame is never enlarged."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from atomid_live.types import FloatArray

Image = NDArray[np.float32]

CANONICAL_SIGMA_PX = 1.9


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """A frame at another scale.

    Attributes
    ----------
    image : ndarray, shape (rows', cols'), float32
        Area means of the frame's pixels.
    factor_yx : (float, float)
        Pixels of `image` per pixel of the frame, at most 1; the two differ by the rounding of the shape.
    """

    image: Image = field(repr=False)
    factor_yx: tuple[float, float] = (1.0, 1.0)

    def to_frame(self, yx_px: FloatArray) -> FloatArray:
        """Positions (N, 2) in `image` as positions in the frame; pixel centres are whole numbers in both."""
        return np.asarray((yx_px + 0.5) / np.asarray(self.factor_yx) - 0.5)


def resample(pixels: Image, factor: float) -> Resampled:
    """Reduce a frame by `factor` (at most 1, larger values leave it as it is) with area means.

    Parameters
    ----------
    pixels : ndarray, shape (rows, cols), float32
    factor : float
        Wanted pixels out per pixel in.
    """
    rows, cols = pixels.shape
    size = max(1, round(rows * factor)), max(1, round(cols * factor))
    if factor >= 0.99 or size == (rows, cols):
        return Resampled(pixels, (1.0, 1.0))
    image = cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return Resampled(image, (size[0] / rows, size[1] / cols))


def binned(pixels: Image, side: int) -> Resampled:
    """Means over `side` x `side` pixels; what does not fill a bin at the lower and right border is left out.

    Unlike a resize by any other factor it leaves white noise white and equal everywhere.
    """
    if side <= 1:
        return Resampled(pixels, (1.0, 1.0))
    rows, cols = max(1, pixels.shape[0] // side), max(1, pixels.shape[1] // side)
    whole = pixels[: rows * side, : cols * side]
    return Resampled(cv2.resize(whole, (cols, rows), interpolation=cv2.INTER_AREA), (1.0 / side, 1.0 / side))


def to_canonical(pixels: Image, column_sigma_px: float, wanted_px: float = CANONICAL_SIGMA_PX) -> Resampled:
    """Reduce a frame until a column is `wanted_px` wide; narrower columns stay as they are."""
    return resample(pixels, wanted_px / column_sigma_px)
