"""Columns in the shade of brighter neighbours: peaks of what remains once the columns found first are taken away.

The band-pass that finds bright columns subtracts their neighbours' light from fainter ones, down to nothing for titanium
beside strontium. The noise is read where an imperfect model would show most, around the columns, so that it is no column.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from atomid_live.detect.dog_filter import band_pass
from atomid_live.detect.levels import Level
from atomid_live.detect.near import in_company
from atomid_live.detect.peaks import find_peaks, parabola, parabola_height
from atomid_live.detect.refine import first_fit
from atomid_live.types import FloatArray, IntArray

Image = NDArray[np.float32]

RING_SIGMA = 2.2
# without neighbours a wider band loses less of a column: 0.94 of its significance in place of 0.84
NARROW, WIDE = 0.9, 3.0
COLUMN_GAIN = 1.0 / (1.0 + NARROW**2) - 1.0 / (1.0 + WIDE**2)
LEAST_Z, MOST_Z, PART_OF_Z = 2.4, 4.0, 0.5
LEAST_PART = 0.1
FIRST_Z = 1.7
APART_SIGMA = 2.0
LOOKS, MANY = 3, 0.05
SECOND_KIND = 0.45


def _around(response: Image, yx: FloatArray, distance_px: float) -> FloatArray:
    """Values of a map at four places around each column, those on the map."""
    offset = distance_px * np.array([(0.92, 0.38), (-0.38, 0.92), (-0.92, -0.38), (0.38, -0.92)])
    places = np.rint(yx[:, None] + offset).astype(np.int64).reshape(-1, 2)
    on = ((places >= 0) & (places < np.asarray(response.shape))).all(1)
    return np.asarray(response[places[on, 0], places[on, 1]], dtype=np.float64)


def _at(response: Image, yx: FloatArray) -> FloatArray:
    place = np.rint(yx).astype(np.int64)
    return np.asarray(response[place[:, 0], place[:, 1]], dtype=np.float64)


def _lower_spread(values: FloatArray) -> float:
    """Standard deviation of a normal law from its lower quantiles, which columns among the values hardly change."""
    if not len(values):
        return 0.0
    low, middle = np.quantile(values, (0.05, 0.3))
    return float(middle - low) / 1.12


def second_look(
    level: Level, column_sigma_px: float, first_yx: FloatArray, radius_px: float, clean: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Columns with the light of all others taken away; the first N are those found first, those that follow in their shade.

    The threshold follows the noise: between 2.4 and 4 standard deviations, halfway to the bright columns, and no
    less than a tenth of their height.

    Parameters
    ----------
    level : Level
    column_sigma_px : float
        Width of a column in the frame.
    first_yx : ndarray, shape (N, 2), float64
        Columns found first, in pixels of the level; at least 1.
    radius_px : float
        Least distance of two columns found here, in pixels of the level.
    clean : bool
        Noise is low enough to improve the width on the frame.

    Returns
    -------
    ndarray, shape (N + M, 2)
        Peaks, in pixels of the level.
    ndarray, shape (N + M,)
        Heights in units of the threshold; those found first have passed one, and need 1.7 standard deviations here.
    ndarray, shape (N + M, 3)
        Quick fit: y, x in pixels of the level, and height of the column in the units of the frame.
    """
    here = level.sigma_px(column_sigma_px)
    wide = sqrt(here**2 + (1.0 - level.side**-2) / 12.0)
    columns = first_yx
    for left_to_do in reversed(range(LOOKS)):
        model, fitted, fitted_sigma = first_fit(level.image, columns, wide, fit_width=clean)
        left = band_pass(level.image - model, here, NARROW, WIDE)
        noise = _lower_spread(_around(left, columns[:: 1 + len(columns) // 2000], RING_SIGMA * here))
        tall = COLUMN_GAIN * float(np.median(fitted[: len(first_yx), 2]))
        least = max(LEAST_Z * noise, LEAST_PART * tall, 1e-12)
        yx = _apart(find_peaks(left, least, radius_px)[0], columns, APART_SIGMA * here)
        if len(yx) + len(columns) < (1.0 + SECOND_KIND) * len(first_yx):
            # so few are strays of noise or odd columns, not a second kind: they must stand out
            least = max(least, min(PART_OF_Z * tall, MOST_Z * noise))
            yx = yx[parabola_height(left, yx) >= least]
        beside, extra = parabola(left, yx), parabola_height(left, yx)
        # a second kind of column shades its own like as long as it is not taken away
        if not left_to_do or len(yx) < MANY * len(first_yx):
            break
        columns = np.concatenate([columns, beside])
    own = _at(left, columns) + COLUMN_GAIN * fitted[:, 2]
    own[: len(first_yx)] /= max(FIRST_Z * noise, 1e-12)
    own[len(first_yx) :] /= least
    # at the width that the frame's fit starts with, a column keeps its volume
    fitted[:, 2] *= (fitted_sigma / here) ** 2
    quick = np.concatenate([fitted, np.column_stack([beside, extra / COLUMN_GAIN * (wide / here) ** 2])])
    return np.concatenate([columns, beside]), np.concatenate([own, extra / least]), quick


def _apart(yx: IntArray, columns: FloatArray, distance_px: float) -> IntArray:
    """Those of the peaks `yx` (M, 2) that keep their distance from all columns (N, 2)."""
    together = np.concatenate([columns, yx.astype(np.float64)])
    return yx[~in_company(together, np.arange(len(columns), len(together)), distance_px, 1)]
