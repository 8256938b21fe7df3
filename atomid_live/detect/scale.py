"""What size columns have in a frame: the answer of the scale estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from atomid_live.types import NAN

SMALLEST_SIGMA_PX = 1.15
SUPPRESS_SIGMA = 2.2
SPARSE_Z = 5.0


@dataclass(frozen=True, slots=True)
class Scale:
    """What size columns have in a frame.

    Attributes
    ----------
    column_sigma_px : float
        Standard deviation of a column in pixels of the frame; NaN when there is no evidence of columns.
    spacing_px : float
        Median nearest-neighbour distance of the peaks seen on the way; NaN when unknown.
    evidence : float
        Lattice: strongest spot over the noise spectrum. Sparse: significance beyond the noise, bright minus dark.
    kind : str
        "lattice", "sparse" or "none".
    noise_fraction : float
        Part of the band-passed variance that is noise (lattice only).
    plane_px : float
        Plane distance of the strongest Bragg spot (lattice only).
    tail : float
        Least significance (in standard deviations) of a column on a background with this frame's noise tail.
    """

    column_sigma_px: float = NAN
    spacing_px: float = NAN
    evidence: float = 0.0
    kind: Literal["lattice", "sparse", "none"] = "none"
    noise_fraction: float = 1.0
    plane_px: float = NAN
    tail: float = SPARSE_Z

    @property
    def found(self) -> bool:
        """Whether the frame has columns to look for."""
        return self.kind != "none"
