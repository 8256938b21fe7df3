"""Lattice evidence in the power spectrum: Bragg spots against the frame's own noise of any colour."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import sqrt

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from atomid_live.detect.dog_filter import transfer
from atomid_live.types import NAN, FloatArray, IntArray

Image = NDArray[np.float32]

SPOT_RATIO = 10.0
# half sides of the square around a spot whose noise it must beat as well, and of its middle, which is left out
AROUND, INSIDE = 7, 3
CHECKED = 64
# half widths in rings of the hills that are cut, and how far above the line they start (natural logarithm)
BRIDGE, BRIDGE_SLACK = (3, 5), 0.3
# local contrast takes the rings within this
FIRST_RING = 3
# slower waves are contamination, thickness and edges
LEAST_FREQUENCY = 1.0 / 42.0
FIRST_SIGMA = 0.235
_EULER = 0.5772156649


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Radial profile and spots of a power spectrum; frequencies in cycles per pixel of the image it was made from.

    Attributes
    ----------
    noise : ndarray, shape (K,)
        Geometric-mean power at radius k / `size`, which few spots cannot raise, put on the scale of a mean.
    total : ndarray, shape (K,)
        Mean power there, spots included.
    pixels : ndarray, shape (K,)
        Samples of the ring.
    spot_frequency, spot_power, spot_ratio : ndarray, shape (M,)
        Radius, power over the noise, and its ratio to the noise of every sample that stands out.
    spot_yx : ndarray, shape (M, 2)
        Frequency vectors.
    sure : bool
        Spots that span the plane also stand out of the noise around each: not of the ring alone, which in noise that is
        coloured along one axis is no measure.
    norm : float
        The sum of power over half the plane divided by this is the variance of the image.
    """

    frequency: FloatArray = field(repr=False)
    noise: FloatArray = field(repr=False)
    total: FloatArray = field(repr=False)
    pixels: FloatArray = field(repr=False)
    spot_frequency: FloatArray = field(repr=False)
    spot_power: FloatArray = field(repr=False)
    spot_ratio: FloatArray = field(repr=False)
    spot_yx: FloatArray = field(repr=False)
    norm: float = 1.0
    sure: bool = False

    def noise_fraction(self, column_sigma_px: float) -> float:
        """Part of the band-passed variance that is noise and not lattice, 0 to 1."""
        gain = self.pixels * transfer(self.frequency, column_sigma_px) ** 2
        return float(np.sum(gain * np.minimum(self.noise, self.total)) / max(float(np.sum(gain * self.total)), 1e-30))

    def best_sigma(self, ladder: FloatArray) -> float:
        """Column width whose band-pass lets most of the spots through for the noise it passes."""
        merit = [
            np.sum(self.spot_power * transfer(self.spot_frequency, s) ** 2)
            / np.sum(self.pixels * self.noise * transfer(self.frequency, s) ** 2)
            for s in ladder
        ]
        return float(ladder[int(np.argmax(merit))])

    @property
    def first_sigma_px(self) -> float:
        """Column width that the fall of the spots with frequency suggests; NaN without spots.

        Columns far apart have a power spectrum exp(-(2 pi sigma f)^2) with a mean square frequency of 1 / (2 pi sigma)^2;
        a lattice has none of the low frequencies, hence 0.235 in place of 0.16 (within 0.7 to 1.7 for all crystals tried).
        """
        total = float(np.sum(self.spot_power))
        if not total > 0.0:
            return NAN
        return FIRST_SIGMA / sqrt(float(np.sum(self.spot_power * self.spot_frequency**2)) / total)

    def level(self, column_sigma_px: float) -> float:
        """Standard deviation of the noise that the band-pass for this width lets through, in units of the image."""
        gain = self.pixels * transfer(self.frequency, column_sigma_px) ** 2
        return sqrt(float(np.sum(gain * np.minimum(self.noise, self.total))) / self.norm)

    @property
    def plane_px(self) -> float:
        """Distance of the lattice planes with the strongest spot; NaN without a lattice."""
        if not len(self.spot_power):
            return NAN
        return float(1.0 / self.spot_frequency[int(np.argmax(self.spot_power))])


def spans_plane(spot_yx: FloatArray, ratio: FloatArray) -> bool:
    """Whether spots (M, 2) span the plane: one line of them may be mains hum or scan lines."""
    if len(ratio) < 2:
        return False
    weight = np.minimum(ratio, 100.0)
    angle = 2.0 * np.arctan2(spot_yx[:, 0], spot_yx[:, 1])
    return bool(abs(np.sum(weight * np.exp(1j * angle))) < 0.95 * weight.sum())


