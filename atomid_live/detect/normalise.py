"""Pixels fit for arithmetic: float32, finite, columns bright; local contrast is `local_contrast`, shared with training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomid_live.detect.local_contrast import local_contrast
from atomid_live.flags import Flag

Image = NDArray[np.float32]

__all__ = ["Prepared", "local_contrast", "prepare"]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A frame ready for detection.

    Attributes
    ----------
    image : ndarray, shape (rows, cols), float32
        Pixels minus `offset`, finite; an own copy.
    offset : float
        What was subtracted, so that large counts keep their digits in float32.
    frame_flags : int
        SANITISED, CONSTANT.
    ceiling : float
        Value (in `image`) at which pixels are clipped; infinity where none seem to be.
    """

    image: Image = field(repr=False)
    offset: float = 0.0
    frame_flags: int = 0
    ceiling: float = float("inf")


def _ceiling(image: Image, highest: float, limited: bool) -> float:
    """The top value counts as a limit when it is the type's own or is shared by more pixels than chance explains."""
    shared = int(np.count_nonzero(image >= highest))
    return highest if limited or shared >= max(16, image.size // 50_000) else float("inf")


def prepare(pixels: NDArray[Any]) -> Prepared:
    """Convert any real frame to finite float32; NaN and infinite pixels take the median of the finite ones.

    Parameters
    ----------
    pixels : ndarray, shape (rows, cols), any real dtype
    """
    flags = 0
    if pixels.dtype.kind not in "iub":
        with np.errstate(over="ignore", invalid="ignore"):
            total = float(np.sum(pixels, dtype=np.float64))
        # half the largest float32 is the most whose difference to an offset is still finite
        if not abs(total) < 1e37 or (pixels.dtype.itemsize > 4 and float(np.max(np.abs(pixels))) > 1e37):
            bad = ~(np.abs(pixels) < 1e37)
            flags |= Flag.SANITISED
            good = pixels[~bad]
            pixels = np.where(bad, np.median(good) if good.size else 0.0, pixels)
    if pixels.size == 0:
        return Prepared(np.zeros(pixels.shape, np.float32), 0.0, int(flags | Flag.CONSTANT))
    lowest, highest = pixels.min(), pixels.max()
    if lowest == highest:
        return Prepared(np.zeros(pixels.shape, np.float32), float(lowest), int(flags | Flag.CONSTANT))
    offset = float(lowest)
    if pixels.dtype.itemsize <= 2 and pixels.dtype.kind != "f":
        image = pixels.astype(np.float32)
        image -= np.float32(offset)
    else:
        image = (pixels.astype(np.float64) - offset).astype(np.float32)
    limited = pixels.dtype.kind in "iu" and int(highest) == int(np.iinfo(pixels.dtype).max)
    return Prepared(image, offset, int(flags), _ceiling(image, float(image.max()), limited))
