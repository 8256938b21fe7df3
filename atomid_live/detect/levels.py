"""A frame at whole-number reductions, each made once: what scale estimate and detection share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atomid_live.detect.local_contrast import local_contrast
from atomid_live.detect.resample import Resampled, binned
from atomid_live.types import FloatArray

Image = NDArray[np.float32]

# narrower columns than this are no longer well sampled
LEAST_SIGMA_PX = 1.2
# full resolution costs four times as much as half, and down to this width it finds no more
HALVED_FROM_PX = 2.2


class Level:
    """One reduction: `side` pixels of the frame a pixel."""

    def __init__(self, pixels: Image, side: int, times: int | None = None) -> None:
        """Bin `pixels`, themselves reduced before if `times` (of `side`) is given, `times` x `times` into one."""
        self.side = side
        self.image = binned(pixels, side if times is None else times).image
        self._resampled = Resampled(self.image, (1.0 / side, 1.0 / side))
        self._contrast: Image | None = None

    @property
    def contrast(self) -> Image:
        """Local contrast of the image, made when first asked for."""
        if self._contrast is None:
            self._contrast = local_contrast(self.image)
        return self._contrast

    def sigma_px(self, column_sigma_px: float) -> float:
        """Width here of a column of that width in the frame."""
        return column_sigma_px / self.side

    def to_frame(self, yx_px: FloatArray) -> FloatArray:
        """Positions (N, 2) here as positions in the frame."""
        return self._resampled.to_frame(yx_px)


class Levels:
    """The reductions of one frame.

    Parameters
    ----------
    pixels : ndarray, shape (rows, cols), float32
        Finite, columns bright.
    """

    def __init__(self, pixels: Image) -> None:
        self.pixels = pixels
        self._made = dict[int, Level]()

    def reduced(self, side: int) -> Level:
        """The frame reduced by `side`; by an even one, from the frame reduced half as much."""
        if side not in self._made:
            halved = side % 2 == 0 and side > 2
            self._made[side] = Level(self.reduced(side // 2).image, side, 2) if halved else Level(self.pixels, side)
        return self._made[side]

    def fitting(self, column_sigma_px: float) -> Level:
        """The strongest reduction at which a column is still well sampled."""
        side = int(column_sigma_px / LEAST_SIGMA_PX)
        return self.reduced(max(1 + (column_sigma_px >= HALVED_FROM_PX), side))
