"""Everything that defines a simulated session, and the motion that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan

import numpy as np

from atomid_live.errors import UsageError
from atomid_live.simulate.crystals import Crystal, crystal_named
from atomid_live.simulate.imaging import COLUMN_SIGMA_NM, Probe
from atomid_live.simulate.lattices import lattice_matrix
from atomid_live.simulate.noise import Camera
from atomid_live.simulate.scan import ScanErrors
from atomid_live.types import FloatArray

_FLYBACK_S = 0.0016


@dataclass(frozen=True, slots=True)
class Scenario:
    """A specimen, a microscope and what happens to them; the same scenario always gives the same frames.

    Attributes
    ----------
    crystal : str
        Name in `CRYSTALS`.
    shape : (int, int)
        Rows and columns of a frame.
    pixel_size_nm, angle_rad : float
        Square pixels; direction of the crystal's a, clockwise on the screen from +x.
    current_pa, dwell_us, background_e : float
        Dose per pixel, and electrons per pixel that come from nowhere in particular.
    frame_time_s, frame_interval_s : float
        Exposure of a frame and time from one start to the next; NaN follows from dwell and shape, and from the exposure.
    vacancy_fraction, damage_per_frame : float
        Fraction of the bright columns missing at the start, and growth of it per frame.
    contamination_e, contamination_nm, contamination_growth : float
        Strength in electrons per pixel, correlation length, and growth per frame relative to the start.
    drift_px_per_frame, drift_cells_per_frame : (float, float)
        Motion of the specimen, (row, column) in px, plus cells along (a, b).
    walk_px : float
        Standard deviation of a random step per frame interval and axis.
    jump_frame, jump_cells : int, (float, float)
        The specimen jumps by that many cells (a, b) just before this frame; -1 never.
    strain_exx_eyy_exy, strain_from_frame, strain_until_frame : tuple, int, int
        Strain reached linearly between two frames, about the centre of the view; x to the right, y downwards.
    edge_nm : float
        Vacuum begins this far to the right of the first frame's centre; NaN for an endless specimen.
    start_s : float
        Time of the first frame's start in seconds since 1970 UTC.
    """

    crystal: str = "mos2"
    shape: tuple[int, int] = (1024, 1024)
    pixel_size_nm: float = 0.0124
    angle_rad: float = 0.15
    frames: int = 40
    seed: int = 1
    current_pa: float = 15.0
    dwell_us: float = 10.0
    background_e: float = 9.0
    frame_time_s: float = nan
    frame_interval_s: float = nan
    column_sigma_nm: float = COLUMN_SIGMA_NM
    ellipticity: float = 1.05
    tail: float = 0.0
    scan: ScanErrors = field(default_factory=lambda: ScanErrors(jitter_yx_px=(0.2, 0.5), hum_yx_px=(0.1, 0.1)))
    camera: Camera = field(default_factory=lambda: Camera(60.0, 8000.0, 0.7, (0.08, 0.12), 16))
    vacancy_fraction: float = 0.01
    damage_per_frame: float = 0.0
    contamination_e: float = 1.0
    contamination_nm: float = 2.5
    contamination_growth: float = 0.0
    drift_px_per_frame: tuple[float, float] = (0.0, 0.0)
    drift_cells_per_frame: tuple[float, float] = (0.0, 0.0)
    walk_px: float = 0.0
    jump_frame: int = -1
    jump_cells: tuple[float, float] = (0.0, 0.0)
    strain_exx_eyy_exy: tuple[float, float, float] = (0.0, 0.0, 0.0)
    strain_from_frame: int = 0
    strain_until_frame: int = 0
    edge_nm: float = nan
    start_s: float = 1_790_000_000.0

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        crystal_named(self.crystal)
        if min(self.shape) < 16 or max(self.shape) > 16384:
            raise UsageError(f"frame of {self.shape[0]} x {self.shape[1]} pixels; 16 to 16384 per side can be simulated")
        if not (1e-4 <= self.pixel_size_nm <= 1.0):
            raise UsageError(f"pixel size {self.pixel_size_nm} nm; 0.0001 to 1 nm can be simulated, e.g. 0.0124")
        if self.frames < 1:
            raise UsageError(f"{self.frames} frames asked for; give at least 1")

    @property
    def lattice(self) -> Crystal:
        """The crystal itself."""
        return crystal_named(self.crystal)

    @property
    def pixel_size_yx_nm(self) -> tuple[float, float]:
        """Pixel size as a pair."""
        return self.pixel_size_nm, self.pixel_size_nm

    @property
    def line_time_s(self) -> float:
        """Seconds per row, fly-back included."""
        return self.exposure_s / self.shape[0]

    @property
    def exposure_s(self) -> float:
        """Seconds per frame."""
        if np.isfinite(self.frame_time_s):
            return self.frame_time_s
        return self.shape[0] * (self.shape[1] * self.dwell_us * 1e-6 + _FLYBACK_S)

    @property
    def interval_s(self) -> float:
        """Seconds from the start of one frame to the start of the next."""
        return self.frame_interval_s if np.isfinite(self.frame_interval_s) else self.exposure_s

    @property
    def probe(self) -> Probe:
        """Profile of a column."""
        return Probe(self.column_sigma_nm / self.pixel_size_nm, self.ellipticity, 0.3, self.tail)

    @property
    def cell_matrix_px(self) -> FloatArray:
        """Unstrained cell vectors in px as columns of a matrix, shape (2, 2)."""
        return lattice_matrix(self.lattice, self.pixel_size_yx_nm, self.angle_rad)

    def deformation(self, index: int) -> FloatArray:
        """Deformation gradient of frame `index` on (row, column) vectors, shape (2, 2)."""
        span = max(self.strain_until_frame - self.strain_from_frame, 1)
        share = min(max((index - self.strain_from_frame) / span, 0.0), 1.0)
        exx, eyy, exy = (share * e for e in self.strain_exx_eyy_exy)
        return np.array([[1.0 + eyy, exy], [exy, 1.0 + exx]])


def motion(scenario: Scenario) -> tuple[FloatArray, FloatArray]:
    """Place of the specimen at the start and at the end of each frame, px, shape (frames, 2) each.

    Relative to the middle of frame 0: a feature at p there is at p + place. The specimen moves evenly between starts.
    """
    n = scenario.frames
    rng = np.random.default_rng([scenario.seed, 77])
    cells = scenario.cell_matrix_px
    steady = np.asarray(scenario.drift_px_per_frame) + cells @ np.asarray(scenario.drift_cells_per_frame)
    steps = steady + scenario.walk_px * rng.standard_normal((n, 2))
    starts = np.zeros((n, 2))
    starts[1:] = np.cumsum(steps[:-1], axis=0)
    if 0 <= scenario.jump_frame < n:
        starts[scenario.jump_frame :] += cells @ np.asarray(scenario.jump_cells)
    ends = starts + steps * min(scenario.exposure_s / scenario.interval_s, 1.0)
    middle = (starts[0] + ends[0]) / 2
    return starts - middle, ends - middle
