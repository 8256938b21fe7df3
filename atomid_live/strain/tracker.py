"""Strain of frame after frame against one named reference, with a verdict on each; every grain has a reference of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from atomid_live.flags import Flag
from atomid_live.lattice.sites import missing_sites
from atomid_live.settings import StrainSettings
from atomid_live.strain.agreement import Comparison, compare
from atomid_live.strain.correct import (
    Correction,
    ReferenceKind,
    RowShare,
    ScanEffects,
    corrected_strain,
    corrected_summaries,
    drift_explains,
    mean_errors,
    with_row_errors,
)
from atomid_live.strain.field import Columns, strain_of
from atomid_live.strain.grain import GrainMemory, GrainStrain, columns_of, same_lattice
from atomid_live.strain.means import carried, summaries_of
from atomid_live.strain.monitor import AlarmRule, Sample
from atomid_live.strain.reference import FirstFrames, KnownCell, parse_box, parse_reference
from atomid_live.strain.scan import aspect_of, drift_strain
from atomid_live.strain.whole import Whole, column_mean_sem
from atomid_live.strain.window import Window, window_for
from atomid_live.types import (
    COMPONENTS,
    NAN,
    CorrectedStrain,
    Detections,
    DriftEstimate,
    FloatArray,
    Frame,
    GpaField,
    GrainReading,
    Jitter,
    Lattice,
    Reading,
    StrainField,
    Summary,
)

LEAST_COLUMNS = 30
LEAST_COVERED = 0.3
GPA_SIGMAS = 5.0
GPA_FLOOR = 1e-3
SAME_GRAIN = 0.2
MOST_GRAINS = 12


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One grain of a frame: its lattice, its columns, what is remembered of it, and its strain or why there is none."""

    lattice: Lattice
    columns: Columns
    memory: GrainMemory
    outcome: GrainStrain | str
    main: bool

    @property
    def size(self) -> int:
        """Columns on its lattice."""
        return int((self.lattice.site >= 0).sum())


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What belongs to one frame and is handed on."""

    frame: Frame
    detections: Detections
    window: Window
    gpa: GpaField


class StrainTracker:
    """Measures each frame against the reference of the settings and watches the series.

    Parameters
    ----------
    settings : StrainSettings
        Reference, window, alarm.

    Raises
    ------
    SettingsError
        The reference or the region to watch cannot be understood.
    """

    def __init__(self, settings: StrainSettings) -> None:
        self._settings = settings
        self._spec = parse_reference(settings.reference)
        self._rule = AlarmRule(settings.alarm_sigma, settings.alarm_frames)
        self._box = None if settings.watch_region is None else parse_box(settings.watch_region, "strain.watch_region")
        self.reset("start")

    def reset(self, reason: str) -> None:
        """Forget reference and history: a new segment begins for `reason`."""
        self.reset_reason = reason
        self._grains = [self._memory(0)]
        first, known = isinstance(self._spec, FirstFrames), isinstance(self._spec, KnownCell)
        kind: ReferenceKind = "cell" if known else "frames" if first else "own"
        self._scan = ScanEffects(kind)

    def _memory(self, number: int) -> GrainMemory:
        words = [f"grain {number}"] if number else []
        return GrainMemory(self._spec, self._rule, number, " ".join([*words, "region"] if self._box else words))

    def update(
        self, frame: Frame, detections: Detections, lattice: Lattice, drift: DriftEstimate, gpa: GpaField | None = None
    ) -> tuple[StrainField, Reading]:
        """Measure one frame; frames must come in order of `sequence`.

        Returns
        -------
        StrainField, Reading
            `valid` and `reason` say whether the numbers may be believed. A valid frame may still have a remark as its reason.
        """
        motion = self._scan.see(frame, drift)
        apparent = drift_strain(motion, aspect_of(frame))
        window = window_for(frame, lattice, self._settings.window_nm)
        seen = _Seen(frame, detections, window, gpa or GpaField())
        parts = self._parts(seen, lattice, drift) if lattice.found else []
        vacancies, jitter = -1, Jitter(reason=lattice.reason or "no lattice")
        if parts:
            jitter = self._scan.see_rows(parts[0].columns, window.aspect_yx, frame.shape)
            tables = ((part.lattice, part.columns.table) for part in parts)
            spacing = detections.spacing_px
            vacancies = sum(len(missing_sites(detections.yx_px, own, frame.shape, spacing, table)) for own, table in tables)
        reading = Reading(
            drift_shear_exy=apparent.shear_exy,
            drift_stretch_eyy=apparent.stretch_eyy,
            motion=motion,
            jitter=jitter,
            vacancies=vacancies,
            reference=self._spec.name,
            window_nm=window.nm,
            flags=lattice.flags | (0 if np.isfinite(window.nm) else int(Flag.UNCALIBRATED)),
        )
        if not parts:
            return self._refused(lattice.reason or "no lattice", seen, reading, [])
        head = next((p for p in parts if p.memory.number == 0 and p.size >= LEAST_COLUMNS), parts[0])
        if isinstance(head.outcome, str):
            pending = head.outcome.startswith("reference pending")
            reading = replace(reading, flags=reading.flags | (int(Flag.REFERENCE_PENDING) if pending else 0))
            return self._refused(head.outcome, seen, reading, parts)
        return self._judged(seen, lattice, head, parts, reading)

    def _parts(self, seen: _Seen, lattice: Lattice, drift: DriftEstimate) -> list[_Part]:
        poor = (seen.detections.flags & (Flag.EDGE | Flag.FIT_FAILED)) != 0
        total = np.array(drift.total_yx_px) * np.array(seen.window.aspect_yx)
        free, parts = list(self._grains), list[_Part]()
        for own in (lattice, *lattice.others):
            columns = columns_of(seen.detections, own, seen.window, poor)
            memory = self._remembered(columns, np.nan_to_num(total), free, seen.frame.shape)
            if memory is None:
                continue
            outcome: GrainStrain | str
            if memory.pending:
                gpa = seen.gpa if own is lattice else None
                outcome = memory.collect(columns, total, gpa)
                if own is lattice and "left out" not in outcome:
                    self._scan.enter_reference()
                if memory.complete:
                    memory.monitor.start(_reference_samples(memory))
            else:
                outcome = memory.measure(columns, total, seen.window)
            parts.append(_Part(own, columns, memory, outcome, own is lattice))
        return parts

    def _remembered(
        self, columns: Columns, total: FloatArray, free: list[GrainMemory], shape: tuple[int, int]
    ) -> GrainMemory | None:
        """Which grain of the segment this is: the same lattice, and the nearest; a new one gets a number. None past twelve."""
        indexed = columns.site >= 0
        centre = columns.yx[indexed].mean(axis=0) - total
        best, least = None, np.inf
        for memory in free:
            if memory.place is None:
                cost = 1.0
            elif same_lattice(columns.fit, memory.place[0], SAME_GRAIN):
                cost = float(np.hypot(*(centre - memory.place[1]))) / max(shape)
            else:
                continue
            if cost < least:
                best, least = memory, cost
        if best is None and len(self._grains) == 1 and len(free) == 1:
            # a single lattice that no longer fits its reference: the reference says so
            best = free[0]
        if best is None:
            if len(self._grains) >= MOST_GRAINS:
                return None
            best = self._memory(len(self._grains))
            self._grains.append(best)
        else:
            free.remove(best)
        if best.place is None or same_lattice(columns.fit, best.place[0], SAME_GRAIN):
            best.place = (columns.fit.matrix, centre)
        return best

    def _refused(self, reason: str, seen: _Seen, reading: Reading, parts: list[_Part]) -> tuple[StrainField, Reading]:
        field = StrainField.none_for(len(seen.detections), reason, self._spec.name)
        field = replace(field, window_nm=seen.window.nm, window_px=seen.window.px)
        pending = reading.flags & Flag.REFERENCE_PENDING
        flags = reading.flags | (0 if pending else int(Flag.STRAIN_INVALID))
        return field, self._watched(replace(reading, reason=reason, flags=flags, correction=f"not corrected: {reason}"), parts)

    def _judged(
        self, seen: _Seen, lattice: Lattice, head: _Part, parts: list[_Part], reading: Reading
    ) -> tuple[StrainField, Reading]:
        assert not isinstance(head.outcome, str)
        valid, reason = _verdict(head.lattice, lattice, np.isfinite(head.outcome.sigma), seen.window)
        reason = reason or head.outcome.remark
        correction = self._scan.correction(seen.frame, head.lattice, head.outcome.to_reference)
        field, gradient = _merged(parts, seen, (self._spec.name, valid, reason))
        reference = head.outcome.reference
        shaped = head.columns if reference is None else replace(head.columns, fit=reference.fit)
        share = self._scan.share(shaped, seen.window, head.outcome.whole.share, head.outcome.position_sigma_px)
        corrected = corrected_strain(gradient, correction, self._scan.kind, head.outcome.to_reference)
        field = replace(with_row_errors(field, share), corrected=corrected)
        raw, freed = self._means(head, head.outcome.whole, correction, share)
        strain = _with_spread(raw, field, head.lattice.site >= 0)
        freed = _with_spread(freed, corrected, head.lattice.site >= 0) if freed else freed
        reading, field = self._beside_gpa(seen, head, share, reading, field)
        for part in parts:
            if isinstance(part.outcome, str) or self._scan.beginning or not (valid or part is not head):
                continue
            watched = self._means(part, self._watched_whole(part, seen), correction, share)
            part.memory.monitor.update(self._samples(seen.frame, *watched))
        explained = valid and not self._scan.beginning and drift_explains(strain, freed, self._settings.alarm_sigma)
        flags = reading.flags | (0 if valid else int(Flag.STRAIN_INVALID)) | (int(Flag.DRIFT_EXPLAINS) if explained else 0)
        reading = replace(
            reading,
            strain=strain,
            strain_corrected=freed,
            correction=correction.text,
            motion=self._scan.motion,
            valid=valid,
            reason=reason,
            flags=flags,
        )
        return field, self._watched(reading, [head, *(p for p in parts if p is not head)])

    def _means(
        self, part: _Part, whole: Whole, correction: Correction, share: RowShare
    ) -> tuple[dict[str, Summary], dict[str, Summary]]:
        """Means as seen and corrected, of the fit of all columns."""
        assert not isinstance(part.outcome, str)
        errors = mean_errors(whole.sem, share)
        told = _components(whole.gradient[None])[:, 0]
        strain = {name: Summary(float(m), NAN, e) for name, m, e in zip(COMPONENTS, told, errors, strict=True)}
        once = corrected_strain(whole.gradient[None], correction, self._scan.kind, part.outcome.to_reference)
        return strain, corrected_summaries(once, errors)

    def _beside_gpa(
        self, seen: _Seen, head: _Part, share: RowShare, reading: Reading, field: StrainField
    ) -> tuple[Reading, StrainField]:
        """Add what GPA says of the grain it was made for, and how far it agrees."""
        assert not isinstance(head.outcome, str)
        if not head.main:
            return reading, field
        right = head.outcome.to_reference @ np.linalg.inv(head.memory.gpa_at_reference())
        own = head.lattice.site >= 0
        exx, eyy, exy = (np.where(own, each, np.nan) for each in (field.exx, field.eyy, field.exy))
        both = compare(seen.detections.yx_px, (exx, eyy, exy), seen.gpa, right, _some_median(head.outcome.sigma))
        phase = _gpa_summaries(seen.gpa, right, head.outcome, seen.window, share)
        flags = reading.flags
        flags |= int(Flag.GPA_DISAGREES) if phase and _disagree(both, head.outcome.column_sem, phase) else 0
        if both.patchy:
            flags |= int(Flag.GPA_ARTEFACT)
            field = replace(field, flags=field.flags | np.where(both.apart, int(Flag.GPA_ARTEFACT), 0))
        return replace(reading, gpa=phase, agreement=both.agreement, flags=flags), field

    def _samples(self, frame: Frame, raw: dict[str, Summary], corrected: dict[str, Summary]) -> dict[str, Sample]:
        """Samples for the monitor: the strain that the settings want watched."""
        watched = raw if self._settings.watched == "raw" else self._scan.watched(raw, corrected)
        return {n: Sample(frame.time_s, each.mean, each.sem) for n, each in watched.items() if np.isfinite(each.mean)}

    def _watched_whole(self, part: _Part, seen: _Seen) -> Whole:
        """What the alarm looks at: the grain, or its part inside the watched region."""
        assert not isinstance(part.outcome, str)
        if self._box is None:
            return part.outcome.whole
        return part.outcome.part(self._box.holds(seen.detections.yx_px))

    def _watched(self, reading: Reading, parts: list[_Part]) -> Reading:
        """Add the state of the monitors; an invalid frame leaves them as they were."""
        head = parts[0].memory if parts else self._grains[0]
        trends = head.monitor.trends()
        loud = [memory.monitor.alarm for memory in (head, *(m for m in self._grains if m is not head))]
        grains = tuple(_grain_reading(part) for part in parts) if len(parts) > 1 else ()
        return replace(
            reading,
            rolling_mean={name: t.mean for name, t in trends.items()},
            rolling_sem={name: t.sem for name, t in trends.items()},
            rolling_std={name: t.std for name, t in trends.items()},
            slope_per_min={name: t.slope_per_min for name, t in trends.items()},
            slope_sem_per_min={name: t.slope_sem_per_min for name, t in trends.items()},
            alarm="; ".join(words for words in loud if words),
            grains=grains,
        )


def _merged(parts: list[_Part], seen: _Seen, verdict: tuple[str, bool, str]) -> tuple[StrainField, FloatArray]:
    """All grains' columns in one field, and their gradients (N, 2, 2)."""
    count = len(seen.detections)
    gradient, sigma, d2min = np.full((count, 2, 2), np.nan), np.full(count, np.nan), np.full(count, np.nan)
    grain = np.full(count, -1, np.int64)
    for part in parts:
        own = part.lattice.site >= 0
        grain[own] = part.memory.number
        if isinstance(part.outcome, str):
            continue
        if len(parts) == 1:
            gradient, sigma, d2min = part.outcome.gradient, part.outcome.sigma, part.outcome.d2min
        else:
            gradient[own], sigma[own], d2min[own] = (
                part.outcome.gradient[own], part.outcome.sigma[own], part.outcome.d2min[own],
            )  # fmt: skip
    exx, eyy, exy, rotation = strain_of(gradient)
    sigma = np.where(np.isfinite(exx), sigma, np.nan)
    flags = np.where(np.isfinite(sigma), 0, int(Flag.FEW_NEIGHBOURS)) | np.where(grain < 0, int(Flag.NOT_INDEXED), 0)
    name, valid, reason = verdict
    field = StrainField(
        exx, eyy, exy, 1000 * rotation, sigma, flags.astype(np.int64), name, seen.window.nm, seen.window.px, valid, reason,
        d2min_px2=d2min, grain=grain,
    )  # fmt: skip
    return field, gradient


