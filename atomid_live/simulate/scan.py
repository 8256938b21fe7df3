"""Where the probe really is when a pixel is recorded: row jitter, mains hum, fly-back and drift within the frame.

Pixel (r, c) shows the specimen at (r, c) plus the offset of its row, so a column at q is seen where pixel plus offset meets q.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import pi, sqrt

import numpy as np

from atomid_live.types import FloatArray


@dataclass(frozen=True, slots=True)
class ScanErrors:
    """How imperfect the scan is.

    Attributes
    ----------
    jitter_yx_px : (float, float)
        Rms displacement of a row, first-order autoregressive with `jitter_rows` rows of correlation.
    hum_yx_px, hum_hz : (float, float), float
        Amplitude and frequency of the mains sine.
    dwell_s, line_time_s : float
        Seconds per pixel and per line, fly-back included; they set the phase of the hum.
    flyback_px, flyback_decay_px : float
        The probe lags by `flyback_px` at the left edge, decaying over `flyback_decay_px` columns.
    stretch, shear : float
        From row to row the probe goes 1 + `stretch` pixels down and `shear` pixels to the right.
    """

    jitter_yx_px: tuple[float, float] = (0.0, 0.0)
    jitter_rows: float = 3.0
    hum_yx_px: tuple[float, float] = (0.0, 0.0)
    hum_hz: float = 50.0
    dwell_s: float = 1e-5
    line_time_s: float = 0.0124
    flyback_px: float = 0.0
    flyback_decay_px: float = 20.0
    stretch: float = 0.0
    shear: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class ScanPath:
    """One frame's scan.

    Attributes
    ----------
    row_yx_px : ndarray, shape (rows, 2), float64
        Offset of the sampled position from the nominal one, per row.
    slope_yx : (float, float)
        Change of the offset per row, by which it goes on beyond the frame; matters for columns cut by the border.
    hum_yx_px, hum_row_rad, hum_rad_per_px : (float, float), ndarray of shape (rows,), float
        Sine added to it: amplitude, phase at the start of each row, and phase per column.
    flyback_px, flyback_decay_px : float
        Offset along x that decays from the left edge.
    """

    row_yx_px: FloatArray = field(repr=False)
    slope_yx: tuple[float, float] = (0.0, 0.0)
    hum_yx_px: tuple[float, float] = (0.0, 0.0)
    hum_row_rad: FloatArray = field(default_factory=lambda: np.zeros(0), repr=False)
    hum_rad_per_px: float = 0.0
    flyback_px: float = 0.0
    flyback_decay_px: float = 20.0

    @classmethod
    def straight(cls, rows: int) -> ScanPath:
        """Return a perfect scan."""
        return cls(np.zeros((rows, 2)), hum_row_rad=np.zeros(rows))

    def with_drift(self, row_yx_px: FloatArray) -> ScanPath:
        """Add the motion of the specimen since mid-frame, shape (rows, 2): it moves one way, the sampled place the other."""
        per_row = (row_yx_px[-1] - row_yx_px[0]) / max(len(row_yx_px) - 1, 1)
        slope = self.slope_yx[0] - float(per_row[0]), self.slope_yx[1] - float(per_row[1])
        return replace(self, row_yx_px=self.row_yx_px - row_yx_px, slope_yx=slope)

    def bent(self, yx_px: FloatArray) -> FloatArray:
        """Positions after the fly-back distortion alone, shape (N, 2): solves c + A exp(-c/d) = x for the pixel column c."""
        if self.flyback_px == 0.0:
            return yx_px
        x, c = yx_px[:, 1], yx_px[:, 1].copy()
        for _ in range(20):
            bend = self.flyback_px * np.exp(-np.maximum(c, 0.0) / self.flyback_decay_px)
            c -= (c + bend - x) / (1.0 - bend / self.flyback_decay_px)
        return np.stack([yx_px[:, 0], c], axis=1)


def jitter(rng: np.random.Generator, rows: int, rms_yx_px: tuple[float, float], correlation_rows: float) -> FloatArray:
    """Stationary first-order autoregressive row offsets of the given rms, shape (rows, 2); correlation exp(-k/correlation)."""
    from scipy.signal import lfilter

    if not any(rms_yx_px):
        return np.zeros((rows, 2))
    keep = float(np.exp(-1.0 / correlation_rows)) if correlation_rows > 0 else 0.0
    noise = rng.standard_normal((rows, 2))
    noise[1:] *= sqrt(1.0 - keep * keep)
    return np.asarray(lfilter([1.0], [1.0, -keep], noise, axis=0) * np.asarray(rms_yx_px))


def scan_path(rng: np.random.Generator, rows: int, errors: ScanErrors) -> ScanPath:
    """Draw one frame's scan; drift is added by `ScanPath.with_drift`."""
    turn = 2 * pi * errors.hum_hz
    phase = rng.uniform(0, 2 * pi) + turn * errors.line_time_s * np.arange(rows, dtype=np.float64)
    offsets = jitter(rng, rows, errors.jitter_yx_px, errors.jitter_rows)
    slope = errors.stretch, errors.shear
    if any(slope):
        offsets = offsets + (np.arange(rows) - (rows - 1) / 2)[:, None] * np.asarray(slope)
    return ScanPath(
        offsets,
        slope,
        hum_yx_px=errors.hum_yx_px,
        hum_row_rad=phase,
        hum_rad_per_px=turn * errors.dwell_s,
        flyback_px=errors.flyback_px,
        flyback_decay_px=max(errors.flyback_decay_px, 1e-3),
    )
