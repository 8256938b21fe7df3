"""A small renderer for drift tests: one scene larger than the frame, seen through a moving window, row by row."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from atomid_live.types import Frame, FrameMeta, Origin

A_PM = 318.0


def hexagonal(
    rng: np.random.Generator, extent_px: float, px_pm: float, vacancies: float, kind: str = "mos2"
) -> NDArray[np.float64]:
    """Columns (y, x, electrons) of a square of half-width `extent_px` at 15 pA, 10 us, with vacancies."""
    a = A_PM / px_pm
    turn = 0.17
    a1 = a * np.array([np.sin(turn), np.cos(turn)])
    a2 = a * np.array([np.sin(turn + np.pi / 3), np.cos(turn + np.pi / 3)])
    n = int(1.6 * extent_px / a) + 2
    i, j = (v.ravel() for v in np.mgrid[-n : n + 1, -n : n + 1])
    cell = i[:, None] * a1 + j[:, None] * a2
    dose = 936.0 / (px_pm / 100.0) ** 2  # electrons per square angstrom at 15 pA and 10 us
    sites = [(np.zeros(2), 6.08e-3)]
    if kind == "mos2":
        sites.append(((a1 + a2) / 3, 2.02e-3))
    columns = np.vstack([np.c_[cell + offset, np.full(len(cell), dose * s)] for offset, s in sites])
    columns = columns[np.all(np.abs(columns[:, :2]) < extent_px, axis=1)]
    return columns[rng.random(len(columns)) >= vacancies]


@dataclass
class Scene:
    """Columns (y, x, electrons) around the centre, blobs (y, x, sigma, height), and how it is seen."""

    columns: NDArray[np.float64]
    px_pm: float = 24.8
    sigma_pm: float = 62.0
    background: float = 9.0
    blobs: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 4)))

    def expected(
        self, shape: tuple[int, int], shift_yx: tuple[float, float], jitter: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Mean counts of a frame whose features lie `shift_yx` from where the first frame has them; jitter (rows, 2) in px."""
        rows, cols = shape
        sigma = self.sigma_pm / self.px_pm
        reach = int(np.ceil(4.5 * sigma))
        y = self.columns[:, 0] + rows / 2 + shift_yx[0]
        x = self.columns[:, 1] + cols / 2 + shift_yx[1]
        keep = (y > -reach) & (y < rows + reach) & (x > -reach) & (x < cols + reach)
        y, x, n = y[keep], x[keep], self.columns[keep, 2]
        if jitter is not None:
            nearest = np.clip(np.round(y).astype(int), 0, rows - 1)
            y, x = y + jitter[nearest, 0], x + jitter[nearest, 1]
        offsets = np.arange(-reach, reach + 1)
        iy, ix = np.round(y).astype(int), np.round(x).astype(int)
        gy = np.exp(-((iy[:, None] + offsets - y[:, None]) ** 2) / (2 * sigma**2))
        gx = np.exp(-((ix[:, None] + offsets - x[:, None]) ** 2) / (2 * sigma**2))
        patches = (n / (2 * np.pi * sigma**2))[:, None, None] * gy[:, :, None] * gx[:, None, :]
        pad = 2 * reach + 8
        image = np.zeros((rows + 2 * pad, cols + 2 * pad))
        flat = (iy[:, None, None] + offsets[:, None] + pad) * image.shape[1] + ix[:, None, None] + offsets + pad
        image = np.bincount(flat.ravel(), patches.ravel(), image.size).reshape(image.shape)[pad:-pad, pad:-pad]
        v, u = np.mgrid[:rows, :cols].astype(float)
        for by, bx, bs, height in self.blobs:
            image += height * np.exp(
                -((v - by - rows / 2 - shift_yx[0]) ** 2 + (u - bx - cols / 2 - shift_yx[1]) ** 2) / (2 * bs**2)
            )
        return image + self.background

    def counts(
        self, rng: np.random.Generator, shape: tuple[int, int], shift_yx: tuple[float, float], jitter_px: float = 0.0
    ) -> NDArray[np.uint16]:
        """One noisy frame; row jitter is common to a row and correlated over about ten rows."""
        jitter = row_jitter(rng, shape[0], jitter_px) if jitter_px else None
        return np.minimum(rng.poisson(self.expected(shape, shift_yx, jitter)), 65535).astype(np.uint16)


def row_jitter(rng: np.random.Generator, rows: int, rms_px: float) -> NDArray[np.float64]:
    """Displacement (rows, 2) of each row, first-order autoregressive with correlation 0.9."""
    white = rng.normal(0, rms_px, (rows, 2))
    out = np.empty_like(white)
    out[0] = white[0]
    for r in range(1, rows):
        out[r] = 0.9 * out[r - 1] + np.sqrt(1 - 0.81) * white[r]
    return out


def frame_of(
    pixels: NDArray[np.generic], sequence: int, px_pm: float = 24.8, time_s: float | None = None, detector: str = "HAADF"
) -> Frame:
    """Wrap pixels as a frame taken every 10.5 s."""
    return Frame(
        sequence=sequence,
        pixels=pixels,
        time_s=1.7e9 + 10.5 * sequence if time_s is None else time_s,
        time_sigma_s=0.01,
        time_source="sender",
        origin=Origin("test"),
        pixel_size_yx_nm=(px_pm / 1000, px_pm / 1000),
        scale_source="file",
        meta=FrameMeta(detector=detector, scan_rotation_rad=0.0),
    )