def _some_median(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else 0.0


def _components(gradient: FloatArray) -> FloatArray:
    """Components (5, N) of gradients (N, 2, 2), in the order of `COMPONENTS`."""
    exx, eyy, exy, rotation = strain_of(gradient)
    return np.stack([exx, eyy, exy, 1000 * rotation, (exx + eyy) / 2])


def _summaries(tensors: FloatArray, gradient: FloatArray, errors: tuple[float, ...]) -> dict[str, Summary]:
    """Mean from a gradient, with its errors, and spread from the components (5, N) of single columns."""
    values = tensors[:, np.isfinite(tensors[0])]
    if not values.shape[1]:
        return {name: Summary() for name in COMPONENTS}
    spread, mean = summaries_of(values, errors), _components(gradient[None])[:, 0]
    return {name: replace(spread[name], mean=float(m)) for name, m in zip(COMPONENTS, mean, strict=True)}


def _with_spread(means: dict[str, Summary], field: StrainField | CorrectedStrain, own: np.ndarray) -> dict[str, Summary]:
    """Add the spread of the columns that are a grain's `own`."""
    known = own & np.isfinite(field.exx)
    return {
        name: replace(each, std=float(getattr(field, name)[known].std()) if known.any() else NAN)
        for name, each in means.items()
    }


def _grain_reading(part: _Part) -> GrainReading:
    if isinstance(part.outcome, str):
        return GrainReading(part.memory.number, part.size, {}, part.outcome, part.memory.monitor.alarm)
    errors = mean_errors(part.outcome.whole.sem, RowShare())
    told = _summaries(_components(part.outcome.gradient), part.outcome.whole.gradient, errors)
    return GrainReading(part.memory.number, part.size, told, part.outcome.remark, part.memory.monitor.alarm)


def _reference_samples(memory: GrainMemory) -> dict[str, list[Sample]]:
    """What the reference's frames read against their mean, for the monitor to know how frames scatter."""
    rows = memory.reference_gradients()
    values = _components(np.stack(rows)) if rows else np.empty((len(COMPONENTS), 0))
    return {
        name: [Sample(float(k), float(v), 0.0) for k, v in enumerate(each)]
        for name, each in zip(COMPONENTS, values, strict=True)
    }


def _gpa_summaries(
    gpa: GpaField, right: FloatArray, strain: GrainStrain, window: Window, share: RowShare
) -> dict[str, Summary]:
    """GPA against the same reference; against first frames it starts from what it read on those."""
    values = carried(gpa, right)
    if not values.shape[1] or not np.isfinite(values[:, 0]).all():
        return {}
    rows, cols = np.nonzero(np.isfinite(gpa.exx))
    step = gpa.step_px * float(np.sqrt(np.prod(window.aspect_yx)))
    sides = (float(np.ptp(rows) + 1) * step, float(np.ptp(cols) + 1) * step)
    fit = strain.columns.fit
    density = len(fit.origin_yx_px) / fit.area_px2
    sem = column_mean_sem(strain.position_sigma_px, density, window.px, sides)
    return summaries_of(values, mean_errors(sem, share))


def _verdict(own: Lattice, lattice: Lattice, measured: np.ndarray, window: Window) -> tuple[bool, str]:
    """Whether a frame's strain may be believed, in the words of someone at the microscope."""
    size = f"{window.nm:g} nm" if np.isfinite(window.nm) else f"{window.px:.0f} px"
    if lattice.flags & Flag.SEVERAL_LATTICES and not lattice.others:
        return False, lattice.reason
    indexed = own.site >= 0
    if measured.sum() < LEAST_COLUMNS or measured[indexed].mean() < LEAST_COVERED:
        cell = float(np.hypot(*own.b_yx_px))
        if indexed.sum() >= 2 * LEAST_COLUMNS and window.px < 0.8 * cell:
            return (
                False,
                f"a window of {size} holds too few columns of this lattice (cell {cell:.0f} px); widen strain.window_nm",
            )
        return False, f"only {int(measured.sum())} columns have enough neighbours for a strain (at least {LEAST_COLUMNS})"
    return True, lattice.reason


def _disagree(both: Comparison, sem: tuple[float, float, float], phase: dict[str, Summary]) -> bool:
    """Whether the means of both methods differ by more than five joint errors and by more than 0.1 %."""
    for name, ours, theirs, own in zip(("exx", "eyy", "exy"), both.columns, both.gpa, sem, strict=True):
        joint = float(np.hypot(own, phase[name].sem))
        if abs(theirs - ours) > max(GPA_SIGMAS * joint, GPA_FLOOR):
            return True
    return False
