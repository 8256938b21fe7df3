"""Strain of frame after frame against one named reference, with a verdict on each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field

import numpy as np

from atomid_live.flags import Flag
from atomid_live.lattice.sites import fit_lattice, missing_sites, node_table
from atomid_live.settings import StrainSettings
from atomid_live.strain.correct import (
    ReferenceKind,
    RowShare,
    ScanEffects,
    corrected_strain,
    corrected_summaries,
    drift_explains,
    mean_errors,
    with_row_errors,
)
from atomid_live.strain.field import Columns, Deformation, Reference, class_weights, measure_deformation, strain_of
from atomid_live.strain.means import carried, mean_gradient, summaries_of
from atomid_live.strain.monitor import Monitor, Sample
from atomid_live.strain.nodes import NodeAverage
from atomid_live.strain.reference import FirstFrames, KnownCell, known_basis, parse_reference
from atomid_live.strain.scan import aspect_of, drift_strain
from atomid_live.strain.window import Window, window_for
from atomid_live.types import (
    COMPONENTS,
    NAN,
    Detections,
    DriftEstimate,
    FloatArray,
    Frame,
    GpaField,
    Jitter,
    Lattice,
    Reading,
    StrainField,
    Summary,
)

LEAST_COLUMNS = 30
LEAST_COVERED = 0.3
UNKNOWN_SHARE = 0.02
GPA_SIGMAS = 5.0
GPA_FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Deformation gradients against the reference with their errors, what carries the frame's own lattice to it, a remark."""

    gradient: FloatArray
    sigma: FloatArray
    sem: tuple[float, float, float]
    to_reference: FloatArray
    remark: str = ""
    mean_share: FloatArray = dataclass_field(default_factory=lambda: np.empty(0), repr=False)
    position_sigma_px: float = NAN
    share: RowShare = dataclass_field(default_factory=RowShare)


