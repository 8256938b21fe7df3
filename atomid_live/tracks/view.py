"""What one frame shows of the known sites: which column sits where, how far off, how bright, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atomid_live.flags import Flag
from atomid_live.lattice.grid import Bins
from atomid_live.tracks.errors import errors_all
from atomid_live.tracks.kernels import gather_all, place_all
from atomid_live.tracks.link import RANGE_SPACINGS as REACH
from atomid_live.tracks.link import Placement, link, link_far
from atomid_live.tracks.local import Neighbourhood, median, spread
from atomid_live.tracks.photometry import forced_amplitude
from atomid_live.tracks.sites import OCCUPIED, Sites
from atomid_live.types import Detections, FloatArray, Frame, IntArray

MARGIN_SPACINGS = 0.6
ESTABLISHED = 5
GAUGE_COLUMNS = 100
POOR = int(Flag.EDGE | Flag.FIT_FAILED | Flag.CLIPPED)
ENOUGH = 1500

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Sites in view of one frame, a row each.

    Attributes
    ----------
    row, column : ndarray, shape (K,), int64
        Number in the `Sites`; column of the detections, -1 where none was found.
    place_yx_px : ndarray, shape (K, 2)
        Where the site should be in the frame.
    inner : ndarray, shape (K,), bool
        Far enough inside the frame that a column must be seen.
    bins : Bins or None
        The places sorted, where they are asked for more than once.
    """

    row: IntArray
    column: IntArray
    place_yx_px: FloatArray
    inner: BoolArray
    bins: Bins | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Measured of the rows of a `Seen`, with what the neighbourhood does together taken out; NaN where nothing was measured.

    Attributes
    ----------
    offset_yx_px, offset_sigma_px : ndarray, shapes (K, 2) and (K, 2)
        Off the site's mean place, and the standard deviation of one frame.
    amplitude, amplitude_sigma : ndarray, shape (K,)
        Brightness in the units of the site's mean, measured on the pixels where no column was found, and its error.
    good : ndarray, shape (K,), bool
        A column was found and nothing is wrong with its fit.
    """

    offset_yx_px: FloatArray
    offset_sigma_px: FloatArray
    amplitude: FloatArray
    amplitude_sigma: FloatArray
    good: BoolArray


def look(sites: Sites, placement: Placement, found: Detections, shape: tuple[int, int], bins: Bins) -> Seen:
    """Link the sites in view to the columns: near ones first, then sites and columns left alone up to 0.75 spacings."""
    spacing_px = found.spacing_px
    limit, margin = np.array(shape) - 0.5, MARGIN_SPACINGS * spacing_px
    row, place, inner = place_all(
        sites.home_yx_px, placement.shift_yx_px, placement.bend, placement.centre_yx_px, -0.5, limit, margin,
        limit - 0.5 - margin,
    )  # fmt: skip
    column = link(place, found.yx_px, REACH * spacing_px, bins)
    free = np.ones(len(found), np.bool_)
    free[column[column >= 0]] = False
    lonely = np.flatnonzero((column < 0) & inner & (sites.state[row] == OCCUPIED) & (sites.hits[row] >= ESTABLISHED))
    loose = np.flatnonzero(free)
    far = link_far(np.ascontiguousarray(place[lonely]), np.ascontiguousarray(found.yx_px[loose]), spacing_px)
    column[lonely[far >= 0]] = loose[far[far >= 0]]
    return Seen(row, column, place, inner)


def weigh(frame: Frame, found: Detections, sites: Sites, seen: Seen, spacing_px: float) -> Evidence | None:
    """Measure the sites of a view; None where too few columns were found to know what is usual in this frame."""
    hits, mean = sites.hits[seen.row], sites.amplitude[seen.row]
    usable = (hits >= 1) & (sites.state[seen.row] == OCCUPIED)
    offset, amplitude, good, near, values = gather_all(
        seen.column, seen.place_yx_px, found.flags, found.yx_px, found.amplitude, POOR, REACH * spacing_px, usable, mean
    )
    if len(values) < ESTABLISHED:
        return None
    around = Neighbourhood(seen.place_yx_px[near], values, spacing_px, frame.shape).at(seen.place_yx_px)
    lacking = (seen.column < 0) & seen.inner
    forced, forced_sigma = _on_pixels(frame, found, seen, lacking, around[:, :2])
    amplitude[lacking] = forced
    place_sigma, amplitude_sigma = errors_all(
        offset, amplitude, around, near, lacking, forced_sigma, hits, mean, sites.place_variance[seen.row],
        sites.amplitude_variance[seen.row], ENOUGH,
    )  # fmt: skip
    return Evidence(offset, place_sigma, amplitude, amplitude_sigma, good)


def _on_pixels(frame: Frame, found: Detections, seen: Seen, lacking: BoolArray, wobble: FloatArray) -> tuple[FloatArray, float]:
    """Brightness on the pixels at sites without a column, in the units of the detections, and its error.

    A sample of found columns measured both ways gives the unit and the error.
    """
    whole = np.flatnonzero((seen.column >= 0) & seen.inner)
    some = whole[:: max(1, len(whole) // GAUGE_COLUMNS)]
    places = np.concatenate([seen.place_yx_px[lacking] + wobble[lacking], found.yx_px[seen.column[some]]])
    values = forced_amplitude(frame.pixels, places, found.column_sigma_px)
    count = int(lacking.sum())
    there, both = found.amplitude[seen.column[some]], values[count:]
    usable = np.isfinite(both) & (both != 0)
    if usable.sum() < ESTABLISHED:
        return np.full(count, np.nan), float("nan")
    unit = float(median(there[usable] / both[usable]))
    return values[:count] * unit, spread(both[usable] * unit - there[usable])
