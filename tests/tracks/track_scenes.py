"""A crystal that drifts, column by column, as a detector would report it: positions, brightness, pixels, all known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from atomid_live.lattice import find_lattice
from atomid_live.settings import Settings
from atomid_live.tracks import TrackTracker
from atomid_live.types import Detections, DriftEstimate, Event, FloatArray, Frame, FrameMeta, IntArray, Origin, Reading, Tracks

SHAPE, SPACING, SIGMA = (210, 260), 15.0, 2.8
BRIGHT, BACKGROUND = 200.0, 20.0
DWELL_S, CURRENT_A, PIXEL_NM = 1e-5, 15e-12, 0.02


@dataclass
class Specimen:
    """Columns of a triangular lattice, each with a home, a brightness, and whether it is there."""

    home: FloatArray
    bright: FloatArray
    there: np.ndarray = field(default_factory=lambda: np.empty(0))

    @classmethod
    def make(cls, seed: int = 0, vacancies: float = 0.0) -> Specimen:
        """A crystal larger than the frame."""
        n = np.arange(-25, 46)
        i, j = (v.ravel() for v in np.meshgrid(n, n, indexing="ij"))
        home = np.stack([i * SPACING * np.sqrt(0.75), (j + 0.5 * i) * SPACING], axis=1) + 3.3
        rng = np.random.default_rng(seed)
        return cls(home, np.full(len(home), BRIGHT), rng.random(len(home)) >= vacancies)

    def nearest(self, y: float, x: float) -> int:
        """Number of the column nearest to a place of the first frame."""
        return int(np.hypot(*(self.home - (y, x)).T).argmin())


@dataclass
class Scene:
    """Frames of a specimen; `happen(k, specimen)` changes it before frame k, `hide(k)` lists columns not detected in it."""

    specimen: Specimen
    total: Callable[[int], tuple[float, float]] = lambda k: (1.7 * k, -2.3 * k)
    happen: Callable[[int, Specimen], None] = lambda k, specimen: None
    hide: Callable[[int], list[int]] = lambda k: []
    gain: Callable[[int], float] = lambda k: 1.0
    flags: Callable[[int], int] = lambda k: 0
    said: Callable[[int], tuple[float, float]] | None = None
    bend: Callable[[int], FloatArray] = lambda k: np.zeros((2, 2))
    noise_px: float = 0.12
    noise_part: float = 0.04
    seed: int = 1
    tracker: TrackTracker = field(default_factory=lambda: TrackTracker(Settings()))
    first: int = 0

    def frame(self, k: int) -> tuple[Frame, Detections, IntArray, DriftEstimate]:
        """Frame k, what is detected in it, the specimen's column behind each detection, and the drift told."""
        self.happen(k, self.specimen)
        rng = np.random.default_rng([self.seed, k])
        specimen, total = self.specimen, np.array(self.total(k))
        middle = np.array(SHAPE) / 2
        place = specimen.home + total
        place = place + (place - middle) @ self.bend(k).T + rng.normal(0, self.noise_px, place.shape)
        inside = specimen.there & ((place > 2) & (place < np.array(SHAPE) - 3)).all(axis=1)
        who = np.flatnonzero(inside)
        height = self.gain(k) * specimen.bright[who] * rng.normal(1, self.noise_part, len(who))
        pixels = self._pixels(place[who], height, rng)
        seen = ~np.isin(who, self.hide(k))
        who, yx, height = who[seen], place[who][seen], height[seen]
        order = np.lexsort((yx[:, 1], yx[:, 0]))
        n = len(order)
        sigma, quiet = np.full((n, 2), self.noise_px), np.zeros(n, np.int64)
        found = Detections(yx[order], np.ones(n), sigma, height[order], quiet, SPACING, SIGMA)
        meta = FrameMeta(dwell_s=DWELL_S, beam_current_a=CURRENT_A)
        number = self.first + k
        frame = Frame(number, pixels, 10.0 * number, Origin("made"), pixel_size_yx_nm=(PIXEL_NM, PIXEL_NM), meta=meta)
        said = (self.said or self.total)(k)
        return frame, found, who[order], DriftEstimate(total_yx_px=said, flags=self.flags(k))

    def _pixels(self, place: FloatArray, height: FloatArray, rng: np.random.Generator) -> np.ndarray:
        image = np.full(SHAPE, BACKGROUND)
        reach = np.arange(-9, 10)
        for (y, x), h in zip(place, height, strict=True):
            rows, cols = round(y) + reach, round(x) + reach
            r, c = (rows >= 0) & (rows < SHAPE[0]), (cols >= 0) & (cols < SHAPE[1])
            gy, gx = (np.exp(-0.5 * ((v - at) / SIGMA) ** 2) for v, at in ((rows[r], y), (cols[c], x)))
            image[np.ix_(rows[r], cols[c])] += h * gy[:, None] * gx
        return np.rint(image + rng.normal(0, 4.0, SHAPE)).clip(0).astype(np.uint16)

    def run(self, frames: int) -> list[tuple[Tracks, IntArray]]:
        """Tracks of each frame, and the specimen's column behind each detection."""
        out = []
        for k in range(frames):
            frame, found, who, drift = self.frame(k)
            lattice = find_lattice(found, frame.shape)
            tracks = self.tracker.update(frame, found, lattice, drift, Reading())
            assert len(tracks.track_id) == len(found)
            out.append((tracks, who))
        return out


def ids_of(answers: list[tuple[Tracks, IntArray]]) -> dict[int, set[int]]:
    """Ids ever given to each column of the specimen, where they were said to be sure."""
    given: dict[int, set[int]] = {}
    for tracks, who in answers:
        if tracks.sure:
            for column, number in zip(who, tracks.track_id, strict=True):
                if number >= 0:
                    given.setdefault(int(column), set()).add(int(number))
    return given


def each_has_one_id(answers: list[tuple[Tracks, IntArray]]) -> bool:
    """Whether no column changed its id and no id its column."""
    given = ids_of(answers)
    single = [numbers for numbers in given.values() if len(numbers) == 1]
    return len(single) == len(given) and len(set.union(*single)) == len(single)


def events_of(answers: list[tuple[Tracks, IntArray]]) -> list[Event]:
    """All events in order."""
    return [event for tracks, _ in answers for event in tracks.events]


__all__ = ["PIXEL_NM", "SHAPE", "SPACING", "Scene", "Specimen", "each_has_one_id", "events_of", "ids_of"]