class StrainTracker:
    """Measures each frame against the reference of the settings and watches the series.

    Parameters
    ----------
    settings : StrainSettings
        Reference, window, alarm.

    Raises
    ------
    SettingsError
        The reference cannot be understood.
    """

    def __init__(self, settings: StrainSettings) -> None:
        self._settings = settings
        self._spec = parse_reference(settings.reference)
        self.reset("start")

    def reset(self, reason: str) -> None:
        """Forget reference and history: a new segment begins for `reason`."""
        self.reset_reason = reason
        self._nodes = NodeAverage(self._spec.count) if isinstance(self._spec, FirstFrames) else None
        self._monitor = Monitor(self._settings.alarm_sigma, absolute=self._nodes is not None)
        kind: ReferenceKind = "cell" if isinstance(self._spec, KnownCell) else "frames" if self._nodes is not None else "own"
        self._scan = ScanEffects(kind)
        self._reference_gpa: list[FloatArray] = []

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
        jitter = Jitter(reason=lattice.reason or "no lattice")
        window = window_for(frame, lattice, self._settings.window_nm)
        gpa = gpa or GpaField()
        vacancies = -1
        outcome: _Outcome | str
        flags = 0
        if not lattice.found:
            outcome = lattice.reason or "no lattice"
        else:
            columns = _columns(detections, lattice, window)
            jitter = self._scan.see_rows(columns, window.aspect_yx, frame.shape)
            missing = missing_sites(detections.yx_px, lattice, frame.shape, detections.spacing_px, columns.table)
            vacancies = len(missing)
            total = np.array(drift.total_yx_px) * np.array(window.aspect_yx)
            if self._nodes is not None and not self._nodes.ready:
                outcome = self._collect(columns, total, gpa)
                flags = int(Flag.REFERENCE_PENDING)
            else:
                outcome = self._measure(columns, total, window)
        reading = Reading(
            drift_shear_exy=apparent.shear_exy,
            drift_stretch_eyy=apparent.stretch_eyy,
            motion=motion,
            jitter=jitter,
            vacancies=vacancies,
            reference=self._spec.name,
            window_nm=window.nm,
            flags=flags | lattice.flags | (0 if np.isfinite(window.nm) else int(Flag.UNCALIBRATED)),
        )
        if isinstance(outcome, str):
            return self._refused(outcome, len(detections), replace(reading, correction=f"not corrected: {outcome}"), window)
        share = self._scan.share(columns, window, outcome.mean_share, outcome.position_sigma_px)
        return self._judged(frame, detections.yx_px, lattice, replace(outcome, share=share), gpa, reading, window)

    def _collect(self, columns: Columns, total: FloatArray, gpa: GpaField) -> str:
        assert self._nodes is not None
        problem = self._nodes.add(columns, total)
        if not problem:
            self._scan.enter_reference()
            self._reference_gpa.append(self._gpa_basis(columns, self._nodes.find(columns, total), gpa))
        done = f"reference pending: {self._nodes.frames} of {self._nodes.count} frames collected"
        return f"{done}; this one was left out ({problem})" if problem else done

    def _gpa_basis(self, columns: Columns, found: Reference | str, gpa: GpaField) -> FloatArray:
        """Basis that GPA sees in a reference frame, in the reference's choice of vectors; NaN when there is none."""
        assert self._nodes is not None and self._nodes.fit is not None
        if isinstance(found, str):
            return np.full((2, 2), NAN)
        change = np.linalg.solve(self._nodes.fit.matrix, found.fit.matrix)
        return mean_gradient(gpa) @ _flip(columns.fit.matrix @ np.linalg.inv(change))

    def _gpa_at_reference(self) -> FloatArray:
        """Mean deformation gradient that GPA read on the reference frames against their mean lattice."""
        if self._nodes is None or self._nodes.fit is None or not np.isfinite(self._reference_gpa).all():
            return np.eye(2)
        return np.asarray(np.mean(self._reference_gpa, axis=0) @ np.linalg.inv(_flip(self._nodes.fit.matrix)))

    def _measure(self, columns: Columns, total: FloatArray, window: Window) -> _Outcome | str:
        if self._nodes is not None:
            return self._against_nodes(columns, total, window)
        own = measure_deformation(columns, window.px)
        to_reference = np.eye(2)
        if isinstance(self._spec, KnownCell):
            if not np.isfinite(window.pixel_nm):
                return f"reference {self._spec.name} needs a pixel size and this frame has none; give --pixel-size-nm"
            measured = _flip_rows(columns.fit.matrix) * window.pixel_nm
            basis = known_basis(self._spec.cells, measured)
            if basis is None:
                return _misfit(self._spec, measured)
            to_reference = measured @ np.linalg.inv(basis)
        return _Outcome(
            own.gradient @ to_reference, own.sigma, own.sem, to_reference, "", own.mean_share, own.position_sigma_px
        )

    def _against_nodes(self, columns: Columns, total: FloatArray, window: Window) -> _Outcome | str:
        assert self._nodes is not None
        reference = self._nodes.find(columns, total)
        if isinstance(reference, str):
            return reference
        to_reference = _flip(columns.fit.matrix @ np.linalg.inv(reference.fit.matrix))
        weights = class_weights(columns)
        known = measure_deformation(columns, window.px, reference, weights=weights)
        indexed = columns.site >= 0
        lacking = indexed & ~known.valid
        share = float(lacking.sum() / max(indexed.sum(), 1))
        if share <= UNKNOWN_SHARE:
            return _Outcome(known.gradient, known.sigma, known.sem, to_reference, "", known.mean_share, known.position_sigma_px)
        fit = reference.fit
        straight = fit.origin_yx_px[np.maximum(columns.site, 0)] + columns.cell @ fit.matrix.T
        rest = measure_deformation(
            columns, window.px, Reference(fit, straight), only=lacking, with_sem=share > 0.5, weights=weights
        )
        return _joined(known, rest, lacking, to_reference)

    def _refused(self, reason: str, count: int, reading: Reading, window: Window) -> tuple[StrainField, Reading]:
        field = replace(StrainField.none_for(count, reason, self._spec.name), window_nm=window.nm, window_px=window.px)
        pending = reading.flags & Flag.REFERENCE_PENDING
        return field, self._watched(
            replace(reading, reason=reason, flags=reading.flags | (0 if pending else int(Flag.STRAIN_INVALID)))
        )

    def _judged(
        self,
        frame: Frame,
        yx_px: FloatArray,
        lattice: Lattice,
        outcome: _Outcome,
        gpa: GpaField,
        reading: Reading,
        window: Window,
    ) -> tuple[StrainField, Reading]:
        exx, eyy, exy, rotation = strain_of(outcome.gradient)
        sigma = np.where(np.isfinite(exx), outcome.sigma, np.nan)
        lacking = ~np.isfinite(sigma)
        column_flags = np.where(lacking, int(Flag.FEW_NEIGHBOURS), 0) | np.where(lattice.site < 0, int(Flag.NOT_INDEXED), 0)
        valid, reason = _verdict(lattice, ~lacking, window)
        reason = reason or outcome.remark
        field = StrainField(
            exx,
            eyy,
            exy,
            1000 * rotation,
            sigma,
            column_flags.astype(np.int64),
            self._spec.name,
            window.nm,
            window.px,
            valid,
            reason,
        )
        correction = self._scan.correction(frame, lattice, outcome.to_reference)
        corrected = corrected_strain(outcome.gradient, correction, self._scan.kind, outcome.to_reference)
        field, sems = (
            replace(with_row_errors(field, outcome.share), corrected=corrected),
            mean_errors(outcome.sem, outcome.share),
        )
        strain, freed = _summaries(field, sems), corrected_summaries(corrected, sems)
        phase = self._gpa_summaries(gpa, outcome, float((~lacking).mean()))
        flags = reading.flags | (0 if valid else int(Flag.STRAIN_INVALID))
        flags |= int(Flag.GPA_DISAGREES) if phase and _disagree(_where_gpa_is(field, gpa, yx_px), outcome.sem, phase) else 0
        if valid and not self._scan.beginning:
            self._monitor.update(self._samples(frame, strain, freed))
            flags |= int(Flag.DRIFT_EXPLAINS) if drift_explains(strain, freed, self._settings.alarm_sigma) else 0
        reading = replace(
            reading,
            strain=strain,
            strain_corrected=freed,
            correction=correction.text,
            motion=self._scan.motion,
            gpa=phase,
            valid=valid,
            reason=reason,
            flags=flags,
        )
        return field, self._watched(reading)

    def _samples(self, frame: Frame, raw: dict[str, Summary], corrected: dict[str, Summary]) -> dict[str, Sample]:
        """Samples for the monitor: the strain that the settings want watched."""
        watched = raw if self._settings.watched == "raw" else self._scan.watched(raw, corrected)
        return {name: Sample(frame.time_s, each.mean, each.sem) for name, each in watched.items()}

    def _gpa_summaries(self, gpa: GpaField, outcome: _Outcome, covered: float) -> dict[str, Summary]:
        """GPA against the same reference; against first frames it starts from what it read on those."""
        values = carried(gpa, outcome.to_reference @ np.linalg.inv(self._gpa_at_reference()))
        inside = values.shape[1] / max(gpa.exx.size, 1)
        if not inside or not np.isfinite(values[:, 0]).all():
            return {}
        wider = float((max(covered, inside) / inside) ** 0.75)
        return summaries_of(values, tuple(wider * s for s in mean_errors(outcome.sem, outcome.share)))

    def _watched(self, reading: Reading) -> Reading:
        """Add the state of the monitor; an invalid frame leaves it as it was."""
        trends = self._monitor.trends()
        return replace(
            reading,
            rolling_mean={name: t.mean for name, t in trends.items()},
            rolling_sem={name: t.sem for name, t in trends.items()},
            rolling_std={name: t.std for name, t in trends.items()},
            slope_per_min={name: t.slope_per_min for name, t in trends.items()},
            slope_sem_per_min={name: t.slope_sem_per_min for name, t in trends.items()},
            alarm=self._monitor.alarm,
        )


