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
from atomid_live.types import FloatArray

Image = NDArray[np.float32]

RING_SIGMA = 2.2
# without neighbours a wider band loses less of a column: 0.94 of its significance in place of 0.84
NARROW, WIDE = 0.9, 3.0
COLUMN_GAIN = 1.0 / (1.0 + NARROW**2) - 1.0 / (1.0 + WIDE**2)
LEAST_Z, MOST_Z, PART_OF_Z = 2.4, 3.5, 0.45
LEAST_PART = 0.1
APART_SIGMA = 2.0


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
) -> tuple[FloatArray, FloatArray]:
    """Columns with the light of all others taken away: positions in pixels of the level, heights in units of the threshold.

    The first N rows are the columns found first, in place; those that follow were in their shade.

    The threshold follows the noise: between 2.4 and 3.5 standard deviations, nearly halfway to the bright columns, and no
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
    """
    here = level.sigma_px(column_sigma_px)
    wide = sqrt(here**2 + (1.0 - level.side**-2) / 12.0)
    model, amplitude = first_fit(level.image, first_yx, wide, fit_width=clean)
    left = band_pass(level.image - model, here, NARROW, WIDE)
    ring = _around(left, first_yx[:: 1 + len(first_yx) // 2000], RING_SIGMA * here)
    noise = _lower_spread(ring)
    tall = COLUMN_GAIN * float(np.median(amplitude))
    least = max(min(max(PART_OF_Z * tall, LEAST_Z * noise), MOST_Z * noise), LEAST_PART * tall, 1e-12)
    yx, _ = find_peaks(left, least, radius_px)
    together = np.concatenate([first_yx, yx.astype(np.float64)])
    free = ~in_company(together, np.arange(len(first_yx), len(together)), APART_SIGMA * here, 1)
    yx = yx[free]
    own = _at(left, first_yx) + COLUMN_GAIN * amplitude
    height = np.concatenate([own, parabola_height(left, yx)]) / least
    return np.concatenate([first_yx, parabola(left, yx)]), height
