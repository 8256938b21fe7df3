"""One frame against the reference: fine shift, evidence for each lattice vector, lattice vectors from the columns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from atomid_live.drift.landmarks import Evidence, Query, free_evidence, lattice_evidence
from atomid_live.drift.overlap import Image
from atomid_live.drift.periods import Periods, reduced
from atomid_live.drift.prepare import Prepared, Preparer
from atomid_live.drift.reference import Reference
from atomid_live.drift.register import Correlator, Fine, Pair, Spectrum, refine
from atomid_live.types import FloatArray, Frame, Lattice

CELL_WITHOUT_LATTICE = 0.1
PEAKS = 12
APART_PX = 3.0
SEARCH_OF_LONGEST = 0.62


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The pixels of a frame as one `preparer` made them ready, ahead of its turn."""

    frame: Frame
    preparer: Preparer
    prepared: Prepared
    spectrum: Spectrum


@dataclass(slots=True)
class Moment:
    """One prepared frame on its way through the tracker."""

    frame: Frame
    image: Image
    binned: Image
    spectrum: Spectrum
    relief: Image | None = None


def cell_px(reference: Reference) -> float:
    """Length against which motions are judged, in working pixels: the shorter lattice vector, else a tenth of the image."""
    if reference.periods is not None:
        return reference.periods.shortest
    return float(CELL_WITHOUT_LATTICE * min(reference.mean.shape))


def periods_of(lattice: Lattice | None, own: Periods | None, bin_px: int, shape: tuple[int, int]) -> Periods | None:
    """Vectors from the columns where they agree with the pixels, else None."""
    if lattice is None or not lattice.found:
        return None
    a, b = reduced(np.array(lattice.a_yx_px) / bin_px, np.array(lattice.b_yx_px) / bin_px)
    if own is not None:
        times = np.stack([a, b]) @ np.linalg.inv(own.matrix)
        if np.abs(times - np.round(times)).max() > 0.08 or abs(abs(np.linalg.det(np.round(times))) - 1) > 0.01:
            return None
    if not 3.0 < math.hypot(*a) <= math.hypot(*b) < min(shape) / 4:
        return None
    return Periods((float(a[0]), float(a[1])), (float(b[0]), float(b[1])))


def find_fine(
    correlator: Correlator, reference: Reference, moment: Moment, predicted_yx: FloatArray
) -> tuple[Fine | None, list[Pair]]:
    """Shift modulo a lattice vector, nearest to the prediction; without a lattice the peaks anywhere."""
    grid = correlator.correlation(reference.spectrum, moment.spectrum)
    expected = (float(predicted_yx[0]), float(predicted_yx[1]))
    shifts: list[Pair] = []
    if reference.periods is not None:
        start = correlator.highest_near(grid, expected, SEARCH_OF_LONGEST * reference.periods.longest)
    else:
        shifts = [p[0] for p in correlator.highest(grid, PEAKS, APART_PX)]
        start = shifts[0] if shifts else expected
    return refine(reference.mean, moment.image, start), shifts


def gather(reference: Reference, query: Query, fine: Fine, shifts: list[Pair]) -> Evidence:
    """Evidence of the landmarks for the candidates around a fine shift, or for the peaks where there is no lattice."""
    if reference.periods is not None:
        return lattice_evidence(reference.landmarks, query, fine.shift_yx, reference.periods)
    return free_evidence(reference.landmarks, query, np.array([fine.shift_yx, *shifts[1:]]))


def settle(reference: Reference, image: Image, fine: Fine, place_yx: FloatArray) -> Fine:
    """Fine shift at the place chosen, which lattice vectors alone give only to their own error."""
    if math.dist(fine.shift_yx, place_yx) <= 1e-6:
        return fine
    again = refine(reference.mean, image, (float(place_yx[0]), float(place_yx[1])))
    if again is None or math.dist(again.shift_yx, place_yx) > 0.4 * cell_px(reference):
        return fine
    return again
