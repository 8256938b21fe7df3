"""What cannot be: a pixel size that contradicts the columns, and frames outside what a network has been trained on.

Pure functions of what a detector has measured; nobody here decides what follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np

from atomid_live.detect.scale import SMALLEST_SIGMA_PX, Scale
from atomid_live.types import NAN, Detections, FloatArray

# probe, source and thermal motion together: 50 to 100 pm where a lattice is seen; a factor of two for defocus and old columns
LEAST_WIDTH_NM, MOST_WIDTH_NM = 0.025, 0.2
# columns of a projected lattice: dumbbells of 78 pm are hardly ever seen as two, superlattices of 1.5 nm have atoms between
LEAST_SPACING_NM, MOST_SPACING_NM = 0.08, 1.5
# columns further apart than this many widths may be single atoms, whose distance means nothing
LATTICE_WIDTHS, LEAST_COLUMNS = 10.0, 20
# d' of a column over the square root of the ratio of lattice to noise power in the band-pass
D_PRIME_GAIN = 4.4


def pixel_size_contradiction(found: Detections, pixel_size_yx_nm: tuple[float, float]) -> str:
    """Say why a pixel size cannot be right, e.g. after a slip of nm and um; "" where nothing speaks against it.

    Parameters
    ----------
    found : Detections
        Columns of the frame.
    pixel_size_yx_nm : (float, float)
        Of the frame; not finite where it is unknown.
    """
    pixel_nm = sqrt(pixel_size_yx_nm[0] * pixel_size_yx_nm[1])
    if not isfinite(pixel_nm) or not len(found):
        return ""
    width_nm, spacing_nm = found.column_sigma_px * pixel_nm, found.spacing_px * pixel_nm
    if isfinite(width_nm) and not LEAST_WIDTH_NM <= width_nm <= MOST_WIDTH_NM:
        return (
            f"columns would be {1e3 * width_nm:.4g} pm wide (standard deviation); "
            f"possible are {1e3 * LEAST_WIDTH_NM:.0f} to {1e3 * MOST_WIDTH_NM:.0f} pm"
        )
    lattice = len(found) >= LEAST_COLUMNS and found.spacing_px < LATTICE_WIDTHS * found.column_sigma_px
    if lattice and not LEAST_SPACING_NM <= spacing_nm <= MOST_SPACING_NM:
        return (
            f"nearest columns would be {spacing_nm:.4g} nm apart; possible are {LEAST_SPACING_NM:g} to {MOST_SPACING_NM:g} nm"
        )
    return ""


def lattice_d_prime(scale: Scale) -> float:
    """Detectability of a typical bright column from the noise share of the band-passed frame; NaN without a lattice.

    Within 40 % from d' 2 to 25 on metal sublattices of MoS2, ReS2 and SrTiO3.
    """
    if scale.kind != "lattice":
        return NAN
    noise = min(max(scale.noise_fraction, 1e-4), 1.0)
    return D_PRIME_GAIN * sqrt((1.0 - noise) / noise)


@dataclass(frozen=True, slots=True)
class Trained:
    """What a network has seen in training and what its map then looks like.

    Attributes
    ----------
    least_d_prime : float
        Of the brightest kind of column.
    least_sigma_px, most_part : float
        Narrowest column in pixels of the frame, which is never enlarged; widest as a part of the shorter side.
    closest_widths, farthest_widths : float
        Distance of the lattice planes in column widths.
    least_height, clear_d_prime : float
        Height of typical peaks of the map below which columns this clear, or clearer, are not what the network knows.
    """

    least_d_prime: float = 1.8
    least_sigma_px: float = SMALLEST_SIGMA_PX
    most_part: float = 1.0 / 24.0
    closest_widths: float = 2.2
    farthest_widths: float = 11.0
    least_height: float = 0.15
    clear_d_prime: float = 5.0


@dataclass(frozen=True, slots=True)
class OutOfRange:
    """How far a frame is from what a network knows; each number is below 1 inside, 1 at the border, above it outside.

    `dose` is the detectability that training reached over the frame's, `scale` concerns width and spacing of the columns,
    `texture` is how low the map's peaks are for columns that are clear in the frame.
    """

    dose: float = 0.0
    scale: float = 0.0
    texture: float = 0.0

    @property
    def worst(self) -> float:
        """The largest of the three."""
        return max(self.dose, self.scale, self.texture)

    @property
    def reason(self) -> str:
        """Names of the numbers above 1, e.g. "dose and texture"; "" inside the range."""
        names = ("dose", "scale", "texture")
        return " and ".join(name for name in names if getattr(self, name) > 1.0)


def out_of_range(scale: Scale, shape: tuple[int, int], height: FloatArray, trained: Trained | None = None) -> OutOfRange:
    """Measure how far a frame is from what a network was trained on.

    Parameters
    ----------
    scale : Scale
        Found in the pixels of the frame.
    shape : (int, int)
        Rows and columns of the frame.
    height : ndarray, shape (N,)
        Peak heights of the network's map, 0 to 1.
    trained : Trained, optional
        The default is the shipped network's.

    Returns
    -------
    OutOfRange
        Zeros for a frame without scale: there the network is not asked.
    """
    if not scale.found:
        return OutOfRange()
    t = trained or Trained()
    sigma = scale.column_sigma_px
    size = max(t.least_sigma_px / sigma if sigma < t.least_sigma_px else 0.0, sigma / (t.most_part * min(shape)))
    if scale.kind != "lattice":
        return OutOfRange(scale=size)
    widths, d_prime = scale.plane_px / sigma, lattice_d_prime(scale)
    size = max(size, t.closest_widths / widths, widths / t.farthest_widths)
    typical = float(np.quantile(height, 0.75)) if len(height) else 0.0
    texture = t.least_height / max(typical, 1e-3) if d_prime >= t.clear_d_prime else 0.0
    return OutOfRange(t.least_d_prime / max(d_prime, 1e-3), size, texture)
