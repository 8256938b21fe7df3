"""`acceptance`: simulated sessions with known truth through the whole program on this PC, and how they came out.

Each run writes Velox files of one drifting specimen, replays them through a real session, and only then reads the truth.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from atomid_live.assemble import Prepared
from atomid_live.errors import UsageError
from atomid_live.evaluate.session_truth import SessionScore, compare
from atomid_live.simulate.microscope import simulate_session, truth_folder
from atomid_live.simulate.scan import ScanErrors
from atomid_live.simulate.scenario import Scenario

_FIRST_SEED = 900
_CRYSTALS = (("res2", 0.0247), ("mos2", 0.0124))
_JUMP_CELLS = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class RunReport:
    """One simulated session: what it was, how it compares with the truth, and whether every frame is accounted for."""

    seed: int
    crystal: str
    drift_cells: tuple[float, float]
    score: SessionScore
    received: int
    counts: dict[str, int]
    latency_p50_ms: float

    @property
    def adds_up(self) -> bool:
        """Whether received is the sum of the states, and every frame of the truth was received once."""
        return self.received == sum(self.counts.values()) and not (self.score.missing or self.score.doubled)


def scenario(number: int, frames: int, side: int) -> Scenario:
    """Run number `number`: 0.1 to 1.5 cells a frame on both axes, a jump of five cells, jitter, vacancies, 9 e background."""
    rng = np.random.default_rng(_FIRST_SEED + number)
    crystal, pixel = _CRYSTALS[number % len(_CRYSTALS)]
    cells = rng.uniform(0.1, 1.5, 2) * rng.choice([-1, 1], 2)
    return Scenario(
        crystal=crystal,
        shape=(side, side),
        pixel_size_nm=pixel,
        angle_rad=float(rng.uniform(0, np.pi)),
        frames=frames,
        seed=_FIRST_SEED + number,
        background_e=9.0,
        vacancy_fraction=0.01,
        scan=ScanErrors(jitter_yx_px=(0.3, 0.5), hum_yx_px=(0.1, 0.1)),
        drift_cells_per_frame=(float(cells[0]), float(cells[1])),
        walk_px=0.5,
        jump_frame=frames // 2,
        jump_cells=(_JUMP_CELLS * float(rng.choice([-1, 1])), 0.0),
    )


def run_one(prepared: Prepared, number: int, frames: int, side: int) -> RunReport:
    """Write, replay and score one run."""
    chosen = scenario(number, frames, side)
    with tempfile.TemporaryDirectory(prefix="atomid-acceptance-") as text:
        folder = Path(text) / "frames"
        simulate_session(folder, chosen, pace_s=0.0, mode="direct")
        settings = prepared.settings
        output = settings.output.model_copy(update={"out": Path(text) / "out", "annotate": "none"})
        run = Prepared(settings.model_copy(update={"output": output}), prepared.origins).replay([folder], None)
        with run.closing:
            outcome = run.session.run(Event())
            run.recorder.finish("clean" if outcome.clean else "failure", outcome.reason)
        status = run.session.status()
        score = compare(run.path, truth_folder(folder))
    return RunReport(
        chosen.seed,
        chosen.crystal,
        chosen.drift_cells_per_frame,
        score,
        status.received,
        dict(status.counts),
        status.latency_p50_ms,
    )


def as_table(reports: list[RunReport]) -> str:
    """Return one row per run, and the worst of each column."""
    head = f"{'seed':>5} {'crystal':<7} {'cells/frame':>13} {'steps':>5} {'wrong':>6} {'flagged':>8} {'drift rms px':>13}"
    lines = [f"{head} {'F1@0.5':>7} {'F1@0.25':>8} {'adds up':>8}"]
    for one in reports:
        score, cells = one.score, f"{one.drift_cells[0]:+.2f},{one.drift_cells[1]:+.2f}"
        lines.append(
            f"{one.seed:>5} {one.crystal:<7} {cells:>13} {score.steps:>5} {score.wrong_unflagged:>6} {score.wrong_flagged:>8} "
            f"{score.drift_rms_px:>13.3f} {score.f1_half:>7.4f} {score.f1_quarter:>8.4f} {'yes' if one.adds_up else 'NO':>8}"
        )
    scores = [one.score for one in reports]
    lines.append(
        f"{'worst':>5} {'':<7} {'':>13} {'':>5} {max(s.wrong_unflagged for s in scores):>6} "
        f"{max(s.wrong_flagged for s in scores):>8} {max(s.drift_rms_px for s in scores):>13.3f} "
        f"{min(s.f1_half for s in scores):>7.4f} {min(s.f1_quarter for s in scores):>8.4f} "
        f"{'yes' if all(one.adds_up for one in reports) else 'NO':>8}"
    )
    return "\n".join(lines)


def as_record(reports: list[RunReport]) -> dict[str, Any]:
    """Return the object that `--json` prints."""
    runs = [{**dataclasses.asdict(one), "adds_up": one.adds_up} for one in reports]
    return {"schema": 1, "runs": runs}


def run_acceptance(prepared: Prepared, seeds: int, frames: int, side: int) -> int:
    """Print the certificate; 1 when a frame is unaccounted for."""
    if seeds < 1 or frames < 4:
        raise UsageError(f"{seeds} runs of {frames} frames; at least 1 run of 4 frames is needed")
    reports = []
    for number in range(seeds):
        reports.append(run_one(prepared, number, frames, side))
        if not prepared.settings.output.json_lines:
            print(as_table(reports[-1:]).splitlines()[1], flush=True)
    print(json.dumps(as_record(reports), indent=2) if prepared.settings.output.json_lines else "\n" + as_table(reports))
    return 0 if all(one.adds_up for one in reports) else 1