def _flip(matrix_yx: FloatArray) -> FloatArray:
    """Swap y and x in rows and columns."""
    return matrix_yx[::-1, ::-1]


def _flip_rows(matrix: FloatArray) -> FloatArray:
    return matrix[::-1]


def _columns(detections: Detections, lattice: Lattice, window: Window) -> Columns:
    """Columns in square pixels."""
    scale = np.array(window.aspect_yx)
    yx = detections.yx_px * scale
    variance = ((detections.sigma_yx_px * scale) ** 2).mean(axis=1)
    table = node_table(lattice.cell, lattice.site)
    fit = fit_lattice(yx, lattice.cell, lattice.site)
    spacing = float(detections.spacing_px * np.sqrt(scale.prod()))
    poor = (detections.flags & (Flag.EDGE | Flag.FIT_FAILED)) != 0
    return Columns(yx, variance, lattice.cell, lattice.site, table, fit, spacing, poor)


def _joined(known: Deformation, rest: Deformation, lacking: np.ndarray, to_reference: FloatArray) -> _Outcome:
    """Columns the reference never saw are compared with its mean lattice; while few, the others' error stands."""
    gradient = np.where(lacking[:, None, None], rest.gradient, known.gradient)
    sigma = np.where(lacking, rest.sigma, known.sigma)
    outside = float(np.isfinite(rest.sigma[lacking]).sum() / max(np.isfinite(sigma).sum(), 1))
    sem = (
        known.sem
        if np.isnan(rest.sem[0])
        else tuple(float(v) for v in np.hypot((1 - outside) * np.nan_to_num(known.sem), outside * np.array(rest.sem)))
    )
    remark = f"{outside:.0%} of the columns lie outside the reference area and are compared with its mean lattice"
    errors = (float(sem[0]), float(sem[1]), float(sem[2]))
    remark = remark if outside > 0.05 else ""
    return _Outcome(gradient, sigma, errors, to_reference, remark, known.mean_share, known.position_sigma_px)


