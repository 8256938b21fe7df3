"""How sure each place and brightness of a frame is, compiled: a site's own scatter pooled with its like (numba, serial)."""

from __future__ import annotations

import numba
import numpy as np

from atomid_live.tracks.local import spread_all, spread_by_brightness_all

OWN_FRAMES = 6.0
LEAST_OF_SPREAD = 0.7


@numba.njit(nogil=True, cache=True)
def _shrunk(own, hits, pooled):  # type: ignore[no-untyped-def]
    """Variance of one frame: a site's own as far as it has frames, else that of its like; plus the error of its mean."""
    n = min(hits, 20)
    variance = (OWN_FRAMES * pooled**2 + n * own) / (OWN_FRAMES + n)
    least = (LEAST_OF_SPREAD * pooled) ** 2
    if variance < least:
        variance = least
    return variance * (1 + 1 / max(n, 1))


@numba.njit(nogil=True, cache=True)
def _take_off(offset, amplitude, around):  # type: ignore[no-untyped-def]
    for k in range(len(offset)):
        offset[k, 0] -= around[k, 0]
        offset[k, 1] -= around[k, 1]
        amplitude[k] /= around[k, 2] if around[k, 2] > 0 else np.nan


@numba.njit(nogil=True, cache=True)
def errors_all(  # type: ignore[no-untyped-def]
    offset, amplitude, around, near, lacking, forced_sigma, hits, mean, place_variance, amplitude_variance, enough
):
    """Take what the neighbourhood does off `offset` (K, 2) and `amplitude` (K,), in place; standard errors of both.

    `around` (K, 3) is the neighbourhood's offset and gain; `near` says which rows show what is usual in the frame, of which
    about `enough` are looked at; `lacking` rows were measured on the pixels, with the error `forced_sigma`.
    """
    _take_off(offset, amplitude, around)
    rows = np.flatnonzero(near)
    rows = rows[:: 1 + len(rows) // enough]
    off, height, rest = np.empty((2, len(rows))), np.empty(len(rows)), np.empty(len(rows))
    for i in range(len(rows)):
        k = rows[i]
        n = np.sqrt(1 + 1 / max(hits[k], 1))
        off[0, i], off[1, i] = offset[k, 0] / n, offset[k, 1] / n
        height[i], rest[i] = mean[k], (amplitude[k] - mean[k]) / n
    usual = (spread_all(off[0]), spread_all(off[1]))
    alike = spread_by_brightness_all(height, rest, mean)
    place_sigma, amplitude_sigma = np.empty(offset.shape), np.empty(len(offset))
    for k in range(len(offset)):
        for axis in range(2):
            place_sigma[k, axis] = np.sqrt(_shrunk(place_variance[k], hits[k], usual[axis]))
        variance = _shrunk(amplitude_variance[k], hits[k], alike[k])
        if lacking[k]:
            variance += (forced_sigma / (around[k, 2] if around[k, 2] > 0 else np.nan)) ** 2
        amplitude_sigma[k] = np.sqrt(variance)
    return place_sigma, amplitude_sigma
