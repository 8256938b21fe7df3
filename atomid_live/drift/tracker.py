"""Drift of the specimen, frame after frame: what is sure is accumulated, what is not is said.

Each frame is registered against a rolling reference (fine shift, known modulo a lattice vector), every lattice candidate is
weighed by landmarks and by the motion so far, and the answer carries its candidates whenever they were not told apart.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

import numpy as np

from atomid_live.drift.hypotheses import Histories, Verdict
from atomid_live.drift.landmarks import Evidence, Query, Trust, free_evidence, lattice_evidence
from atomid_live.drift.overlap import Image
from atomid_live.drift.periods import Periods, reduced
from atomid_live.drift.prepare import Preparer
from atomid_live.drift.reference import Reference
from atomid_live.drift.register import Correlator, Fine, Pair, Spectrum, overlap_share, refine
from atomid_live.drift.relief import Relief
from atomid_live.drift.velocity import VelocityFit
from atomid_live.flags import Flag
from atomid_live.settings import DriftSettings
from atomid_live.types import Detections, DriftEstimate, FloatArray, Frame, Lattice, Origin

NAN = math.nan
LOST: Pair = (NAN, NAN)
REACH = 3
WIDE_REACH = 9
SURE_NATS = 4.5  # z = sqrt(2 * 4.5) = 3
SURE_PROBABILITY = 0.99
LEAST_OVERLAP = 0.62
FORCED_OVERLAP = 0.4
POOR_SHARE = 0.35
LEAST_CORRELATION = 0.035
EXPECTED_NATS = 15.0
MISSING_SHARE = 0.15
PROVED = 0.9
DECISIVE_NATS = 25.0
# measured on simulated runs: error of the total per pixel of path as the reference moves on, share of the scan lag that is
# wrong because the velocity is, and the interpolation's own error
PATH_ERROR = 1.5e-4
LAG_ERROR = 0.01
LEAST_VARIANCE = 1e-4
USUAL_VELOCITY_NM_S = 0.05
CANDIDATES_SHOWN = 6
RELIEF_WITHOUT_CELL = 8.0
LEAST_SHARED = 0.15
RULED_OUT = -1e4


@dataclass(slots=True)
class _Moment:
    """One prepared frame on its way through the tracker."""

    frame: Frame
    image: Image
    binned: Image
    spectrum: Spectrum
    relief: Image | None = None


class DriftTracker:
    """Follows the specimen over the frames of one segment.

    Parameters
    ----------
    settings : DriftSettings
        `history` frames make the velocity.

    Notes
    -----
    Convention: a feature at p in the segment's first frame is found at p + `total_yx_px`. `reset` begins a new segment;
    a frame of another size begins anew by itself.
    """

    def __init__(self, settings: DriftSettings) -> None:
        self._settings = settings
        self._segment = 0
        self._clear()

    def reset(self, segment: int) -> None:
        """Begin a segment: the next frame becomes the reference."""
        self._segment = segment
        self._clear()

    def get(self) -> DriftEstimate:
        """Return the latest estimate."""
        return self._estimate

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Compile and allocate for frames of this shape, leaving no trace."""
        rng = np.random.default_rng(0)
        y, x = np.ogrid[: shape[0], : shape[1]]
        pixels = (40 + 20 * np.cos(y * 0.5) * np.cos(x * 0.5) + rng.normal(0, 5, shape)).astype(np.float32)
        other = DriftTracker(self._settings)
        none = Detections.empty()
        for number in range(3):
            other.update(Frame(number, np.roll(pixels, number, 0), float(number), Origin("")), none, None)

    def _clear(self) -> None:
        self._preparer: Preparer | None = None
        self._correlator: Correlator | None = None
        self._reference: Reference | None = None
        self._histories: Histories | None = None
        self._first_sequence = -1
        self._time_s = NAN
        self._intervals: deque[float] = deque(maxlen=9)
        self._velocity = VelocityFit(self._settings.history)
        self._good: deque[float] = deque(maxlen=9)
        self._variances: deque[tuple[float, float]] = deque(maxlen=9)
        self._pending: tuple[Image, Spectrum] | None = None
        self._trust = Trust()
        self._relief = Relief(RELIEF_WITHOUT_CELL)
        self._gauge = 0.0
        self._unsure = 0
        self._poor = 0
        self._offset = np.zeros(2)
        self._lag = np.zeros(2)
        self._path = 0.0
        self._estimate = DriftEstimate()

    def update(self, frame: Frame, detections: Detections, lattice: Lattice | None = None) -> DriftEstimate:
        """Register the next frame.

        Parameters
        ----------
        frame : Frame
            In sequence order; its times may repeat or run backwards.
        detections, lattice : Detections, Lattice or None
            Of this frame; both may be empty, the pixels suffice. They give the column width and sharper lattice vectors.

        Returns
        -------
        DriftEstimate
            Always; ordinary bad luck is a flag.
        """
        if self._preparer is None or self._preparer.shape != frame.shape:
            self._clear()
            self._preparer = Preparer(frame.shape, detections.column_sigma_px)
        if self._preparer.too_small:
            return self._answer(frame, Flag.DRIFT_POOR, "frame too small to be registered", 0.0)
        interval = self._tick(frame)
        prepared = self._preparer.prepare(frame.pixels)
        if prepared.empty:
            self._elapse(frame, interval)
            return self._answer(frame, Flag.DRIFT_POOR, "frame holds no contrast", 0.0, self._clock_flag)
        if self._correlator is None:
            self._correlator = Correlator(self._preparer.binned_shape)
        moment = _Moment(frame, prepared.image, prepared.binned, self._correlator.spectrum(prepared.image))
        if self._reference is None:
            return self._start(moment, lattice)
        self._elapse(frame, interval)
        return self._follow(moment)

    # -- time ---------------------------------------------------------------------------------------------------------

    def _tick(self, frame: Frame) -> float:
        """Seconds since the frame before; the usual interval where the stamps do not tell."""
        self._clock_flag = 0
        gap = frame.time_s - self._time_s
        usual = median(self._intervals) if self._intervals else 1.0
        if math.isfinite(frame.time_s):
            self._time_s = frame.time_s
        if not math.isfinite(gap):
            return usual
        if gap < 0:
            self._clock_flag = int(Flag.CLOCK_STEP)
            self._velocity.clear()
            return usual
        if gap == 0:
            return usual
        self._intervals.append(gap)
        return gap

    def _elapse(self, frame: Frame, interval: float) -> None:
        if self._histories is None:
            return
        if len(self._intervals) == 1 and self._reference is not None and self._reference.frames == 1:
            self._histories = self._new_histories(frame, interval)
        if self._intervals:
            self._histories.set_nominal(median(self._intervals))
        sigma = frame.time_sigma_s if math.isfinite(frame.time_sigma_s) else 0.0
        self._histories.elapse(interval, sigma)

    # -- beginning ----------------------------------------------------------------------------------------------------

    def _bin(self) -> int:
        assert self._preparer is not None
        return self._preparer.bin_px

    def _cell(self) -> float:
        assert self._reference is not None
        periods = self._reference.periods
        return periods.shortest if periods is not None else 0.1 * min(self._reference.mean.shape)

    def _new_histories(self, frame: Frame, interval: float) -> Histories:
        cell = self._cell()
        pixel_nm = frame.pixel_size_yx_nm[0] * self._bin()
        if math.isfinite(pixel_nm) and math.isfinite(frame.time_s) and self._intervals:
            per_frame = min(max(USUAL_VELOCITY_NM_S / pixel_nm * interval, 0.3 * cell), 1.2 * cell)
        else:
            per_frame = cell
        return Histories(cell, per_frame / interval, interval, self._offset)

    def _periods_of(self, lattice: Lattice | None, own: Periods | None) -> Periods | None:
        """Vectors from the columns where they agree with the pixels, else None."""
        if lattice is None or not lattice.found:
            return None
        a, b = reduced(np.array(lattice.a_yx_px) / self._bin(), np.array(lattice.b_yx_px) / self._bin())
        if own is not None:
            times = np.stack([a, b]) @ np.linalg.inv(own.matrix)
            if np.abs(times - np.round(times)).max() > 0.08 or abs(abs(np.linalg.det(np.round(times))) - 1) > 0.01:
                return None
        if not 3.0 < math.hypot(*a) <= math.hypot(*b) < min(self._preparer.binned_shape) / 4 if self._preparer else True:
            return None
        return Periods((float(a[0]), float(a[1])), (float(b[0]), float(b[1])))

    def _start(self, moment: _Moment, lattice: Lattice | None) -> DriftEstimate:
        assert self._correlator is not None
        self._reference = Reference(self._correlator, moment.image, moment.spectrum)
        self._reference.prefer(self._periods_of(lattice, self._reference.periods))
        self._begin_relief(moment)
        self._histories = self._new_histories(moment.frame, 1.0)
        self._first_sequence = moment.frame.sequence
        self._velocity.add(moment.frame.time_s, (0.0, 0.0), 0.1, moment.frame.time_sigma_s)
        self._estimate = DriftEstimate(
            step_yx_px=(0.0, 0.0),
            total_yx_px=(0.0, 0.0),
            sigma_yx_px=(0.0, 0.0),
            quality=1.0,
            reference_sequence=self._first_sequence,
            segment=self._segment,
            flags=int(Flag.SEGMENT_START) | self._clock_flag,
        )
        return self._estimate

    def _begin_relief(self, moment: _Moment) -> None:
        periods = self._reference.periods if self._reference is not None else None
        self._relief = Relief(periods.shortest if periods is not None else RELIEF_WITHOUT_CELL)
        self._relief.begin(self._relief.of(moment.binned))

    # -- following ----------------------------------------------------------------------------------------------------

    def _follow(self, moment: _Moment) -> DriftEstimate:
        assert self._reference is not None and self._histories is not None
        fine, shifts = self._fine(moment)
        if fine is None or fine.correlation < self._least_correlation():
            return self._unregistered(moment, fine)
        noise = 0.02**2 + max(np.nanmax(fine.variance_yx), 0.0)
        moment.relief = self._relief.of(moment.binned)
        weighed, evidence, both = None, None, None
        for reach in (self._reach(), WIDE_REACH):
            evidence = self._histories.covering(self._evidence(moment, fine, shifts, reach), self._reference.periods)
            both = evidence.plus(_outside(moment.image, evidence))
            if not self._decisive(evidence):
                both = both.plus(self._relief.nats(moment.relief, evidence.shift_yx))
            weighed = self._histories.weigh(both, noise, self._trust.real)
            if self._reference.periods is None or not self._missing(evidence):
                break
        assert weighed is not None and evidence is not None and both is not None
        verdict = self._histories.adopt(weighed)
        sure = verdict.margin_nats > SURE_NATS and verdict.probability > SURE_PROBABILITY and not self._missing(evidence)
        if sure:
            self._learn(verdict, evidence, both)
        fine = self._settled(moment, fine, verdict)
        return self._registered(moment, fine, verdict, sure)

    def _reach(self) -> int:
        """Lattice vectors looked at each way: few while the motion is well known."""
        assert self._histories is not None
        quiet = self._histories.count == 1 and self._histories.predicted()[1] < 0.35 * self._cell()
        return REACH - 1 if quiet else REACH

    def _decisive(self, evidence: Evidence) -> bool:
        """Whether proved landmarks tell the candidates apart by themselves, so that the relief need not be asked."""
        if self._histories is None or self._histories.count > 1 or self._trust.real < PROVED or len(evidence.nats) < 2:
            return False
        second, best = np.partition(evidence.nats, -2)[-2:]
        return bool(best - second > DECISIVE_NATS)

    def _missing(self, evidence: Evidence) -> bool:
        """Whether landmarks that proved real before are found at none of the candidates."""
        expected = 0.5 * self._trust.share**2 * evidence.weight
        return self._trust.real > 0.5 and expected > EXPECTED_NATS and float(evidence.nats.max()) < MISSING_SHARE * expected

    def _learn(self, verdict: Verdict, evidence: Evidence, both: Evidence) -> None:
        chosen = int(np.argmin(np.abs(evidence.shift_yx - verdict.shift_yx).sum(axis=1)))
        if evidence.weight > 4:
            self._trust = self._trust.learned(float(evidence.share[chosen]), float(evidence.nats[chosen]))

    def _least_correlation(self) -> float:
        usual = median(self._good) if self._good else 0.0
        return max(POOR_SHARE * usual, LEAST_CORRELATION)

    def _fine(self, moment: _Moment) -> tuple[Fine | None, list[Pair]]:
        """Shift modulo a lattice vector, nearest to the prediction; without a lattice the peaks anywhere."""
        assert self._reference is not None and self._histories is not None and self._correlator is not None
        grid = self._correlator.correlation(self._reference.spectrum, moment.spectrum)
        predicted, _ = self._histories.predicted()
        shifts: list[Pair] = []
        if self._reference.periods is not None:
            start = self._correlator.highest_near(grid, (predicted[0], predicted[1]), 0.62 * self._reference.periods.longest)
        else:
            shifts = [p[0] for p in self._correlator.highest(grid, 12, 3.0)]
            start = shifts[0] if shifts else (float(predicted[0]), float(predicted[1]))
        return refine(self._reference.mean, moment.image, start), shifts

    def _evidence(self, moment: _Moment, fine: Fine, shifts: list[Pair], reach: int) -> Evidence:
        assert self._reference is not None
        periods = self._reference.periods
        query = Query(moment.image, self._trust, reach)
        if periods is not None:
            return lattice_evidence(self._reference.landmarks, query, fine.shift_yx, periods)
        return free_evidence(self._reference.landmarks, query, np.array([fine.shift_yx, *shifts[1:]]))

    def _settled(self, moment: _Moment, fine: Fine, verdict: Verdict) -> Fine:
        """Fine shift at the place chosen, which lattice vectors alone give only to their own error."""
        assert self._reference is not None and self._histories is not None
        if math.dist(fine.shift_yx, verdict.shift_yx) > 1e-6:
            again = refine(self._reference.mean, moment.image, (verdict.shift_yx[0], verdict.shift_yx[1]))
            if again is None or math.dist(again.shift_yx, verdict.shift_yx) > 0.4 * self._cell():
                return fine
            fine = again
        return fine

    def _unregistered(self, moment: _Moment, fine: Fine | None) -> DriftEstimate:
        assert self._correlator is not None
        self._poor += 1
        note = "frame does not correlate with the reference"
        flags = int(Flag.DRIFT_POOR) | self._clock_flag
        if self._pending is not None and self._agrees(moment):
            return self._restart(moment)
        self._pending = (moment.image, moment.spectrum)
        if self._poor > 2:
            flags |= int(Flag.DRIFT_LOST)
        return self._answer(moment.frame, flags, note, max(fine.correlation, 0.0) if fine else 0.0)

    def _agrees(self, moment: _Moment) -> bool:
        """Whether this frame fits the unregistered one before it, so that the specimen and not the frame is new."""
        assert self._pending is not None and self._correlator is not None
        grid = self._correlator.correlation(self._pending[1], moment.spectrum)
        peaks = self._correlator.highest(grid, 1, 3.0)
        fine = refine(self._pending[0], moment.image, peaks[0][0]) if peaks else None
        usual = median(self._good) if self._good else 0.2
        return fine is not None and fine.correlation > max(0.5 * usual, 2 * LEAST_CORRELATION)

    def _restart(self, moment: _Moment) -> DriftEstimate:
        """Take this frame as the new reference at the predicted total."""
        assert self._correlator is not None and self._histories is not None and self._reference is not None
        predicted, spread = self._histories.predicted()
        self._offset = self._histories.total_of(predicted)
        periods = self._reference.periods
        self._reference = Reference(self._correlator, moment.image, moment.spectrum)
        if self._reference.periods is None:
            self._reference.prefer(periods)
        self._begin_relief(moment)
        self._histories = self._new_histories(moment.frame, median(self._intervals) if self._intervals else 1.0)
        self._velocity.clear()
        self._good.clear()
        self._pending, self._poor, self._unsure = None, 0, 0
        self._gauge += spread**2
        total = self._offset * self._bin() - self._lag
        flags = int(Flag.DRIFT_LOST | Flag.DRIFT_POOR) | self._clock_flag
        note = "specimen moved out of the reference; total continues from the prediction"
        return self._answer(moment.frame, flags, note, 0.0, total=(float(total[0]), float(total[1])))

    # -- answers ------------------------------------------------------------------------------------------------------

    def _registered(self, moment: _Moment, fine: Fine, verdict: Verdict, sure: bool) -> DriftEstimate:
        assert self._reference is not None and self._histories is not None
        moved = np.array(fine.shift_yx) - verdict.shift_yx
        if np.hypot(*moved) < 0.4 * self._cell():
            self._histories.correct(np.array(fine.shift_yx))
        else:
            moved = np.zeros(2)
        sigma = self._sigma(fine)
        self._poor, self._pending = 0, None
        self._good.append(fine.correlation)
        flags, note = self._judge(verdict, sure)
        place = (float(verdict.shift_yx[0] + moved[0]), float(verdict.shift_yx[1] + moved[1]))
        self._after(moment, place, sure)
        seen = (verdict.step_yx + moved) * self._bin()
        late = self._scan_lag(moment.frame, seen)
        step = seen - late
        self._lag += late
        self._path += float(np.hypot(*seen))
        total = (verdict.total_yx + moved) * self._bin() - self._lag
        if verdict.jumped:
            self._velocity.clear()
        self._velocity.add(moment.frame.time_s, (total[0], total[1]), max(sigma), moment.frame.time_sigma_s)
        quality = min(1.0, max(0.0, verdict.probability * min(1.0, fine.correlation / median(self._good))))
        others = tuple((float(y), float(x)) for y, x in verdict.others_yx[:CANDIDATES_SHOWN] * self._bin())
        self._estimate = self._with_velocity(
            moment.frame,
            DriftEstimate(
                step_yx_px=(float(step[0]), float(step[1])),
                total_yx_px=(float(total[0]), float(total[1])),
                sigma_yx_px=sigma,
                quality=quality,
                candidates_yx_px=() if sure else others,
                flags=flags | self._clock_flag,
                note=note,
            ),
        )
        return self._estimate

    def _scan_lag(self, frame: Frame, step_yx_px: FloatArray) -> FloatArray:
        """Part of a seen step that is the specimen moving on until the scan reaches the row where it now is.

        A feature that moved down by dy is scanned dy line times later: it is seen at D + v t_line dy for a specimen that moved
        by D from mid-frame to mid-frame. Zero where the frame does not say its times.
        """
        assert self._histories is not None
        line_s = frame.meta.line_time_s
        if not math.isfinite(line_s):
            line_s = frame.meta.frame_time_s / frame.shape[0]
        if not math.isfinite(line_s):
            return np.zeros(2)
        speed = self._histories.velocity_yx * self._bin()
        speed = speed / (1 + float(speed[0]) * line_s)
        return np.asarray(speed * line_s * float(step_yx_px[0]), float)

    def _judge(self, verdict: Verdict, sure: bool) -> tuple[int, str]:
        flags, notes = 0, []
        if not sure:
            flags |= int(Flag.MODULO_LATTICE)
            notes.append("step is known only up to a lattice vector")
        elif self._unsure:
            notes.append(f"{self._unsure} unsure steps resolved")
        if verdict.jumped:
            flags |= int(Flag.DRIFT_JUMP)
            notes.append("jump")
        return flags, "; ".join(notes)

    def _after(self, moment: _Moment, place: Pair, sure: bool) -> None:
        """Keep the reference: a sure frame enters it, and it moves on before the specimen leaves it."""
        assert self._reference is not None and self._histories is not None
        share = overlap_share(moment.image.shape, place)
        if sure:
            self._unsure = 0
            self._histories.forget_rivals()
            self._reference.add(moment.image, place)
            if moment.relief is not None:
                self._relief.add(moment.relief, place)
            ahead = self._histories.velocity_yx * (median(self._intervals) if self._intervals else 0.0)
            move = min(share, overlap_share(moment.image.shape, (place[0] + ahead[0], place[1] + ahead[1]))) < LEAST_OVERLAP
        else:
            self._unsure += 1
            move = share < FORCED_OVERLAP
        if move:
            moved = self._reference.move(moment.image, place)
            self._histories.rebase(np.array(moved, float))
            self._move_relief(moment, moved)

    def _move_relief(self, moment: _Moment, moved: tuple[int, int]) -> None:
        if moment.relief is not None:
            self._relief.move(moment.relief, moved, self._histories.place_yx if self._histories is not None else np.zeros(2))

    def _sigma(self, fine: Fine) -> Pair:
        """Standard error of the total in pixels of the frame: this frame's and the reference's own."""
        assert self._reference is not None
        k = min(self._reference.frames, 16)
        if all(math.isfinite(v) for v in fine.variance_yx):
            self._variances.append((fine.variance_yx[0] / (1 + 1 / k), fine.variance_yx[1] / (1 + 1 / k)))
        if not self._variances:
            return (NAN, NAN)
        y, x = np.mean(self._variances, axis=0)
        moving = (PATH_ERROR * self._path) ** 2
        lag = LAG_ERROR * self._lag
        return (
            math.hypot(self._bin() * math.sqrt(2 * y + self._gauge + LEAST_VARIANCE), math.sqrt(moving), float(lag[0])),
            math.hypot(self._bin() * math.sqrt(2 * x + self._gauge + LEAST_VARIANCE), math.sqrt(moving), float(lag[1])),
        )

    def _answer(
        self, frame: Frame, flags: int, note: str, quality: float, extra: int = 0, total: Pair | None = None
    ) -> DriftEstimate:
        """Keep the last total: nothing was registered."""
        last = self._estimate
        self._estimate = self._with_velocity(
            frame,
            DriftEstimate(
                step_yx_px=LOST,
                total_yx_px=last.total_yx_px if total is None else total,
                sigma_yx_px=self._held_sigma(),
                quality=min(quality, 1.0),
                flags=int(flags) | extra,
                note=note,
            ),
        )
        return self._estimate

    def _held_sigma(self) -> Pair:
        if self._histories is None:
            return LOST
        predicted, spread = self._histories.predicted()
        away = predicted - self._histories.place_yx
        y, x = (self._bin() * math.hypot(spread, float(v), math.sqrt(self._gauge)) for v in away)
        return y, x

    def _with_velocity(self, frame: Frame, estimate: DriftEstimate) -> DriftEstimate:
        speed = self._velocity.get()
        pixel = frame.pixel_size_yx_nm
        return DriftEstimate(
            step_yx_px=estimate.step_yx_px,
            total_yx_px=estimate.total_yx_px,
            sigma_yx_px=estimate.sigma_yx_px,
            velocity_yx_px_s=speed.yx_px_s,
            velocity_yx_nm_min=(speed.yx_px_s[0] * pixel[0] * 60, speed.yx_px_s[1] * pixel[1] * 60),
            sigma_velocity_nm_min=speed.sigma_px_s * max(pixel) * 60,
            quality=estimate.quality,
            reference_sequence=self._first_sequence,
            segment=self._segment,
            candidates_yx_px=estimate.candidates_yx_px,
            flags=estimate.flags,
            note=estimate.note,
        )


def _outside(image: Image, evidence: Evidence) -> FloatArray:
    """Nats that rule out shifts at which image and reference share too little to have been measured."""
    share = np.prod(np.maximum(1 - np.abs(evidence.shift_yx) / np.array(image.shape), 0), axis=1)
    return np.where(share < LEAST_SHARED, RULED_OUT, 0.0)
