"""How exactly a column can be located at all: the Cramer-Rao bound, alone and among its neighbours."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
from scipy.special import erf

from atomid_live.types import FloatArray


def isolated_bound(electrons: FloatArray, sigma_px: float, background_e: FloatArray | float) -> FloatArray:
    """Least standard error (px) of one coordinate of a Gaussian column on a flat background, shape (N,).

    Closed form of Rieger and Stallinga (2014) for position, intensity and background unknown; pixelation widens sigma by 1/12.

    Parameters
    ----------
    electrons : ndarray, shape (N,)
        Expected electrons of the whole column.
    sigma_px : float
    background_e : ndarray, shape (N,), or float
        Electrons per pixel, read-out variance included.
    """
    variance = sigma_px * sigma_px + 1.0 / 12.0
    counts = np.maximum(np.asarray(electrons, np.float64), 1e-9)
    tau = 2.0 * pi * variance * np.asarray(background_e, np.float64) / counts
    return np.asarray(np.sqrt(variance / counts * (1.0 + 4.0 * tau + np.sqrt(2.0 * tau / (1.0 + 4.0 * tau)))))


def _pixels(side: int, centre: float, sigma_px: float) -> FloatArray:
    edges = (np.arange(side + 1) - 0.5 - centre) / (sigma_px * sqrt(2.0))
    return np.asarray(0.5 * np.diff(erf(edges)))


def cluster_bound(yx_px: FloatArray, electrons: FloatArray, sigma_px: float, background_e: float, known: int = 0) -> float:
    """Bound (px, mean over both coordinates) of the first column with position and height of all others and b unknown.

    Exact pixel-integrated Poisson Fisher matrix in a window of 2.6 sigma beyond the farthest unknown neighbour.

    Parameters
    ----------
    yx_px : ndarray, shape (M, 2)
        The column first; the last `known` ones only add noise.
    electrons : ndarray, shape (M,)
    sigma_px, background_e : float
    """
    relative = yx_px - yx_px[0]
    free = len(yx_px) - known
    half = int(np.ceil(np.abs(relative[:free]).max() + 2.6 * sigma_px))
    side, step = 2 * half + 1, 1e-4
    variance = np.full((side, side), float(background_e) + 1e-9)
    rows = [np.ones(side * side)]
    for n, ((y, x), count) in enumerate(zip(relative + half, electrons, strict=True)):
        gy, gx = _pixels(side, y, sigma_px), _pixels(side, x, sigma_px)
        variance += count * np.outer(gy, gx)
        if n < free:
            dy = (_pixels(side, y + step, sigma_px) - _pixels(side, y - step, sigma_px)) / (2 * step)
            dx = (_pixels(side, x + step, sigma_px) - _pixels(side, x - step, sigma_px)) / (2 * step)
            rows += [count * np.outer(dy, gx).ravel(), count * np.outer(gy, dx).ravel(), np.outer(gy, gx).ravel()]
    derivative = np.array([*rows[1:], rows[0]])
    covariance = np.linalg.inv((derivative / variance.ravel()) @ derivative.T)
    return sqrt((covariance[0, 0] + covariance[1, 1]) / 2)
