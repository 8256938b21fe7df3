"""One frame's numbers as the kernels take them: shapes, offset, scale and threshold rule in one float64 array."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np

from atomid_live.detect.dog_filter import kernel_sums
from atomid_live.detect.judge import REACH_SIGMAS
from atomid_live.detect.normalise import Prepared
from atomid_live.detect.refine import MODEL_SIGMA
from atomid_live.kernels.buffers import LEAST_BIN_PX, LEAST_COMPANY_PX
from atomid_live.kernels.layout import MOST_VECTORS, SPARE, Param
from atomid_live.types import NAN, FloatArray

WIDEST = 1.1


@dataclass(frozen=True, slots=True)
class MapRule:
    """How a network's map is read.

    Attributes
    ----------
    stride : int
        Input pixels per pixel of the map.
    floor : float
        Peaks are above it.
    radius_px : float
        Least distance of peaks in pixels of the map.
    threshold : float
        Least probability; NaN leaves it to the judge.
    lattice, noise_fraction : bool, float
        What the frame's pixels say of the scene.
    vectors : tuple of (int, int)
        By which the map repeats, in its pixels; at most 6.
    """

    stride: int = 1
    floor: float = 0.0
    radius_px: float = 0.0
    threshold: float = NAN
    lattice: bool = True
    noise_fraction: float = 0.0
    vectors: tuple[tuple[int, int], ...] = ()


def canonical_shape(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """Size of the canonical image, rounded as detect/resample.py does."""
    size = max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))
    return shape if factor >= 0.99 else size


def bin_px(sigma_px: float) -> float:
    """Side of the bins: a column of the widest model reaches no further than the next one."""
    return max(float(LEAST_BIN_PX), ceil(MODEL_SIGMA * WIDEST * sigma_px) + 2.0)


def fill(
    prepared: Prepared, sigma_px: float, small: tuple[int, int], padded: tuple[int, int], rule: MapRule, *,
    inverted: bool = False, least_px: float | None = None, fit_width: bool = True,
) -> FloatArray:  # fmt: skip
    """Return the float64 array of `Param` for one frame.

    Parameters
    ----------
    prepared : Prepared
        As on the host before polarity is turned: offset and ceiling, and its largest pixel when `inverted`.
    sigma_px : float
        Width of a column in pixels of the frame.
    small, padded : (int, int)
        Canonical shape, and that of the network's input.
    rule : MapRule
    inverted : bool
        Columns are dark.
    least_px : float or None
        Columns closer than this are one; default 1.3 fitted widths.
    fit_width : bool
        Improve the width on all columns together.

    Raises
    ------
    ValueError
        More vectors than there is room for.
    """
    if len(rule.vectors) > MOST_VECTORS:
        raise ValueError(f"{len(rule.vectors)} lattice vectors; there is room for {MOST_VECTORS}")
    rows, cols = prepared.image.shape
    small_sigma = sigma_px * sqrt(small[0] / rows * small[1] / cols)
    p = np.zeros(SPARE)
    values = {
        Param.ROWS: rows, Param.COLS: cols, Param.SMALL_ROWS: small[0], Param.SMALL_COLS: small[1], Param.PITCH: padded[1],
        Param.OFFSET: prepared.offset, Param.INVERTED: inverted, Param.TOP: float(prepared.image.max()) if inverted else 0.0,
        Param.SIGMA: sigma_px, Param.CEILING: float("inf") if inverted else prepared.ceiling, Param.STRIDE: rule.stride,
        Param.MAP_ROWS: ceil(small[0] / rule.stride), Param.MAP_COLS: ceil(small[1] / rule.stride),
        Param.MAP_PITCH: padded[1] // rule.stride, Param.FLOOR: rule.floor, Param.RADIUS: rule.radius_px,
        Param.THRESHOLD: rule.threshold, Param.LATTICE: rule.lattice, Param.NOISE_FRACTION: rule.noise_fraction,
        Param.LEAST_PX: NAN if least_px is None else least_px,
        Param.FACTOR_Y: small[0] / rows, Param.FACTOR_X: small[1] / cols, Param.BIN_PX: bin_px(sigma_px),
        Param.FIT_WIDTH: fit_width, Param.SMALL_SIGMA: small_sigma, Param.VECTORS: len(rule.vectors),
        Param.COMPANY_PX: max(REACH_SIGMAS * sigma_px, LEAST_COMPANY_PX), Param.WHITE: sqrt(kernel_sums(small_sigma)[0]),
    }  # fmt: skip
    for place, value in values.items():
        p[place] = value
    p[Param.VECTOR_YX : Param.VECTOR_YX + 2 * len(rule.vectors)] = np.ravel(rule.vectors)
    return p
