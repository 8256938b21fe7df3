"""Columns followed over a segment: ids that stay, changes that are confirmed, and the damage they add up to."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from atomid_live.flags import Flag
from atomid_live.lattice.grid import Bins, sort_into_bins
from atomid_live.lattice.sites import fit_lattice, missing_sites
from atomid_live.settings import Settings
from atomid_live.tracks.dose import DoseMeter
from atomid_live.tracks.kernels import place_all
from atomid_live.tracks.lattice_watch import LatticeWatch, deformation
from atomid_live.tracks.link import RANGE_SPACINGS, Placement, align, link
from atomid_live.tracks.local import median
from atomid_live.tracks.sites import OCCUPIED, VACANT, Sites
from atomid_live.tracks.verdicts import Change, Rules, judge, learn, state_counts
from atomid_live.tracks.view import ESTABLISHED, Seen, look, weigh
from atomid_live.types import NAN, Detections, DriftEstimate, Event, FloatArray, Frame, IntArray, Lattice, Reading, Tracks

IDS_PER_BEGINNING = 1_000_000
MOST_SITES = 100_000
PLACEMENTS = 64
LEAST_LINKED = 0.5
USUAL_LINKED = 0.8
LEAST_FOR_SHARE = 20
LEAST_FOR_PATTERN, ALL_AT_ONCE = 2, 3
CLAIMED_SPACINGS, OWN_PLACE_SPACINGS = 0.3, 0.5
MOST_BEND = 0.03
DOUBTFUL = int(Flag.MODULO_LATTICE | Flag.DRIFT_POOR)
ODD_FRAME = "far fewer of the known columns were found than usual: nothing was learned from this frame"
MODULO = "ids may be those of neighbouring columns: drift is known only up to a lattice vector"
MISFIT = "columns do not fit the known sites"
PATTERN = "ids may be those of neighbouring columns: the vacancies are not where they were"


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """Ids, None where none can be given; whether they are sure; words; events."""

    ids: IntArray | None
    sure: bool = False
    note: str = ""
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class _Past:
    """Where sites lay in an earlier frame."""

    sequence: int
    time_s: float
    placement: Placement


class TrackTracker:
    """Gives the columns of each frame the ids they had before, and tells what changed.

    Parameters
    ----------
    settings : Settings
        `tracks.confirm_frames` and `frame.beam_current_pa` are used.

    Notes
    -----
    Ids begin at a million times the number of the frame they begin in, so that one is never given twice in a session, not
    even after it was resumed. They begin anew, and say so, with a segment and after drift was lost.
    """

    def __init__(self, settings: Settings) -> None:
        self._confirm = settings.tracks.confirm_frames
        self._dose = DoseMeter(settings.frame.beam_current_pa)
        self._lattice = LatticeWatch(self._confirm)
        self.reset("first frame")

    def reset(self, reason: str) -> None:
        """Begin a segment for `reason`: ids, dose and lattice history start anew."""
        self._dose.reset()
        self._lattice.reset()
        self._forget(reason)

    def _forget(self, reason: str) -> None:
        self._reason = reason
        self._sites = Sites()
        self._next_id = self._end_id = 0
        self._base: FloatArray | None = None
        self._past: deque[_Past] = deque(maxlen=PLACEMENTS)
        self._shares: deque[float] = deque(maxlen=9)
        self._lost = ""
        self._misfits = 0

    def update(self, frame: Frame, detections: Detections, lattice: Lattice, drift: DriftEstimate, reading: Reading) -> Tracks:
        """Follow the columns into the next frame; frames must come in order of `sequence`."""
        self._dose.expose(frame)
        whole = self._lattice.update(frame, lattice, reading, drift)
        answer = self._follow(frame, detections, lattice, drift)
        events = (*answer.events, *whole)
        if answer.ids is None:
            return Tracks.none_for(len(detections), answer.note, self._dose.reading(), events)
        return Tracks(answer.ids, answer.sure, answer.note, events, self._dose.reading())

    def _follow(self, frame: Frame, found: Detections, lattice: Lattice, drift: DriftEstimate) -> _Answer:
        total = np.array(drift.total_yx_px)
        known = bool(np.isfinite(total).all())
        doubt = MODULO if drift.flags & DOUBTFUL else ""
        if drift.flags & Flag.DRIFT_LOST:
            self._lost = "drift was lost"
        if not known or (self._lost and (doubt or drift.flags & Flag.DRIFT_LOST)):
            return _Answer(None, note="drift is not known in this frame")
        if not len(found) or not found.spacing_px > 0:
            return _Answer(None, note="too few columns")
        if self._lost:
            self._forget(self._lost)
        if not len(self._sites):
            return _Answer(None, note=MODULO) if doubt else self._begin(frame, found, lattice, total)
        bins = sort_into_bins(found.yx_px, RANGE_SPACINGS * found.spacing_px)
        placement = self._placed(found, bins, self._by_drift(lattice, total, frame.shape), frame.shape)
        seen = look(self._sites, placement, found, frame.shape, bins)
        share = self._share(seen)
        ids = np.full(len(found), -1, np.int64)
        linked = seen.column >= 0
        ids[seen.column[linked]] = self._sites.track_id[seen.row[linked]]
        doubt = doubt or (MISFIT if share < LEAST_LINKED else self._pattern(seen))
        if doubt and doubt != MODULO:
            self._misfits += 1
            if self._misfits >= self._confirm:
                self._forget(doubt)
                return self._begin(frame, found, lattice, total)
        if doubt:
            return _Answer(None if doubt == MISFIT else ids, note=doubt)
        self._misfits = 0
        usual = float(np.median(self._shares)) if self._shares else share
        self._shares.append(share)
        if share < USUAL_LINKED * usual:
            return _Answer(ids, True, ODD_FRAME)
        return self._take(frame, found, lattice, seen, ids, placement)

    def _begin(self, frame: Frame, found: Detections, lattice: Lattice, total: FloatArray) -> _Answer:
        """Number the columns of this frame."""
        self._next_id = self._end_id = frame.sequence * IDS_PER_BEGINNING
        self._end_id += IDS_PER_BEGINNING
        self._base = _basis(lattice)
        placement = self._by_drift(lattice, total, frame.shape)
        self._past.append(_Past(frame.sequence, frame.time_s, placement))
        nobody = Seen(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2)), np.empty(0, np.bool_))
        first = self._next_id
        ids = self._new_columns(found, np.full(len(found), -1, np.int64), nobody, placement)
        self._new_gaps(frame, found, lattice, nobody, placement)
        return _Answer(ids, True, f"ids begin at {first}: {self._reason}")

    def _by_drift(self, lattice: Lattice, total: FloatArray, shape: tuple[int, int]) -> Placement:
        """Where sites should be by drift, bent as the lattice is."""
        bend = self._past[-1].placement.bend if self._past else np.zeros((2, 2))
        now = _basis(lattice)
        if self._base is None:
            self._base = now
        gradient = deformation(now, self._base) if now is not None and self._base is not None else None
        if gradient is not None and np.abs(gradient - np.eye(2)).max() <= MOST_BEND:
            bend = gradient - np.eye(2)
        return Placement(total, bend, (np.array(shape) - 1) / 2 - total)

    def _placed(self, found: Detections, bins: Bins, first: Placement, shape: tuple[int, int]) -> Placement:
        limit = np.array(shape) - 0.5
        row, _, _ = place_all(
            self._sites.home_yx_px, first.shift_yx_px, first.bend, first.centre_yx_px, -0.5, limit, 0.0, limit
        )
        row = row[self._sites.state[row] == OCCUPIED]
        return align(self._sites.home_yx_px[row], first, found.yx_px, found.spacing_px, shape, bins)

    def _share(self, seen: Seen) -> float:
        """Part of the well-known columns in view that were found."""
        expected = seen.inner & (self._sites.state[seen.row] == OCCUPIED) & (self._sites.hits[seen.row] >= ESTABLISHED)
        return float((seen.column[expected] >= 0).mean()) if expected.sum() >= LEAST_FOR_SHARE else 1.0

    def _pattern(self, seen: Seen) -> str:
        """Words when most vacancies are filled at once and as many columns gone, or all are filled: a shift by a cell."""
        sites, r = self._sites, seen.row
        vacant = seen.inner & (sites.state[r] == VACANT) & (sites.held[r] >= self._confirm)
        filled = int((seen.column[vacant] >= 0).sum())
        full = seen.inner & (sites.state[r] == OCCUPIED) & (sites.hits[r] >= ESTABLISHED) & (sites.doubt[r] == 0)
        gone = int((seen.column[full] < 0).sum())
        many = filled >= LEAST_FOR_PATTERN and 2 * filled >= vacant.sum()
        every = filled >= ALL_AT_ONCE and filled == vacant.sum()
        return PATTERN if every or (many and 2 * gone >= filled) else ""

    def _take(
        self, frame: Frame, found: Detections, lattice: Lattice, seen: Seen, ids: IntArray, placement: Placement
    ) -> _Answer:
        """Learn from a frame whose ids are sure."""
        self._past.append(_Past(frame.sequence, frame.time_s, placement))
        if len(seen.row):
            seen = replace(seen, bins=sort_into_bins(seen.place_yx_px, OWN_PLACE_SPACINGS * found.spacing_px))
        evidence = weigh(frame, found, self._sites, seen, found.spacing_px)
        if evidence is None:
            return _Answer(ids, True, "too few known columns to judge by")
        rules = Rules(self._confirm, found.spacing_px, frame.sequence)
        changes, never = judge(self._sites, seen, evidence, rules)
        learn(self._sites, seen, evidence)
        events = tuple(self._event(change, frame) for change in changes)
        kinds = [change.kind for change in changes]
        known, full = state_counts(self._sites, seen.row[seen.inner], self._confirm)
        self._dose.count(known, full, kinds.count("vacancy appears"), kinds.count("vacancy heals"))
        ids = self._new_columns(found, ids, seen, placement)
        self._new_gaps(frame, found, lattice, seen, placement)
        if never.any():
            self._sites.keep(~np.pad(never, (0, len(self._sites) - len(never))))
        self._stay_bounded(placement, frame.shape)
        return _Answer(ids, True, events=events)

    def _event(self, change: Change, frame: Frame) -> Event:
        home = self._sites.home_yx_px[change.row]
        times = {past.sequence: past.time_s for past in self._past}
        before = [past for past in self._past if past.sequence < change.onset]
        return Event(
            change.kind,
            frame.sequence,
            change.onset,
            before[-1].sequence if before else -1,
            times.get(change.onset, NAN),
            int(self._sites.track_id[change.row]),
            _pair(self._past[-1].placement.places(home)),
            _pair(before[-1].placement.places(home)) if before else (NAN, NAN),
            _pair(home),
            change.size,
            change.sigma,
            change.unit,
            abs(change.size) / change.sigma if change.sigma > 0 else NAN,
            change.note,
        )

    def _numbers(self, count: int) -> IntArray:
        ids = self._next_id + np.arange(count, dtype=np.int64)
        self._next_id += count
        if self._next_id + MOST_SITES > self._end_id:
            self._lost = "the numbers of this beginning are used up"
        return ids

    def _new_columns(self, found: Detections, ids: IntArray, seen: Seen, placement: Placement) -> IntArray:
        """Give new ids to columns at places of their own."""
        new = np.flatnonzero((ids < 0) & (found.amplitude > 0))
        beside = link(np.ascontiguousarray(found.yx_px[new]), seen.place_yx_px, CLAIMED_SPACINGS * found.spacing_px, seen.bins)
        new = new[beside < 0]
        ids = ids.copy()
        ids[new] = self._numbers(len(new))
        self._sites.add(ids[new], placement.homes(found.yx_px[new]), found.amplitude[new], OCCUPIED)
        return ids

    def _new_gaps(self, frame: Frame, found: Detections, lattice: Lattice, seen: Seen, placement: Placement) -> None:
        """Take lattice nodes that hold no column, and no site yet, for vacant until shown otherwise."""
        if not lattice.found:
            return
        gaps = missing_sites(found.yx_px, lattice, frame.shape, found.spacing_px)
        if not len(gaps):
            return
        gaps = gaps[link(gaps, seen.place_yx_px, OWN_PLACE_SPACINGS * found.spacing_px, seen.bins) < 0]
        if not len(gaps):
            return
        expected = _expected_at(gaps, found, lattice)
        use = expected > 0
        self._sites.add(self._numbers(int(use.sum())), placement.homes(gaps[use]), expected[use], VACANT)

    def _stay_bounded(self, placement: Placement, shape: tuple[int, int]) -> None:
        """Forget the oldest sites out of view when there are too many."""
        if len(self._sites) <= MOST_SITES:
            return
        place = placement.places(self._sites.home_yx_px)
        away = ((place < 0) | (place >= np.array(shape))).any(axis=1)
        keep = np.ones(len(self._sites), np.bool_)
        keep[np.flatnonzero(away)[: len(self._sites) - MOST_SITES // 2]] = False
        self._sites.keep(keep)


def _pair(point: FloatArray) -> tuple[float, float]:
    return float(point[0]), float(point[1])


def _basis(lattice: Lattice) -> FloatArray | None:
    """Basis vectors as columns, rows (y, x), in px."""
    return np.array([lattice.a_yx_px, lattice.b_yx_px]).T if lattice.found else None


def _expected_at(gaps: FloatArray, found: Detections, lattice: Lattice) -> FloatArray:
    """Median brightness of the site class that each gap belongs to, shape (M,)."""
    fit = fit_lattice(found.yx_px, lattice.cell, lattice.site)
    inverse = np.linalg.inv(fit.matrix)
    away = (gaps[:, None, :] - fit.origin_yx_px[None, :, :]) @ inverse.T
    away = (away - np.rint(away)) @ fit.matrix.T
    kind = np.hypot(away[..., 0], away[..., 1]).argmin(axis=1)
    each = np.array([median(found.amplitude[lattice.site == s]) for s in range(len(fit.origin_yx_px))])
    return np.asarray(each[kind])
