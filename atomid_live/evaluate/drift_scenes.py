"""Scenes D1-D8: what a tracker can be asked to follow, as scenarios of the simulated microscope with fixed seeds.

MoS2, 300 kV, 15 pA, 10 us unless stated, 12.4 pm per pixel, 9 electrons per pixel of background. Frames are never square,
drift takes all four pairs of signs in turn, and the specimen moves while a frame is scanned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from atomid_live.simulate.scan import ScanErrors
from atomid_live.simulate.scenario import Scenario

SEED = 41000
SHAPE = (1024, 960)
# lattice vectors of a perfect crystal are no easier to tell on a larger frame
PERFECT_SHAPE = (512, 480)
PIXEL_NM = 0.0124
SHORT_EXPOSURE_S, INTERVAL_S = 1.0, 10.5
SIGNS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


@dataclass(frozen=True, slots=True)
class DriftScene:
    """One scene.

    Attributes
    ----------
    name, title, target : str
        Short name, what is done to the specimen, and what is asked of the tracker.
    runs, frames : int
        Independent specimens, and frames of each.
    scenario : callable
        From the run's number.
    """

    name: str
    title: str
    target: str
    runs: int
    frames: int
    scenario: Callable[[int], Scenario]


def _base(scene: int, run: int, frames: int) -> tuple[Scenario, np.random.Generator]:
    seed = SEED + 1000 * scene + run
    rng = np.random.default_rng(seed)
    scenario = Scenario(
        crystal="mos2",
        shape=SHAPE,
        pixel_size_nm=PIXEL_NM,
        angle_rad=float(rng.uniform(0, np.pi)),
        frames=frames,
        seed=seed,
        scan=ScanErrors(),
    )
    return scenario, rng


def _steady(rng: np.random.Generator, run: int, low: float, high: float) -> tuple[float, float]:
    """Drift in px per frame of `low` to `high` cells, with the run's pair of signs."""
    cell_px = 0.3165 / PIXEL_NM
    size, turn = rng.uniform(low, high) * cell_px, rng.uniform(0.15, 0.5 * np.pi - 0.15)
    sign_y, sign_x = SIGNS[run % 4]
    return float(sign_y * size * np.sin(turn)), float(sign_x * size * np.cos(turn))


def _slow(run: int) -> Scenario:
    scenario, rng = _base(1, run, 84)
    return replace(scenario, drift_px_per_frame=_steady(rng, run, 0.1, 0.1), walk_px=0.25)


def _fast(run: int) -> Scenario:
    scenario, rng = _base(2, run, 42)
    return replace(scenario, drift_px_per_frame=_steady(rng, run, 0.8, 2.2), walk_px=0.5)


def _walk(run: int) -> Scenario:
    scenario, rng = _base(3, run, 84)
    return replace(scenario, drift_px_per_frame=_steady(rng, run, 0.1, 0.4), walk_px=0.1 * 0.3165 / PIXEL_NM)


def _jump(run: int) -> Scenario:
    scenario, rng = _base(4, run, 24)
    along = ((5.0, 0.0), (0.0, 5.0), (-5.0, 0.0), (0.0, -5.0))[run % 4]
    return replace(scenario, drift_px_per_frame=_steady(rng, run, 0.1, 0.5), walk_px=0.5, jump_frame=12, jump_cells=along)


def _perfect(run: int) -> Scenario:
    """Steps of a cell in any direction between short exposures: the motion so far says nothing of the next step."""
    scenario, _ = _base(5, run, 100)
    return replace(
        scenario,
        shape=PERFECT_SHAPE,
        vacancy_fraction=0.0,
        contamination_e=0.0,
        walk_px=0.3165 / PIXEL_NM,
        frame_time_s=SHORT_EXPOSURE_S,
        frame_interval_s=INTERVAL_S,
    )


def _perfect_slow(run: int) -> Scenario:
    scenario, rng = _base(15, run, 100)
    return replace(
        scenario,
        shape=PERFECT_SHAPE,
        vacancy_fraction=0.0,
        contamination_e=0.0,
        drift_px_per_frame=_steady(rng, run, 0.02, 0.1),
        walk_px=0.25,
        frame_time_s=SHORT_EXPOSURE_S,
    )


def _faint(run: int) -> Scenario:
    scenario, rng = _base(6, run, 100)
    return replace(
        scenario, current_pa=1.5, background_e=0.2, contamination_e=0.1,
        drift_px_per_frame=_steady(rng, run, 0.1, 0.8), walk_px=0.5,
    )  # fmt: skip


def _damaged(run: int) -> Scenario:
    scenario, rng = _base(7, run, 60)
    return replace(
        scenario, damage_per_frame=0.001, contamination_growth=0.1,
        drift_px_per_frame=_steady(rng, run, 0.1, 0.8), walk_px=0.5,
    )  # fmt: skip


def _shaking(run: int) -> Scenario:
    scenario, rng = _base(8, run, 60)
    shaking = ScanErrors(jitter_yx_px=(0.5, 1.0), hum_yx_px=(0.2, 0.2))
    return replace(scenario, scan=shaking, drift_px_per_frame=_steady(rng, run, 0.1, 0.8), walk_px=0.5)


_NO_HOP = "no hop in 1000 frames (D1-D3); fine rms <= 3 pm; velocity rms <= 2 pm/frame"
_RARELY = "undetected wrong <= 1e-3 per frame; fine rms <= 10 pm"
SCENES: tuple[DriftScene, ...] = (
    DriftScene("D1", "slow, 0.1 cells a frame, walk 0.01 cells", _NO_HOP, 4, 84, _slow),
    DriftScene("D2", "fast, 0.8-2.2 cells a frame, walk 0.02 cells", _NO_HOP, 8, 42, _fast),
    DriftScene("D3", "random walk of 0.1 cells a frame and axis on 0.1-0.4", _NO_HOP, 4, 84, _walk),
    DriftScene("D4", "stage jump of 5 cells", "recovered or flagged within 2 frames", 8, 24, _jump),
    DriftScene(
        "D5", "perfect crystal, random steps of a cell: nothing tells the lattice vectors apart",
        "flagged >= 99 %; undetected wrong <= 1e-3 per frame", 30, 100, _perfect,
    ),
    DriftScene(
        "D5s", "perfect crystal, 0.02-0.1 cells a second: the motion decides",
        "undetected wrong <= 1e-3 per frame", 4, 100, _perfect_slow,
    ),
    DriftScene("D6", "a tenth of the dose", _RARELY, 30, 100, _faint),
    DriftScene("D7", "contamination grows sevenfold, vacancies from 1 to 7 %", _RARELY, 4, 60, _damaged),
    DriftScene("D8", "row jitter 6 and 12 pm rms, hum", _RARELY, 4, 60, _shaking),
)  # fmt: skip
