"""One endless specimen: what is where depends on the seed and the place alone, so any view of it, in any order, agrees."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from atomid_live.simulate.imaging import FloatImage
from atomid_live.simulate.lattices import Columns, cells_covering, populate
from atomid_live.simulate.scenario import Scenario
from atomid_live.types import FloatArray

_COARSE = 8
# A cubic B-spline on independent nodes: near-Gaussian covariance of width 0.816 node spacings, mean power 0.479 squared.
_NODE_PER_CORRELATION = 1.0 / 0.816
_SPLINE_POWER = 0.479
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def place_random(seed: int, *numbers: NDArray[np.int64]) -> FloatArray:
    """Uniform number in (0, 1) for each tuple of integers: a hash (splitmix64 finaliser), so it needs no state."""
    state = np.full(numbers[0].shape, np.uint64(seed % (1 << 63)), dtype=np.uint64)
    for number in numbers:
        state = (state ^ number.astype(np.uint64)) + _GOLDEN
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return np.asarray(((state >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """How specimen places map to a frame: p = centre + F (place + shift), all in px; F is strain about the view's centre."""

    shape: tuple[int, int]
    shift_yx_px: FloatArray
    deformation: FloatArray

    @property
    def centre_yx_px(self) -> FloatArray:
        """Middle of the frame."""
        return (np.array(self.shape) - 1) / 2

    def to_specimen(self, yx_px: FloatArray) -> FloatArray:
        """Specimen places of frame positions, shape (N, 2)."""
        return np.asarray((yx_px - self.centre_yx_px) @ np.linalg.inv(self.deformation).T - self.shift_yx_px)


@dataclass(frozen=True, slots=True)
class Specimen:
    """The crystal of a scenario with its vacancies, edge and contamination."""

    scenario: Scenario

    def columns(self, view: View, margin_px: float, vacancy_fraction: float) -> tuple[Columns, Columns]:
        """Columns on the view and its margin, and those that are missing from it (vacancies of bright sites)."""
        scenario = self.scenario
        matrix = view.deformation @ scenario.cell_matrix_px
        origin = view.centre_yx_px + view.deformation @ view.shift_yx_px
        everything = populate(scenario.lattice, matrix, origin, cells_covering(matrix, origin, view.shape, margin_px))
        columns = everything.take(everything.inside(view.shape, -margin_px))
        if np.isfinite(scenario.edge_nm):
            place = view.to_specimen(columns.yx_px)
            columns = columns.take(place[:, 1] * scenario.pixel_size_nm <= scenario.edge_nm)
        gone = place_random(scenario.seed, columns.cell[:, 0], columns.cell[:, 1], columns.site) < vacancy_fraction
        gone &= np.isin(columns.site, np.array(scenario.lattice.brighter_than()))
        return columns.take(~gone), columns.take(gone)

    def contamination(self, view: View, row_yx_px: FloatArray) -> FloatImage:
        """Unit contamination on the view, shape `view.shape`: the positive part of a random field of unit variance.

        `row_yx_px`, shape (rows, 2), is what the scan adds to the place of each row's pixels.
        """
        from cv2 import INTER_LINEAR, resize
        from scipy.ndimage import map_coordinates

        rows, cols = (ceil(n / _COARSE) + 2 for n in view.shape)
        y, x = np.mgrid[-1 : rows - 1, -1 : cols - 1] * float(_COARSE) + (_COARSE - 1) / 2
        offset = row_yx_px[np.clip(np.arange(-1, rows - 1) * _COARSE + _COARSE // 2, 0, view.shape[0] - 1)]
        y, x = y + offset[:, :1], x + offset[:, 1:]
        spacing = max(self.scenario.contamination_nm / self.scenario.pixel_size_nm * _NODE_PER_CORRELATION, 2.0 * _COARSE)
        node = view.to_specimen(np.stack([y.ravel(), x.ravel()], axis=1)) / spacing
        low = np.floor(node.min(0)).astype(np.int64) - 2
        high = np.ceil(node.max(0)).astype(np.int64) + 2
        i, j = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1), indexing="ij")
        normal = np.sqrt(-2.0 * np.log(place_random(self.scenario.seed + 1, i, j)))
        normal *= np.cos(2.0 * np.pi * place_random(self.scenario.seed + 2, i, j))
        smooth = map_coordinates(normal, (node - low).T, order=3, prefilter=False, mode="nearest") / _SPLINE_POWER
        field = np.maximum(smooth, 0.0).astype(np.float32).reshape(rows, cols)
        large = resize(field, (cols * _COARSE, rows * _COARSE), interpolation=INTER_LINEAR)
        return np.ascontiguousarray(large[_COARSE : _COARSE + view.shape[0], _COARSE : _COARSE + view.shape[1]])
