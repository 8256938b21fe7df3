"""One frame's numbers as the kernels take them: shapes, offset, scale and threshold rule in one float64 array."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np

from atomid_live.detect.dog_filter import kernel_sums
from atomid_live.detect.normalise import Prepared
from atomid_live.detect.refine import MODEL_SIGMA
from atomid_live.errors import UsageError
from atomid_live.kernels.layout import KNOTS, SPARE, Param
from atomid_live.types import NAN, FloatArray

LEAST_BIN_PX = 8.0
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
    quantile : float
        Of the heights, looked up in `typical`.
    typical, least : tuple of float
        Knots of the threshold; at most 8.
    least_score : float
        Columns score at least this.
    significance : float
        Sparse frames only: least height of the band-passed image at a column, in standard deviations of its noise.
    faintest_part : float
        Columns whose fitted height is under this part of the median height are none.
    clear_part, company_px : float
        Lattices only: least height of a doubtful peak, as a part of the bright columns', and how near its company must be.
    """

    stride: int = 1
    floor: float = 0.0
    radius_px: float = 0.0
    quantile: float = 0.75
    typical: tuple[float, ...] = (0.0,)
    least: tuple[float, ...] = (0.5,)
    least_score: float = 0.5
    significance: float = 0.0
    faintest_part: float = 0.0
    clear_part: float = 0.0
    company_px: float = NAN


def canonical_shape(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """Size of the canonical image, rounded as detect/resample.py does."""
    size = max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))
    return shape if factor >= 0.99 else size


def bin_px(sigma_px: float) -> float:
    """Side of the bins: a column of the widest model reaches no further than the next one."""
    return max(LEAST_BIN_PX, ceil(MODEL_SIGMA * WIDEST * sigma_px) + 2.0)


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
    UsageError
        The rule has more knots than there is room for.
    """
    if not 1 <= len(rule.typical) == len(rule.least) <= KNOTS:
        raise UsageError(
            f"a threshold rule has {len(rule.typical)} and {len(rule.least)} knots; 1 to {KNOTS} of each are possible"
        )
    rows, cols = prepared.image.shape
    small_sigma = sigma_px * sqrt(small[0] / rows * small[1] / cols)
    p = np.zeros(SPARE)
    values = {
        Param.ROWS: rows, Param.COLS: cols, Param.SMALL_ROWS: small[0], Param.SMALL_COLS: small[1], Param.PITCH: padded[1],
        Param.OFFSET: prepared.offset, Param.INVERTED: inverted, Param.TOP: float(prepared.image.max()) if inverted else 0.0,
        Param.SIGMA: sigma_px, Param.CEILING: float("inf") if inverted else prepared.ceiling, Param.STRIDE: rule.stride,
        Param.MAP_ROWS: ceil(small[0] / rule.stride), Param.MAP_COLS: ceil(small[1] / rule.stride),
        Param.MAP_PITCH: padded[1] // rule.stride, Param.FLOOR: rule.floor, Param.RADIUS: rule.radius_px,
        Param.QUANTILE: rule.quantile, Param.LEAST_SCORE: rule.least_score,
        Param.LEAST_PX: NAN if least_px is None else least_px,
        Param.FACTOR_Y: small[0] / rows, Param.FACTOR_X: small[1] / cols, Param.BIN_PX: bin_px(sigma_px),
        Param.KNOT_COUNT: len(rule.typical), Param.FIT_WIDTH: fit_width,
        Param.SMALL_SIGMA: small_sigma, Param.SIGNIFICANCE: rule.significance, Param.FAINTEST: rule.faintest_part,
        Param.CLEAR_PART: rule.clear_part,
        Param.COMPANY_PX: rule.company_px,
        Param.WHITE: sqrt(kernel_sums(small_sigma)[0]),
    }  # fmt: skip
    for place, value in values.items():
        p[place] = value
    p[Param.TYPICAL : Param.TYPICAL + len(rule.typical)] = rule.typical
    p[Param.LEAST : Param.LEAST + len(rule.least)] = rule.least
    return p
