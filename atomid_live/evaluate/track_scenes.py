"""Sessions in which known things happen to known columns: what `evaluate tracks` is judged on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from atomid_live.simulate.happenings import EventfulSession, Happening, TurningScenario
from atomid_live.types import FloatArray, IntArray

SHAPE = (400, 512)
MARGIN_PX = 28.0
APART_CELLS = 2.8
EACH = 5
REACH_CELLS = 25
CALM = TurningScenario(
    crystal="ws2", shape=SHAPE, pixel_size_nm=0.02, frames=32, dwell_us=40.0, drift_px_per_frame=(1.1, -1.6), walk_px=0.5
)

Make = Callable[[int], EventfulSession]


@dataclass(frozen=True, slots=True)
class Expected:
    """An event that ought to be told: kind, first frame, place in a frame (None for the whole frame)."""

    kind: str
    first: int
    place: Callable[[int], FloatArray] | None


@dataclass(frozen=True, slots=True)
class TrackScene:
    """A kind of session; `make(seed)` builds it."""

    name: str
    title: str
    make: Make


def _in_view(session: EventfulSession) -> IntArray:
    """Cells (N, 2) whose first site stays well inside the frame for the whole session."""
    n = np.arange(-REACH_CELLS, REACH_CELLS + 1)
    cells = np.stack(np.meshgrid(n, n, indexing="ij"), -1).reshape(-1, 2)
    stays = np.ones(len(cells), np.bool_)
    for k in range(len(session)):
        origin = session.place_yx_px((0, 0), 0, k)
        places = origin + cells @ (session.scenario.deformation(k) @ session.scenario.cell_matrix_px).T
        stays &= ((places > MARGIN_PX) & (places < np.array(SHAPE) - 1 - MARGIN_PX)).all(axis=1)
    return np.asarray(cells[stays])


def _apart(session: EventfulSession, rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Cells that stay in view, far from each other, in random order."""
    matrix = session.scenario.cell_matrix_px
    least = APART_CELLS * float(np.hypot(*matrix[:, 0]))
    chosen: list[tuple[int, int]] = []
    for i, j in rng.permutation(_in_view(session)).tolist():
        if all(np.hypot(*(matrix @ (np.array((i, j)) - other))) > least for other in chosen):
            chosen.append((i, j))
        if len(chosen) == count:
            break
    return chosen


def _busy(scenario: TurningScenario) -> Make:
    """Five columns each vanish, heal, jump by a quarter and by six tenths of a spacing, lose half and a third of their light,
    and are missing for one or two frames only, which is no event.
    """

    def make(seed: int) -> EventfulSession:
        here = replace(scenario, seed=seed)
        quiet, rng = EventfulSession(replace(here, vacancy_fraction=0.0)), np.random.default_rng([seed, 9])
        cells = _apart(quiet, rng, 7 * EACH)
        spacing = float(np.hypot(*here.cell_matrix_px[:, 0]))
        told: list[Happening] = []
        for n, cell in enumerate(cells):
            at, turn = int(rng.integers(10, here.frames - 8)), float(rng.uniform(0, 2 * np.pi))
            move = spacing * np.array([np.sin(turn), np.cos(turn)])
            told.append(
                [
                    Happening("gone", cell, 0, at),
                    Happening("gone", cell, 0, -1, at),
                    Happening("jump", cell, 0, at, move_yx_px=(0.25 * move[0], 0.25 * move[1])),
                    Happening("jump", cell, 0, at, move_yx_px=(0.12 * move[0], 0.12 * move[1])),
                    Happening("brightness", cell, 0, at, factor=0.5),
                    Happening("brightness", cell, 0, at, factor=0.7),
                    Happening("gone", cell, 0, at, at + 1 + n % 2),
                ][n % 7]
            )
        return EventfulSession(here, tuple(told))

    return make


def _plain(scenario: TurningScenario) -> Make:
    return lambda seed: EventfulSession(replace(scenario, seed=seed))


SCENES = (
    TrackScene("calm", "nothing happens: drift, jitter, contamination, 1 % vacancies", _plain(CALM)),
    TrackScene("events", "35 columns of 900 to which something happens", _busy(CALM)),
    TrackScene("events, a quarter of the dose", "the same at 10 us", _busy(replace(CALM, dwell_us=10.0))),
    TrackScene(
        "contamination grows", "nothing happens under it", _plain(replace(CALM, contamination_e=12.0, contamination_growth=0.1))
    ),
    TrackScene(
        "perfect crystal", "no vacancy, no contamination", _plain(replace(CALM, vacancy_fraction=0.0, contamination_e=0.0))
    ),
    TrackScene(
        "lattice step", "exx grows by 0.5 % at frame 16",
        _plain(replace(CALM, strain_exx_eyy_exy=(0.005, 0.0, 0.0), strain_from_frame=15, strain_until_frame=16)),
    ),
    TrackScene(
        "ramp", "exx grows by 0.03 % a frame: no step",
        _plain(replace(CALM, strain_exx_eyy_exy=(0.0075, 0.0, 0.0), strain_from_frame=5, strain_until_frame=30)),
    ),
    TrackScene("grain", "the lattice turns by 12 deg at frame 16", _plain(replace(CALM, turn_frame=16, turn_deg=12.0))),
    TrackScene("damage", "0.1 % of the columns vanish per frame", _plain(replace(CALM, damage_per_frame=0.001))),
)  # fmt: skip


def expected_events(session: EventfulSession) -> list[Expected]:
    """What ought to be told of a session."""
    kinds = {"jump": "column jumps", "brightness": "intensity step"}
    out = []
    for thing in session.happenings:
        heals = thing.kind == "gone" and thing.first < 0
        if thing.kind == "gone" and not heals and thing.last >= 0:
            continue
        kind = kinds.get(thing.kind, "vacancy heals" if heals else "vacancy appears")

        def place(index: int, thing: Happening = thing) -> FloatArray:
            moved = np.asarray(thing.move_yx_px) if thing.at(index) else np.zeros(2)
            return np.asarray(session.place_yx_px(thing.cell, thing.site, index) + moved)

        out.append(Expected(kind, thing.last if heals else thing.first, place))
    scenario = session.scenario
    if isinstance(scenario, TurningScenario) and scenario.turn_frame >= 0:
        out.append(Expected("grain change", scenario.turn_frame, None))
    if scenario.strain_until_frame - scenario.strain_from_frame == 1:
        out.append(Expected("lattice-parameter step", scenario.strain_until_frame, None))
    return out
