"""Drift of the specimen, frame after frame: what is sure is accumulated, what is not is said.

Each frame is registered against a rolling reference (fine shift, known modulo a lattice vector), every lattice candidate is
weighed by landmarks and by the motion so far, and the answer carries its candidates whenever they were not told apart.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from statistics import median

import numpy as np

from atomid_live.drift.budget import ErrorBudget, scan_lag
from atomid_live.drift.clock import FrameClock
from atomid_live.drift.forecast import Forecast
from atomid_live.drift.hypotheses import Histories, Verdict
from atomid_live.drift.judge import UsualEvidence, decisive, is_sure, learned, missing, outside, remarks
from atomid_live.drift.landmarks import Query, Trust
from atomid_live.drift.match import Moment, Seen, cell_px, find_fine, gather, periods_of, settle
from atomid_live.drift.overlap import Image
from atomid_live.drift.prepare import Preparer
from atomid_live.drift.reference import Reference
from atomid_live.drift.register import Correlator, Fine, Pair, Spectrum, overlap_share, refine
from atomid_live.drift.relief import Relief
from atomid_live.drift.velocity import VelocityFit
from atomid_live.flags import Flag
from atomid_live.settings import DriftSettings
from atomid_live.types import Detections, DriftEstimate, Frame, Lattice, Origin

NAN = math.nan
LOST: Pair = (NAN, NAN)
REACH = 3
WIDE_REACH = 9
LEAST_OVERLAP = 0.62
FORCED_OVERLAP = 0.4
POOR_SHARE = 0.35
LEAST_CORRELATION = 0.035
USUAL_VELOCITY_NM_S = 0.05
LEAST_SPEED_CELLS = 0.2
CANDIDATES_SHOWN = 6
FAINT_CORRELATION = 0.2
RELIEF_WITHOUT_CELL = 8.0


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
        self._clock = FrameClock()
        self._budget = ErrorBudget()
        self._velocity = VelocityFit(self._settings.history)
        self._forecast = Forecast(self._settings)
        self._good: deque[float] = deque(maxlen=9)
        self._pending: tuple[Image, Spectrum] | None = None
        self._trust = Trust()
        self._usual = UsualEvidence()
        self._relief = Relief(RELIEF_WITHOUT_CELL)
        self._unsure = 0
        self._poor = 0
        self._offset = np.zeros(2)
        self._estimate = DriftEstimate()

    def look(self, frame: Frame) -> Seen | None:
        """Prepare the pixels of the next frame ahead of `update`, from any one thread; None where it must begin anew."""
        if self._preparer is None or self._preparer.shape != frame.shape or self._preparer.too_small:
            return None
        prepared = self._preparer.prepare(frame.pixels)
        if prepared.empty or self._correlator is None:
            return None
        return Seen(frame, self._preparer, prepared, self._correlator.spectrum(prepared.image))

    def update(
        self, frame: Frame, detections: Detections, lattice: Lattice | None = None, seen: Seen | None = None
    ) -> DriftEstimate:
        """Register the next frame.

        Parameters
        ----------
        frame : Frame
            In sequence order; its times may repeat or run backwards.
        detections, lattice : Detections, Lattice or None
            Of this frame; both may be empty, the pixels suffice. They give the column width and sharper lattice vectors.
        seen : Seen or None
            What `look` made of this frame; the answer is the same without.

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
        interval = self._clock.tick(frame)
        if self._clock.flag:
            self._forget_motion()
        if seen is not None and (seen.frame is not frame or seen.preparer is not self._preparer):
            seen = None
        prepared = seen.prepared if seen is not None else self._preparer.prepare(frame.pixels)
        if prepared.empty:
            self._elapse(frame, interval)
            return self._answer(frame, Flag.DRIFT_POOR, "frame holds no contrast", 0.0, self._clock.flag)
        if self._correlator is None:
            self._correlator = Correlator(self._preparer.binned_shape)
        spectrum = seen.spectrum if seen is not None else self._correlator.spectrum(prepared.image)
        moment = Moment(frame, prepared.image, prepared.binned, spectrum)
        if self._reference is None:
            return self._start(moment, lattice)
        self._elapse(frame, interval)
        if self._reference.periods is None:
            # one frame may have been too faint; columns of a later one tell the lattice
            self._reference.prefer(periods_of(lattice, None, self._bin(), self._correlator.shape))
        return self._follow(moment)

    # -- time ---------------------------------------------------------------------------------------------------------

    def _elapse(self, frame: Frame, interval: float) -> None:
        if self._histories is None:
            return
        if self._clock.intervals == 1 and self._reference is not None and self._reference.frames == 1:
            self._histories = self._new_histories(frame, interval)
        if self._clock.intervals:
            self._histories.set_nominal(self._clock.usual_s)
        sigma = frame.time_sigma_s if math.isfinite(frame.time_sigma_s) else 0.0
        self._histories.elapse(interval, sigma)
        self._budget.elapse(interval)

    # -- beginning ----------------------------------------------------------------------------------------------------

    def _bin(self) -> int:
        assert self._preparer is not None
        return self._preparer.bin_px

    def _cell(self) -> float:
        assert self._reference is not None
        return cell_px(self._reference)

    def _new_histories(self, frame: Frame, interval: float) -> Histories:
        cell = self._cell()
        pixel_nm = frame.pixel_size_yx_nm[0] * self._bin()
        if math.isfinite(pixel_nm) and math.isfinite(frame.time_s) and self._clock.intervals:
            per_frame = min(max(USUAL_VELOCITY_NM_S / pixel_nm * interval, LEAST_SPEED_CELLS * cell), 1.2 * cell)
        else:
            per_frame = cell
        return Histories(cell, per_frame / interval, interval, self._offset)

    def _start(self, moment: Moment, lattice: Lattice | None) -> DriftEstimate:
        assert self._correlator is not None
        self._reference = Reference(self._correlator, moment.image, moment.spectrum)
        self._reference.prefer(periods_of(lattice, self._reference.periods, self._bin(), self._correlator.shape))
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
            flags=int(Flag.SEGMENT_START) | self._clock.flag,
        )
        return self._estimate

    def _begin_relief(self, moment: Moment) -> None:
        periods = self._reference.periods if self._reference is not None else None
        self._relief = Relief(periods.shortest if periods is not None else RELIEF_WITHOUT_CELL)
        self._relief.begin(self._relief.of(moment.binned))

    # -- following ----------------------------------------------------------------------------------------------------

    def _follow(self, moment: Moment) -> DriftEstimate:
        assert self._reference is not None and self._histories is not None
        assert self._correlator is not None
        predicted, _ = self._histories.predicted()
        fine, shifts = find_fine(self._correlator, self._reference, moment, predicted)
        if fine is None or fine.correlation < self._least_correlation():
            return self._unregistered(moment, fine)
        noise = 0.02**2 + max(np.nanmax(fine.variance_yx), 0.0)
        moment.relief = self._relief.of(moment.binned)
        weighed, evidence, lacking = None, None, False
        for reach in (self._reach(), WIDE_REACH):
            query = Query(moment.image, self._trust, reach)
            evidence = self._histories.covering(gather(self._reference, query, fine, shifts), self._reference.periods)
            both = evidence.plus(outside(moment.image, evidence))
            if self._histories.count > 1 or not decisive(evidence, self._trust):
                both = both.plus(self._relief.nats(moment.relief, evidence.shift_yx))
            weighed = self._histories.weigh(both, noise, self._trust.real)
            lacking = self._usual.lacks(weighed.best_nats)
            if self._reference.periods is None or not (missing(evidence, self._trust) or lacking):
                break
        assert weighed is not None and evidence is not None
        verdict = self._histories.adopt(weighed)
        # a lattice too faint to be recognised as one looks like a texture with many peaks of like height
        guessed = self._reference.periods is None and fine.correlation < FAINT_CORRELATION
        sure = is_sure(verdict, evidence, self._trust) and not (guessed or lacking)
        self._usual.learn(weighed.best_nats, sure)
        if sure:
            self._trust = learned(self._trust, verdict, evidence)
        fine = settle(self._reference, moment.image, fine, verdict.shift_yx)
        return self._registered(moment, fine, verdict, sure)

    def _reach(self) -> int:
        """Lattice vectors looked at each way: few while the motion is well known."""
        assert self._histories is not None
        quiet = self._histories.count == 1 and self._histories.predicted()[1] < 0.35 * self._cell()
        return REACH - 1 if quiet else REACH

    def _least_correlation(self) -> float:
        usual = median(self._good) if self._good else 0.0
        return max(POOR_SHARE * usual, LEAST_CORRELATION)

    def _unregistered(self, moment: Moment, fine: Fine | None) -> DriftEstimate:
        assert self._correlator is not None
        self._poor += 1
        note = "frame does not correlate with the reference"
        flags = int(Flag.DRIFT_POOR) | self._clock.flag
        if self._pending is not None and self._agrees(moment):
            return self._restart(moment)
        self._pending = (moment.image, moment.spectrum)
        if self._poor > 2:
            flags |= int(Flag.DRIFT_LOST)
        return self._answer(moment.frame, flags, note, max(fine.correlation, 0.0) if fine else 0.0)

    def _agrees(self, moment: Moment) -> bool:
        """Whether this frame fits the unregistered one before it, so that the specimen and not the frame is new."""
        assert self._pending is not None and self._correlator is not None
        grid = self._correlator.correlation(self._pending[1], moment.spectrum)
        peaks = self._correlator.highest(grid, 1, 3.0)
        fine = refine(self._pending[0], moment.image, peaks[0][0]) if peaks else None
        usual = median(self._good) if self._good else 0.2
        return fine is not None and fine.correlation > max(0.5 * usual, 2 * LEAST_CORRELATION)

    def _restart(self, moment: Moment) -> DriftEstimate:
        """Take this frame as the new reference at the predicted total."""
        assert self._correlator is not None and self._histories is not None and self._reference is not None
        predicted, spread = self._histories.predicted()
        self._offset = self._histories.total_of(predicted)
        periods = self._reference.periods
        self._reference = Reference(self._correlator, moment.image, moment.spectrum)
        if self._reference.periods is None:
            self._reference.prefer(periods)
        self._begin_relief(moment)
        self._histories = self._new_histories(moment.frame, self._clock.usual_s)
        self._forget_motion()
        self._good.clear()
        self._pending, self._poor, self._unsure = None, 0, 0
        self._budget.gauge += spread**2
        total = self._offset * self._bin() - self._budget.lag_yx_px
        flags = int(Flag.DRIFT_LOST | Flag.DRIFT_POOR) | self._clock.flag
        note = "specimen moved out of the reference; total continues from the prediction"
        return self._answer(moment.frame, flags, note, 0.0, total=(float(total[0]), float(total[1])))

    def _forget_motion(self) -> None:
        self._velocity.clear()
        self._forecast.clear()

    # -- answers ------------------------------------------------------------------------------------------------------

    def _registered(self, moment: Moment, fine: Fine, verdict: Verdict, sure: bool) -> DriftEstimate:
        assert self._reference is not None and self._histories is not None
        moved = np.array(fine.shift_yx) - verdict.shift_yx
        if np.hypot(*moved) < 0.4 * self._cell():
            self._histories.correct(np.array(fine.shift_yx))
        else:
            moved = np.zeros(2)
        sigma = self._budget.sigma(fine, self._reference.frames, self._bin())
        self._poor, self._pending = 0, None
        self._good.append(fine.correlation)
        flags, note = remarks(verdict, sure, self._unsure)
        place = (float(verdict.shift_yx[0] + moved[0]), float(verdict.shift_yx[1] + moved[1]))
        velocity = self._histories.velocity_yx * self._bin()
        seen, seen_step = (verdict.total_yx + moved) * self._bin(), (verdict.step_yx + moved) * self._bin()
        step = seen_step - scan_lag(moment.frame, velocity, seen_step)
        turn = np.nan_to_num(np.array(fine.trend_yx)) / max(moment.image.shape[0] - abs(place[0]), 1.0)
        self._budget.stepped(seen_step, sure and not verdict.jumped)
        self._budget.moved(moment.frame, seen, turn, velocity)
        if self._after(moment, place, sure):
            self._budget.rebased(seen)
        total = seen - self._budget.lag_yx_px
        if verdict.jumped:
            self._forget_motion()
        if sure:
            self._forecast.add(moment.frame.time_s, (total[0], total[1]), max(sigma))
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
                flags=flags | self._clock.flag,
                note=note,
            ),
        )
        return self._estimate

    def _after(self, moment: Moment, place: Pair, sure: bool) -> bool:
        """Keep the reference: a sure frame enters it, and it moves on before the specimen leaves it; tells whether it did."""
        assert self._reference is not None and self._histories is not None
        share = overlap_share(moment.image.shape, place)
        if sure:
            self._unsure = 0
            self._histories.forget_rivals()
            self._reference.add(moment.image, place)
            if moment.relief is not None:
                self._relief.add(moment.relief, place)
            ahead = self._histories.velocity_yx * (self._clock.usual_s if self._clock.intervals else 0.0)
            move = min(share, overlap_share(moment.image.shape, (place[0] + ahead[0], place[1] + ahead[1]))) < LEAST_OVERLAP
        else:
            self._unsure += 1
            move = share < FORCED_OVERLAP
        if move:
            moved = self._reference.move(moment.image, place)
            self._histories.rebase(np.array(moved, float))
            self._move_relief(moment, moved)
        return move

    def _move_relief(self, moment: Moment, moved: tuple[int, int]) -> None:
        if moment.relief is not None:
            self._relief.move(moment.relief, moved, self._histories.place_yx if self._histories is not None else np.zeros(2))

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
        y, x = (self._bin() * math.hypot(spread, float(v), math.sqrt(self._budget.gauge)) for v in away)
        return y, x

    def _with_velocity(self, frame: Frame, estimate: DriftEstimate) -> DriftEstimate:
        speed = self._velocity.get()
        pixel = frame.pixel_size_yx_nm
        outlook = self._forecast.get(frame.shape, pixel, speed)
        return replace(
            estimate,
            settled_nm_min=self._settings.settled_nm_min,
            settling_s=outlook.settling_s,
            sigma_settling_s=outlook.sigma_settling_s,
            leaving_s=outlook.leaving_s,
            sigma_leaving_s=outlook.sigma_leaving_s,
            velocity_yx_px_s=speed.yx_px_s,
            velocity_yx_nm_min=(speed.yx_px_s[0] * pixel[0] * 60, speed.yx_px_s[1] * pixel[1] * 60),
            sigma_velocity_nm_min=speed.sigma_px_s * max(pixel) * 60,
            reference_sequence=self._first_sequence,
            segment=self._segment,
        )
