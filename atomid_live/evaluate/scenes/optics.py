"""Images out of focus: the probe's intensity from its aberrations, and the transfer function that stands for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from atomid_live.simulate.imaging import FloatImage

WAVELENGTH_NM = 0.0019687
CONVERGENCE_RAD = 0.021


@dataclass(frozen=True, slots=True)
class Aberrations:
    """Lengths in nm, angles in rad: defocus, twofold astigmatism and axial coma at 300 kV and 21 mrad."""

    defocus_nm: float = 0.0
    astigmatism_nm: float = 0.0
    astigmatism_rad: float = 0.0
    coma_nm: float = 0.0
    coma_rad: float = 0.0


def _phase(a: Aberrations, ky: NDArray[np.float64], kx: NDArray[np.float64]) -> NDArray[np.float64]:
    angle, theta = WAVELENGTH_NM * np.hypot(ky, kx), np.arctan2(ky, kx)
    path = 0.5 * angle**2 * (a.defocus_nm + a.astigmatism_nm * np.cos(2 * (theta - a.astigmatism_rad)))
    path += angle**3 / 3 * a.coma_nm * np.cos(theta - a.coma_rad)
    return np.asarray(2 * np.pi / WAVELENGTH_NM * path)


@lru_cache(maxsize=4)
def transfer(a: Aberrations, shape: tuple[int, int], pixel_size_nm: float) -> NDArray[np.complex64]:
    """Optical transfer function on the rfft2 grid of an image, 1 at zero frequency; the probe's brightest point is its origin.

    The probe is |FT(aperture exp(-i chi))|^2 (Kirkland, Advanced Computing in Electron Microscopy, ch. 3), made on a grid fine
    enough for twice the aperture and sampled at the image's frequencies.
    """
    ky, kx = np.fft.fftfreq(shape[0], pixel_size_nm), np.fft.fftfreq(shape[1], pixel_size_nm)
    grid_y, grid_x = np.meshgrid(ky, kx, indexing="ij")
    inside = np.hypot(grid_y, grid_x) * WAVELENGTH_NM <= CONVERGENCE_RAD
    wave = np.fft.ifft2(inside * np.exp(-1j * _phase(a, grid_y, grid_x)))
    intensity = np.abs(wave) ** 2
    # A source far wider than the diffraction limit decides where the blurred probe peaks.
    blur = np.exp(-2 * np.pi**2 * 0.055**2 * (grid_y**2 + grid_x**2))
    spectrum = np.fft.fft2(intensity / intensity.sum())
    y, x = _brightest(np.fft.ifft2(spectrum * blur).real)
    ramp = np.exp(2j * np.pi * pixel_size_nm * (grid_y * y + grid_x * x))
    return np.asarray((spectrum * ramp)[:, : shape[1] // 2 + 1], np.complex64)


def _brightest(image: NDArray[np.float64]) -> tuple[float, float]:
    """Sub-pixel place of the maximum of a periodic image, by parabolas."""
    peak = [int(v) for v in np.unravel_index(np.argmax(image), image.shape)]
    place = []
    for axis in (0, 1):
        line = np.take(image, peak[1 - axis], 1 - axis)
        before, top, after = (float(line[(peak[axis] + step) % len(line)]) for step in (-1, 0, 1))
        place.append(peak[axis] + 0.5 * (before - after) / (before + after - 2 * top))
    return place[0], place[1]


def defocused(image: FloatImage, a: Aberrations, pixel_size_nm: float, margin: int) -> FloatImage:
    """Blur an image of (rows + 2 margin, cols + 2 margin) by the probe and return its inner part."""
    rows, cols = image.shape
    otf = transfer(a, (rows, cols), pixel_size_nm)
    blurred = np.fft.irfft2(np.fft.rfft2(image) * otf, (rows, cols))
    inner = blurred[margin : rows - margin, margin : cols - margin] if margin else blurred
    return np.ascontiguousarray(np.maximum(inner, 0), np.float32)
