"""Thin antialiased rings, stamped at sub-pixel positions: a few hundred times cheaper than drawing each."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atomid_live.types import FloatArray

_PHASES = 4
_LEAST_ALPHA = 0.04

Offsets = NDArray[np.int32]
Alphas = NDArray[np.float32]


@lru_cache(maxsize=64)
def ring_stamps(radius_px: float) -> tuple[Offsets, Alphas, NDArray[np.int64]]:
    """Return the pixels of a ring for each sub-pixel phase.

    Parameters
    ----------
    radius_px : float
        Of the middle of the line.

    Returns
    -------
    offsets : ndarray, shape (M, 2), int32
        (row, column) from the pixel that holds the centre.
    alphas : ndarray, shape (M,), float32
        Cover of each pixel, 0 to 1.
    starts : ndarray, shape (phases * phases + 1,), int64
        Where the pixels of phase `row_phase * phases + column_phase` begin.
    """
    half_line = 0.6 if radius_px > 2.5 else 0.5
    reach = int(np.ceil(radius_px + half_line + 1))
    rows, cols = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    offsets, alphas, starts = [], [], [0]
    for phase in range(_PHASES * _PHASES):
        dy, dx = ((part + 0.5) / _PHASES - 0.5 for part in divmod(phase, _PHASES))
        distance = np.hypot(rows - dy, cols - dx)
        cover = np.clip(half_line + 0.5 - np.abs(distance - radius_px), 0, 1)
        inside = cover > _LEAST_ALPHA
        offsets.append(np.stack([rows[inside], cols[inside]], axis=1))
        alphas.append(cover[inside])
        starts.append(starts[-1] + int(inside.sum()))
    return np.concatenate(offsets).astype(np.int32), np.concatenate(alphas).astype(np.float32), np.array(starts, np.int64)


@njit(nogil=True, cache=True, error_model="numpy")
def _stamp(
    image: NDArray[np.uint8],
    centres: FloatArray,
    colours: NDArray[np.uint8],
    offsets: Offsets,
    alphas: Alphas,
    starts: NDArray[np.int64],
) -> None:
    rows, cols = image.shape[0], image.shape[1]
    phases = 4
    for n in range(len(centres)):
        y, x = centres[n, 0], centres[n, 1]
        if not (-1e6 < y < 1e6 and -1e6 < x < 1e6):
            continue
        row, col = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
        phase = min(int((y - row + 0.5) * phases), phases - 1) * phases + min(int((x - col + 0.5) * phases), phases - 1)
        for k in range(starts[phase], starts[phase + 1]):
            r, c = row + offsets[k, 0], col + offsets[k, 1]
            if 0 <= r < rows and 0 <= c < cols:
                alpha = alphas[k]
                for channel in range(3):
                    old = np.float32(image[r, c, channel])
                    image[r, c, channel] = np.uint8(old + alpha * (np.float32(colours[n, channel]) - old) + np.float32(0.5))


def stamp(image: NDArray[np.uint8], centres_yx: FloatArray, colours: NDArray[np.uint8], radius_px: float) -> None:
    """Draw a ring around each point, in place.

    Parameters
    ----------
    image : ndarray, shape (rows, cols, 3), uint8
    centres_yx : ndarray, shape (N, 2), float64
        In pixels of `image`; points outside or not finite draw nothing.
    colours : ndarray, shape (N, 3), uint8
    radius_px : float
        Rounded to a quarter of a pixel, so that stamps are reused.
    """
    stamps = ring_stamps(round(radius_px * 4) / 4)
    _stamp(image, np.ascontiguousarray(centres_yx, dtype=np.float64), np.ascontiguousarray(colours), *stamps)