def _over_surroundings(power: Image, smooth: Image, at: IntArray) -> FloatArray:
    """Ratio of samples (M, 2) of the half plane to the geometric mean of the square around each, without its middle."""
    step = np.arange(-AROUND, AROUND + 1)
    down, right = np.nonzero(np.maximum(np.abs(step[:, None]), np.abs(step)) > INSIDE)
    row, col = at[:, :1] + step[down], at[:, 1:] + step[right]
    row, col = np.where(col < 0, -row, row) % len(power), np.minimum(np.abs(col), power.shape[1] - 1)
    noise = np.exp(np.log(power[row, col], dtype=np.float64).mean(1) + _EULER)
    return np.asarray(smooth[at[:, 0], at[:, 1]] / noise, np.float64)


@lru_cache(maxsize=4)
def _geometry(rows: int, cols: int) -> tuple[Image, NDArray[np.int64], FloatArray, NDArray[np.bool_], FloatArray]:
    fy, fx = fft.fftfreq(rows)[:, None], fft.rfftfreq(cols)[None, :]
    radius = np.hypot(fy, fx)
    size = min(rows, cols)
    ring = np.minimum((radius * size + 0.5).astype(np.int64), size)
    window = np.outer(np.hanning(rows + 2)[1:-1], np.hanning(cols + 2)[1:-1]).astype(np.float32)
    # scan lines and hum put power on the axes, and the window spreads it over two samples on either side
    open_ = (
        (np.abs(fy) * rows > 2.5)
        & (np.abs(fx) * cols > 2.5)
        & (radius < 0.5)
        & (radius * size > 4)
        & (radius > LEAST_FREQUENCY)
    )
    return window, ring, radius, open_, np.bincount(ring.ravel(), minlength=size + 1).astype(np.float64)


def _bridged(noise: FloatArray) -> FloatArray:
    """The noise profile with hills of spots cut down to the line between the profile on either side of them.

    In a small frame the spots of a lattice fill most of a ring, and would pass for its noise.
    """
    logarithm = np.log(noise)
    out = logarithm.copy()
    for reach in BRIDGE:
        first = reach + FIRST_RING
        if len(noise) > first + reach:
            line = 0.5 * (logarithm[FIRST_RING : -2 * reach] + logarithm[first + reach :])
            out[first:-reach] = np.minimum(out[first:-reach], line + BRIDGE_SLACK)
    return np.asarray(np.exp(out))


def measure_spectrum(image: Image) -> Spectrum:
    """Radial noise profile and Bragg spots of an image, best after `local_contrast`; shape (rows, cols), float32."""
    rows, cols = image.shape
    window, ring, radius, open_, pixels = _geometry(rows, cols)
    wave = fft.rfft2((image - np.float32(image.mean())) * window)
    power = wave.real**2 + wave.imag**2
    power += np.float32(1e-7 * power.max() + 1e-20)
    smooth = cv2.blur(power, (3, 3), borderType=cv2.BORDER_REFLECT)
    flat = ring.ravel()
    held = np.maximum(pixels, 1.0)
    noise = _bridged(np.exp(np.bincount(flat, np.log(power).ravel(), len(pixels)) / held + _EULER))
    total = np.bincount(flat, power.ravel(), len(pixels)) / held
    ratio = smooth / noise[ring].astype(np.float32)
    at = np.nonzero((ratio > SPOT_RATIO) & open_)
    fy = fft.fftfreq(rows)[at[0]]
    fx = fft.rfftfreq(cols)[at[1]]
    excess = smooth[at] * (1.0 - 1.0 / ratio[at])
    half = np.arange(len(pixels)) <= min(rows, cols) // 2
    strongest = np.argsort(-ratio[at], kind="stable")[:CHECKED] if len(at[0]) > CHECKED else np.arange(len(at[0]))
    checked = np.stack([at[0][strongest], at[1][strongest]], 1)
    local = _over_surroundings(power, smooth, checked)
    out = local > SPOT_RATIO
    sure = spans_plane(np.stack([fy, fx], 1)[strongest][out], local[out])
    keep = half & (pixels > 0) & (np.arange(len(pixels)) > 2)
    frequency = np.arange(len(pixels)) / min(rows, cols)
    return Spectrum(
        frequency[keep], noise[keep], total[keep], pixels[keep],
        radius[at], excess.astype(np.float64), ratio[at].astype(np.float64), np.stack([fy, fx], 1),
        0.5 * rows * cols * float(np.sum(window[rows // 2] ** 2)) * float(np.sum(window[:, cols // 2] ** 2)),
        sure,
    )  # fmt: skip
