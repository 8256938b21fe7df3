"""Simulated sessions through the whole chain, and how their events and ids compare with the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from atomid_live.detect.dog import DogDetector
from atomid_live.evaluate.metrics import match
from atomid_live.evaluate.track_scenes import Expected, TrackScene, expected_events
from atomid_live.flags import Flag
from atomid_live.pipeline import Pipeline
from atomid_live.protocols import Detector
from atomid_live.settings import Settings
from atomid_live.simulate.acquire import FrameTruth
from atomid_live.simulate.happenings import EventfulSession
from atomid_live.simulate.publish import as_frame
from atomid_live.types import Event, FloatArray, Result

PLACE_SPACINGS = 0.6
EARLY, LATE = 2, 8
MATCH_SPACINGS = 0.3
BORDER_PX = 28.0
FIRST_JUDGED, LAST_JUDGED = 8, 4


@dataclass
class Score:
    """Counts of one or more sessions.

    Attributes
    ----------
    true, found, false : Counter
        Events by kind: that happened, that were told of them, and told without reason.
    delay, onset_error : list of int
        Frames from the first frame of an event to the one that told it, and error of the first frame told.
    column_frames, wrong_ids, unsure_frames, frames, begun : int
        Columns with a sure id, those whose id was another column's, frames with unsure ids, all frames, beginnings after the
        first.
    loss_rates : list of (float, float)
        Vacancies per site and frame as told at the end of each session, with the error told.
    """

    true: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    false: Counter[str] = field(default_factory=Counter)
    delay: list[int] = field(default_factory=list)
    onset_error: list[int] = field(default_factory=list)
    column_frames: int = 0
    wrong_ids: int = 0
    unsure_frames: int = 0
    frames: int = 0
    begun: int = 0
    loss_rates: list[tuple[float, float]] = field(default_factory=list)


def _is_of(event: Event, expected: Expected, spacing_px: float) -> bool:
    if event.kind != expected.kind or not -EARLY <= event.sequence - expected.first <= LATE:
        return False
    if expected.place is None:
        return True
    away = np.array(event.yx_px) - expected.place(event.sequence)
    return bool(np.hypot(*away) < PLACE_SPACINGS * spacing_px)


def score_events(told: Sequence[Event], expected: Sequence[Expected], spacing_px: float, score: Score) -> None:
    """Count each expected event found at most once; what is told and fits none is false."""
    open_ones = list(expected)
    score.true.update(e.kind for e in expected)
    for event in told:
        fits = next((e for e in open_ones if _is_of(event, e, spacing_px)), None)
        if fits is None:
            score.false[event.kind] += 1
            continue
        open_ones.remove(fits)
        score.found[event.kind] += 1
        score.delay.append(event.sequence - fits.first)
        score.onset_error.append(event.onset_sequence - fits.first)


class _IdBook:
    """Which true column each id was first seen on."""

    def __init__(self) -> None:
        self._owner: dict[int, tuple[int, int, int]] = {}

    def wrong(self, result: Result, truth: FrameTruth) -> tuple[int, int]:
        """Columns with a sure id, and those of them whose id belongs to another column; border columns are left out."""
        if not result.tracks.sure:
            return 0, 0
        found = result.detections
        inner = (found.flags & Flag.EDGE) == 0
        ids = result.tracks.track_id[inner]
        ours, true = match(found.yx_px[inner], truth.seen_yx_px, MATCH_SPACINGS * found.spacing_px)
        seen = wrong = 0
        for number, (i, j), site in zip(ids[ours], truth.columns.cell[true], truth.columns.site[true], strict=True):
            if number >= 0:
                key = (int(i), int(j), int(site))
                seen += 1
                wrong += self._owner.setdefault(int(number), key) != key
        return seen, wrong


def _bright_cells(truth: FrameTruth) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in truth.columns.cell[truth.columns.site == 0]}


def _newly_gone(session: EventfulSession, before: set[tuple[int, int]], truth: FrameTruth) -> list[Expected]:
    """Bright columns well inside the frame that were there in the frame before and are not now."""
    out = []
    for cell in sorted(before - _bright_cells(truth)):
        place = session.place_yx_px(cell, 0, truth.index)
        inside = ((place > BORDER_PX) & (place < np.array(session.scenario.shape) - 1 - BORDER_PX)).all()
        if inside:

            def where(index: int, cell: tuple[int, int] = cell) -> FloatArray:
                return session.place_yx_px(cell, 0, index)

            out.append(Expected("vacancy appears", truth.index, where))
    return out


def _judged_place(event: Event, shape: tuple[int, int]) -> bool:
    """Whether a told event lies where the truth was collected: the rim and its neighbourhood are left out on both sides."""
    return all(BORDER_PX <= v <= n - 1 - BORDER_PX for v, n in zip(event.before_yx_px, shape, strict=True))


def run_session(session: EventfulSession, score: Score, detector: Detector | None = None) -> None:
    """Follow one session and add its counts to a score."""
    pipeline, book = Pipeline(detector or DogDetector(), Settings()), _IdBook()
    scenario = session.scenario
    told: list[Event] = []
    expected = expected_events(session)
    before: set[tuple[int, int]] = set()
    spacing = float(np.hypot(*scenario.cell_matrix_px[:, 0]))
    for simulated in session:
        result = pipeline.process(as_frame(scenario, simulated, simulated.index))
        told += result.tracks.events
        seen, wrong = book.wrong(result, simulated.truth)
        score.column_frames += seen
        score.wrong_ids += wrong
        score.frames += 1
        score.unsure_frames += not result.tracks.sure
        score.begun += simulated.index > 0 and result.tracks.note.startswith("ids begin")
        if scenario.damage_per_frame and FIRST_JUDGED <= simulated.index < len(session) - LAST_JUDGED:
            expected += _newly_gone(session, before, simulated.truth)
        before = _bright_cells(simulated.truth)
        if simulated.index == len(session) - 1:
            score.loss_rates.append(result.tracks.damage.loss_per_frame)
    if scenario.damage_per_frame:
        last = len(session) - LAST_JUDGED
        told = [e for e in told if FIRST_JUDGED <= e.onset_sequence < last and _judged_place(e, scenario.shape)]
    score_events(told, expected, spacing, score)


def run_scene(scene: TrackScene, seeds: int, detector: Detector | None = None) -> Score:
    """Follow `seeds` sessions of a scene."""
    score = Score()
    for seed in range(seeds):
        run_session(scene.make(seed + 1), score, detector)
    return score