def _summaries(field: StrainField, sems: tuple[float, ...]) -> dict[str, Summary]:
    known = np.isfinite(field.exx)
    if not known.any():
        return {name: Summary() for name in COMPONENTS}
    values = np.stack([getattr(field, name)[known] for name in COMPONENTS])
    return summaries_of(values, sems)


def _verdict(lattice: Lattice, measured: np.ndarray, window: Window) -> tuple[bool, str]:
    """Whether a frame's strain may be believed, in the words of someone at the microscope."""
    size = f"{window.nm:g} nm" if np.isfinite(window.nm) else f"{window.px:.0f} px"
    if lattice.flags & Flag.SEVERAL_LATTICES:
        return False, lattice.reason
    if measured.sum() < LEAST_COLUMNS or measured.mean() < LEAST_COVERED:
        cell = float(np.hypot(*lattice.b_yx_px))
        if (lattice.site >= 0).sum() >= 2 * LEAST_COLUMNS and window.px < 0.8 * cell:
            return (
                False,
                f"a window of {size} holds too few columns of this lattice (cell {cell:.0f} px); widen strain.window_nm",
            )
        return False, f"only {int(measured.sum())} columns have enough neighbours for a strain (at least {LEAST_COLUMNS})"
    return True, lattice.reason


def _misfit(spec: KnownCell, measured_nm: FloatArray) -> str:
    a, b = np.hypot(*measured_nm)
    angle = np.degrees(np.arccos(measured_nm[:, 0] @ measured_nm[:, 1] / (a * b)))
    cells = " or ".join(f"{c.a_nm:.4f} x {c.b_nm:.4f} nm, {c.gamma_deg:.1f} deg" for c in spec.cells)
    return (
        f"measured cell {a:.4f} x {b:.4f} nm, {angle:.1f} deg is not that of {spec.name} ({cells}): "
        "check the pixel size and the material"
    )


def _where_gpa_is(field: StrainField, gpa: GpaField, yx_px: FloatArray) -> dict[str, float]:
    """Mean exx, eyy, exy of the columns that lie where GPA has a value: only there can both be compared."""
    at = np.rint(yx_px / gpa.step_px).astype(np.int64)
    at = np.clip(at, 0, np.array(gpa.exx.shape) - 1)
    both = np.isfinite(gpa.exx[at[:, 0], at[:, 1]]) & np.isfinite(field.exx)
    if both.sum() < LEAST_COLUMNS:
        return {}
    return {name: float(getattr(field, name)[both].mean()) for name in ("exx", "eyy", "exy")}


def _disagree(columns: dict[str, float], sem: tuple[float, float, float], phase: dict[str, Summary]) -> bool:
    """Whether the means of both methods differ by more than five joint errors and by more than 0.1 %."""
    for (name, mean), own in zip(columns.items(), sem, strict=False):
        joint = float(np.hypot(own, phase[name].sem))
        if abs(phase[name].mean - mean) > max(GPA_SIGMAS * joint, GPA_FLOOR):
            return True
    return False
