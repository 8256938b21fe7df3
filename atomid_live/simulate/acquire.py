"""Frames of a scenario, each with its truth; a frame depends on the scenario and its number only, so any order will do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomid_live.simulate.imaging import FloatImage, as_scanned, electrons_per_column, render
from atomid_live.simulate.lattices import Columns
from atomid_live.simulate.noise import record
from atomid_live.simulate.scan import ScanErrors, ScanPath, scan_path
from atomid_live.simulate.scenario import Scenario, motion
from atomid_live.simulate.specimen import Specimen, View
from atomid_live.types import FloatArray

VISIBLE_D_PRIME = 2.5


@dataclass(frozen=True, slots=True, eq=False)
class FrameTruth:
    """What is really on a frame.

    Attributes
    ----------
    total_yx_px, step_yx_px : (float, float)
        A feature at p in frame 0 (in the frame before) is found at p plus this, both at mid-frame, at the frame's centre.
    deformation : ndarray, shape (2, 2)
        Applied deformation gradient on (row, column) vectors, scan distortion not included.
    columns : Columns
        Ideal positions at mid-frame, of columns whose as-scanned centre lies on the frame.
    seen_yx_px : ndarray, shape (N, 2)
        As-scanned centres, after drift within the frame, jitter, hum and fly-back.
    electrons, d_prime : ndarray, shape (N,)
        Expected electrons of each column, and its detectability over the mean background.
    vacancies_yx_px : ndarray, shape (V, 2)
        As-scanned places where a bright column is missing.
    """

    index: int
    total_yx_px: tuple[float, float]
    step_yx_px: tuple[float, float]
    deformation: FloatArray
    columns: Columns
    seen_yx_px: FloatArray = field(repr=False)
    electrons: FloatArray = field(repr=False)
    d_prime: FloatArray = field(repr=False)
    vacancies_yx_px: FloatArray = field(repr=False)

    @property
    def visible(self) -> NDArray[np.bool_]:
        """Which columns a perfect observer could be asked to find (d' at least 2.5)."""
        return np.asarray(self.d_prime >= VISIBLE_D_PRIME)


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedFrame:
    """One frame: grey values of shape (rows, cols), its times in seconds since 1970 UTC, and its truth."""

    index: int
    pixels: NDArray[Any] = field(repr=False)
    start_s: float
    middle_s: float
    truth: FrameTruth = field(repr=False)


def detectability(electrons: FloatArray, sigma_px: float, background_e: float) -> FloatArray:
    """Detectability d' of isolated Gaussian columns over a background in e/px: A sqrt(pi) s / sqrt(A/2 + b)."""
    height = electrons / (2.0 * np.pi * sigma_px**2)
    return np.asarray(height * sqrt(np.pi) * sigma_px / np.sqrt(0.5 * height + background_e + 1e-9))


class Session:
    """A simulated microscope session: `frame(k)` for one frame, iteration for all of them in order.

    Parameters
    ----------
    scenario : Scenario
        All there is to know; nothing else enters.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._specimen = Specimen(scenario)
        self._starts, self._ends = motion(scenario)

    def __len__(self) -> int:
        """Return the number of frames."""
        return self.scenario.frames

    def __iter__(self) -> Iterator[SimulatedFrame]:
        """Yield every frame in order."""
        return (self.frame(index) for index in range(len(self)))

    def frame(self, index: int) -> SimulatedFrame:
        """Expose frame `index`, 0 to `frames` - 1."""
        expected, truth, rng = self._exposed(index)
        pixels = record(rng, expected, self.scenario.camera)
        start = self.scenario.start_s + index * self.scenario.interval_s
        return SimulatedFrame(index, pixels, start, start + self.scenario.exposure_s / 2, truth)

    def expected(self, index: int) -> tuple[FloatImage, FrameTruth]:
        """Electrons per pixel to be expected of frame `index`, without noise, and its truth."""
        image, truth, _ = self._exposed(index)
        return image, truth

    def total_yx_px(self, index: int) -> FloatArray:
        """Drift of the specimen at mid-frame relative to frame 0, shape (2,)."""
        return np.asarray((self._starts[index] + self._ends[index]) / 2)

    def _path(self, index: int, rng: np.random.Generator, deformation: FloatArray) -> ScanPath:
        scenario, rows = self.scenario, self.scenario.shape[0]
        e = scenario.scan
        errors = ScanErrors(
            e.jitter_yx_px, e.jitter_rows, e.hum_yx_px, e.hum_hz,
            scenario.line_time_s / scenario.shape[1], scenario.line_time_s, e.flyback_px, e.flyback_decay_px,
            e.stretch, e.shear,
        )  # fmt: skip
        share = (np.arange(rows) + 0.5) / rows - 0.5
        moved = share[:, None] * (deformation @ (self._ends[index] - self._starts[index]))
        return scan_path(rng, rows, errors).with_drift(moved)

    def _exposed(self, index: int) -> tuple[FloatImage, FrameTruth, np.random.Generator]:
        scenario = self.scenario
        if not 0 <= index < scenario.frames:
            raise IndexError(f"frame {index} of a session of {scenario.frames}")
        rng = np.random.default_rng([scenario.seed, 1, index])
        view = View(scenario.shape, self.total_yx_px(index), scenario.deformation(index))
        path = self._path(index, rng, view.deformation)
        vacant = scenario.vacancy_fraction + index * scenario.damage_per_frame
        margin = ceil(8 * scenario.probe.sigma_px + float(np.abs(path.row_yx_px).max()) + abs(path.flyback_px)) + 2
        columns, missing = self._specimen.columns(view, margin, vacant)
        electrons = electrons_per_column(
            columns.cross_section_A2, scenario.pixel_size_yx_nm, scenario.current_pa, scenario.dwell_us
        )
        image = np.full(scenario.shape, scenario.background_e, np.float32)
        if scenario.contamination_e > 0:
            strength = scenario.contamination_e * (1.0 + scenario.contamination_growth * index)
            image += np.float32(strength) * self._specimen.contamination(view, path.row_yx_px)
        background = float(image.mean())
        render(columns.yx_px, electrons, scenario.probe, scenario.shape, path, image)
        truth = self._truth(index, path, columns, missing, electrons, background)
        return image, truth, rng

    def _truth(
        self, index: int, path: ScanPath, columns: Columns, missing: Columns, electrons: FloatArray, background_e: float
    ) -> FrameTruth:
        probe, shape = self.scenario.probe, self.scenario.shape
        seen = as_scanned(columns.yx_px, probe, path)
        gaps = as_scanned(missing.yx_px, probe, path)
        inside = _on(seen, shape)
        total = self.total_yx_px(index)
        step = total - self.total_yx_px(max(index - 1, 0))
        return FrameTruth(
            index,
            (float(total[0]), float(total[1])),
            (float(step[0]), float(step[1])),
            self.scenario.deformation(index),
            columns.take(inside),
            seen[inside],
            electrons[inside],
            detectability(electrons[inside], probe.sigma_px, background_e),
            gaps[_on(gaps, shape)],
        )


def _on(yx_px: FloatArray, shape: tuple[int, int]) -> NDArray[np.bool_]:
    y, x = yx_px.T
    return np.asarray((y >= 0) & (x >= 0) & (y <= shape[0] - 1) & (x <= shape[1] - 1))
