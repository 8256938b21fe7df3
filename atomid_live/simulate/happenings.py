"""A specimen to which known things happen, column by column: the truth by which events are judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from atomid_live.simulate.acquire import FrameTruth, Session
from atomid_live.simulate.imaging import FloatImage
from atomid_live.simulate.lattices import Columns, rotation
from atomid_live.simulate.scenario import Scenario
from atomid_live.simulate.specimen import Specimen, View
from atomid_live.types import FloatArray

Kind = Literal["gone", "jump", "brightness"]


@dataclass(frozen=True, slots=True)
class Happening:
    """What happens to the column (cell, site) from frame `first` until before frame `last` (-1 for ever).

    `gone` takes it out, `jump` moves it by `move_yx_px`, `brightness` multiplies its cross-section by `factor`.
    """

    kind: Kind
    cell: tuple[int, int]
    site: int
    first: int
    last: int = -1
    move_yx_px: tuple[float, float] = (0.0, 0.0)
    factor: float = 1.0

    def at(self, index: int) -> bool:
        """Whether it is so in a frame."""
        return index >= self.first and (self.last < 0 or index < self.last)


@dataclass(frozen=True, slots=True)
class _Changing(Specimen):
    """A specimen in one frame of its history."""

    happenings: tuple[Happening, ...] = ()
    index: int = 0

    def columns(self, view: View, margin_px: float, vacancy_fraction: float) -> tuple[Columns, Columns]:
        """Columns with everything done to them that has happened by this frame; what is gone is a vacancy."""
        left, missing = Specimen.columns(self, view, margin_px, vacancy_fraction)
        yx, section = left.yx_px.copy(), left.cross_section_A2.copy()
        gone = np.zeros(len(left), np.bool_)
        for thing in self.happenings:
            if not thing.at(self.index):
                continue
            here = (left.cell == np.array(thing.cell)).all(axis=1) & (left.site == thing.site)
            gone |= here if thing.kind == "gone" else False
            yx[here] += np.asarray(thing.move_yx_px)
            section[here] *= thing.factor
        changed = Columns(yx, section, left.site, left.cell)
        return changed.take(~gone), Columns.joined(missing, changed.take(gone))


@dataclass(frozen=True, slots=True)
class TurningScenario(Scenario):
    """A scenario whose lattice is another grain from `turn_frame` on: turned by `turn_deg` about the middle of the view."""

    turn_frame: int = -1
    turn_deg: float = 0.0

    def deformation(self, index: int) -> FloatArray:
        """Deformation gradient of a frame, with the turn."""
        plain = Scenario.deformation(self, index)
        turned = 0 <= self.turn_frame <= index
        return np.asarray(rotation(np.radians(self.turn_deg)) @ plain) if turned else plain


class EventfulSession(Session):
    """A simulated session in which the given things happen.

    Parameters
    ----------
    scenario : Scenario
        As for `Session`.
    happenings : tuple of Happening
    """

    def __init__(self, scenario: Scenario, happenings: tuple[Happening, ...] = ()) -> None:
        super().__init__(scenario)
        self.happenings = happenings

    def _exposed(self, index: int) -> tuple[FloatImage, FrameTruth, np.random.Generator]:
        self._specimen = _Changing(self.scenario, self.happenings, index)
        return super()._exposed(index)

    def place_yx_px(self, cell: tuple[int, int], site: int, index: int) -> FloatArray:
        """Ideal place (2,) of a column in a frame, at mid-frame."""
        scenario = self.scenario
        f, centre = scenario.deformation(index), (np.array(scenario.shape) - 1) / 2
        inside = np.array(cell) + np.array(scenario.lattice.basis[site])
        return np.asarray(centre + f @ (self.total_yx_px(index) + scenario.cell_matrix_px @ inside))
