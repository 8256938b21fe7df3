"""From pixels to what is registered: binned to about 512 x 512, smoothed to the width of a column, flattened, unit spread."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from atomid_live.drift.overlap import Image

WORKING_SIZE = 512
LEAST_SIZE = 48
OUTLIER_SIGMAS = 5.0


def clip_outliers(image: Image, sigmas: float) -> None:
    """Bound the image, in place, to some robust standard deviations about zero.

    One bright adatom may hop; unbounded it would outweigh the whole lattice.
    """
    limit = np.float32(sigmas * 1.4826 * float(np.median(np.abs(image[::7, ::7]))))
    if limit > 0:
        np.clip(image, -limit, limit, out=image)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A frame ready to be registered.

    Attributes
    ----------
    image : ndarray, shape (rows / bin, cols / bin), float32
        Smoothed, local mean removed, standard deviation 1; all zero when the frame holds nothing.
    binned : ndarray, shape (rows / bin, cols / bin), float32
        Before smoothing and flattening; memory that the next frame may use again.
    bin_px : int
        Pixels of the frame per pixel of `image`.
    empty : bool
        No contrast at all.
    """

    image: Image = field(repr=False)
    binned: Image = field(repr=False)
    bin_px: int
    empty: bool


class Preparer:
    """Turns frames of one shape into `Prepared` ones; owns the scratch memory.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the frames.
    column_sigma_px : float
        Width of a column in pixels of the frame where known; NaN lets a usual one be taken.
    """

    def __init__(self, shape: tuple[int, int], column_sigma_px: float = math.nan) -> None:
        self.shape = shape
        self.bin_px = max(1, round(math.sqrt(shape[0] * shape[1]) / WORKING_SIZE))
        self.binned_shape = shape[0] // self.bin_px, shape[1] // self.bin_px
        usual = 1.2 if not math.isfinite(column_sigma_px) else column_sigma_px / self.bin_px
        self.smooth_px = min(max(usual, 0.8), 3.0)
        self.flatten_px = 2 * min(round(12 * self.smooth_px), min(self.binned_shape) // 6) + 1
        self._full = np.empty(shape, np.float32)
        self._small, self._level = (np.empty(self.binned_shape, np.float32) for _ in range(2))

    @property
    def too_small(self) -> bool:
        """Whether frames of this shape hold too little to be registered."""
        return min(self.binned_shape) < LEAST_SIZE

    def prepare(self, pixels: NDArray[Any]) -> Prepared:
        """Prepare one frame; NaN and infinite pixels are taken as its mean."""
        np.copyto(self._full, pixels, casting="unsafe")
        rows, cols = (self.binned_shape[0] * self.bin_px, self.binned_shape[1] * self.bin_px)
        full = self._full[:rows, :cols]
        binned = self._binned(full)
        if not math.isfinite(float(binned.sum())):
            finite = np.isfinite(full)
            np.copyto(full, np.float32(full[finite].mean() if finite.any() else 0.0), where=~finite)
            binned = self._binned(full)
        smooth = cv2.GaussianBlur(binned, (0, 0), self.smooth_px)
        level_map = cv2.boxFilter(binned, -1, (self.flatten_px, self.flatten_px), dst=self._level)
        image = np.subtract(smooth, level_map, out=smooth)
        clip_outliers(image, OUTLIER_SIGMAS)
        flat = image.ravel()
        spread = math.sqrt(float(np.dot(flat, flat)) / flat.size)
        level = abs(float(flat[0])) + abs(float(binned.max()))
        if not spread > 1e-5 * level:
            return Prepared(np.zeros(self.binned_shape, np.float32), binned, self.bin_px, True)
        image *= np.float32(1 / spread)
        return Prepared(image, binned, self.bin_px, False)

    def _binned(self, full: Image) -> Image:
        if self.bin_px == 1:
            return full
        size = (self.binned_shape[1], self.binned_shape[0])
        binned: Image = cv2.resize(full, size, dst=self._small, interpolation=cv2.INTER_AREA)
        return binned
