"""Run the tracker over simulated specimens, frame by frame as the pipeline does, and keep every frame in a file.

The file holds one JSON line per run; a run that is there is not done again, so a long evaluation may be cut off at any time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atomid_live.detect.dog import DogDetector
from atomid_live.drift.tracker import DriftTracker
from atomid_live.evaluate.drift_scenes import DriftScene
from atomid_live.flags import Flag
from atomid_live.lattice import find_lattice
from atomid_live.settings import DetectSettings, DriftSettings, FrameSettings
from atomid_live.simulate.acquire import Session
from atomid_live.simulate.publish import as_frame
from atomid_live.types import Detections, FloatArray, Frame

UNSURE = int(Flag.MODULO_LATTICE | Flag.DRIFT_POOR | Flag.DRIFT_LOST)


@dataclass(frozen=True, slots=True)
class Followed:
    """One run, a list entry per frame; lengths in px of the frame, (row, column).

    `slope` is the straight line through the true totals of the frames that the velocity was fitted to, px per second.
    """

    scene: str
    run: int
    cell_px: float
    pixel_pm: float
    interval_s: float
    true_yx: list[tuple[float, float]]
    total_yx: list[tuple[float, float]]
    step_yx: list[tuple[float, float]]
    sigma_yx: list[tuple[float, float]]
    velocity_yx: list[tuple[float, float]]
    slope_yx: list[tuple[float, float]]
    flags: list[int]
    ms: list[float]


class Follower:
    """The tracker as the pipeline drives it; columns and lattice of the first frame give it a width and sharper vectors.

    Later frames need no columns, so none are sought.
    """

    def __init__(self) -> None:
        self._tracker = DriftTracker(DriftSettings())
        self._detector = DogDetector(DetectSettings(model="dog"), FrameSettings())
        self._first = True
        self.ms: list[float] = []

    def update(self, frame: Frame) -> Any:
        """Register one frame."""
        found, lattice = Detections.empty(), None
        if self._first:
            found = self._detector.detect(frame)
            lattice, self._first = find_lattice(found, frame.shape), False
        begun = time.process_time()
        estimate = self._tracker.update(frame, found, lattice)
        self.ms.append(1e3 * (time.process_time() - begun))
        return estimate


def slope_over(times: FloatArray, places: FloatArray) -> FloatArray:
    """Straight-line slope of places, shape (N, 2), over times; NaN for fewer than three."""
    if len(times) < 3:
        return np.full(2, np.nan)
    away = times - times.mean()
    return np.asarray(away @ (places - places.mean(axis=0)) / (away @ away))


def follow(scene: DriftScene, run: int) -> Followed:
    """Simulate a run of a scene and follow it."""
    scenario = scene.scenario(run)
    session, follower = Session(scenario), Follower()
    history = DriftSettings().history
    rows, times, true = [], list[float](), list[FloatArray]()
    for simulated in session:
        estimate = follower.update(as_frame(scenario, simulated, simulated.index))
        times.append(simulated.middle_s)
        true.append(np.array(simulated.truth.total_yx_px))
        last = slice(max(0, len(times) - history), None)
        rows.append((estimate, slope_over(np.array(times[last]), np.array(true[last]))))
    matrix = scenario.cell_matrix_px
    return Followed(
        scene.name,
        run,
        float(np.hypot(*matrix[:, 0])),
        scenario.pixel_size_nm * 1e3,
        scenario.interval_s,
        [_pair(t) for t in true],
        [_pair(e.total_yx_px) for e, _ in rows],
        [_pair(e.step_yx_px) for e, _ in rows],
        [_pair(e.sigma_yx_px) for e, _ in rows],
        [_pair(e.velocity_yx_px_s) for e, _ in rows],
        [_pair(s) for _, s in rows],
        [int(e.flags) for e, _ in rows],
        [round(ms, 3) for ms in follower.ms],
    )


def _pair(values: Iterable[float]) -> tuple[float, float]:
    y, x = (round(float(v), 5) for v in values)
    return y, x


def stored(path: Path | None) -> dict[tuple[str, int], Followed]:
    """Runs already in the file; a torn last line is left out."""
    found: dict[tuple[str, int], Followed] = {}
    if path is None or not path.is_file():
        return found
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record: Mapping[str, Any] = json.loads(line)
        except ValueError:
            continue
        run = Followed(**record)
        found[run.scene, run.run] = run
    return found


def follow_all(
    scenes: Iterable[DriftScene], most_runs: int | None, path: Path | None, tell: Callable[[str], None]
) -> dict[str, list[Followed]]:
    """Follow every run that the file lacks, at most so many of a scene, and return all of them by scene."""
    done = stored(path)
    answer: dict[str, list[Followed]] = {}
    for scene in scenes:
        for number in range(min(scene.runs, most_runs or scene.runs)):
            if (scene.name, number) not in done:
                run = follow(scene, number)
                done[scene.name, number] = run
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(run)) + "\n")
                tell(f"{scene.name} run {number + 1}: {len(run.flags)} frames, {np.median(run.ms):.1f} ms")
            answer.setdefault(scene.name, []).append(done[scene.name, number])
    return answer
