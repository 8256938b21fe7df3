"""How wide the Gaussian window is on this frame, and pixels made square."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atomid_live.types import NAN, Frame, Lattice

UNCALIBRATED_SPACINGS = 1.5


@dataclass(frozen=True, slots=True)
class Window:
    """Gaussian radius w: `nm` (NaN when uncalibrated), `px` in pixels of the mean size, and what makes pixels square.

    Multiply (row, column) pixels by `aspect_yx` to get square pixels of side `pixel_nm`, the geometric mean of both sides.
    """

    nm: float
    px: float
    aspect_yx: tuple[float, float]
    pixel_nm: float


def window_for(frame: Frame, lattice: Lattice, window_nm: float) -> Window:
    """Window of a frame; without a pixel size it is 1.5 column spacings, the spacing of an even hexagonal layer as dense."""
    y_nm, x_nm = frame.pixel_size_yx_nm
    if np.isfinite(y_nm) and np.isfinite(x_nm):
        side = float(np.sqrt(y_nm * x_nm))
        return Window(window_nm, window_nm / side, (y_nm / side, x_nm / side), side)
    area = abs(lattice.a_yx_px[0] * lattice.b_yx_px[1] - lattice.a_yx_px[1] * lattice.b_yx_px[0])
    classes = int(lattice.site.max(initial=0)) + 1
    return Window(NAN, UNCALIBRATED_SPACINGS * float(np.sqrt(2 / np.sqrt(3) * area / classes)), (1.0, 1.0), NAN)
