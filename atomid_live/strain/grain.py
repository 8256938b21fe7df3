"""One grain through a series: its reference, its strain in each frame, and the watch over it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from atomid_live.lattice.sites import LatticeFit, fit_lattice, node_table
from atomid_live.strain.field import ClassWeights, Columns, Deformation, Reference, class_weights, measure_deformation
from atomid_live.strain.means import mean_gradient
from atomid_live.strain.monitor import AlarmRule, Monitor
from atomid_live.strain.nodes import NodeAverage
from atomid_live.strain.reference import FirstFrames, KnownCell, ReferenceSpec, Region, known_basis
from atomid_live.strain.whole import Whole, column_mean_sem, whole_strain
from atomid_live.strain.window import Window
from atomid_live.types import NAN, Detections, FloatArray, GpaField, Lattice

UNKNOWN_SHARE = 0.02
LEAST_IN_REGION = 12
MOST_RESIDUAL_SPACINGS = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class GrainStrain:
    """Strain of one grain in one frame against its reference.

    Attributes
    ----------
    gradient : ndarray, shape (N, 2, 2)
        Deformation gradients, x before y, NaN for columns of other grains and where under-determined.
    sigma, d2min : ndarray, shape (N,)
    whole : Whole
        Of all its columns at once.
    column_sem : (float, float, float)
        Standard errors of plain means over its columns.
    to_reference : ndarray, shape (2, 2)
        Carries the frame's own lattice to the reference.
    """

    gradient: FloatArray
    sigma: FloatArray
    d2min: FloatArray
    whole: Whole
    column_sem: tuple[float, float, float]
    position_sigma_px: float
    to_reference: FloatArray
    columns: Columns
    weights: ClassWeights
    reference: Reference | None = None
    remark: str = ""

    def part(self, inside: np.ndarray) -> Whole:
        """The same for a part of the columns."""
        whole = whole_strain(self.columns, self.weights, self.position_sigma_px, self.reference, inside)
        return whole if self.reference is not None else _carried(whole, self.to_reference)


def _carried(whole: Whole, right: FloatArray) -> Whole:
    return replace(whole, gradient=np.asarray(whole.gradient @ right))


def flip(matrix_yx: FloatArray) -> FloatArray:
    """Swap y and x in rows and columns."""
    return matrix_yx[::-1, ::-1]


def columns_of(detections: Detections, lattice: Lattice, window: Window, poor: np.ndarray) -> Columns:
    """Columns of a lattice in square pixels."""
    scale = np.array(window.aspect_yx)
    yx = detections.yx_px * scale
    variance = ((detections.sigma_yx_px * scale) ** 2).mean(axis=1)
    table = node_table(lattice.cell, lattice.site)
    fit = fit_lattice(yx, lattice.cell, lattice.site)
    spacing = float(detections.spacing_px * np.sqrt(scale.prod()))
    return Columns(yx, variance, lattice.cell, lattice.site, table, fit, spacing, poor)


class GrainMemory:
    """Reference and watch of one grain of a segment.

    Parameters
    ----------
    spec : ReferenceSpec
    rule : AlarmRule
    number : int
        Its number in the segment.
    watched : str
        What is watched, for the alarm's text.
    """

    def __init__(self, spec: ReferenceSpec, rule: AlarmRule, number: int = 0, watched: str = "") -> None:
        self.number = number
        self.nodes = NodeAverage(spec.count) if isinstance(spec, FirstFrames) else None
        self.monitor = Monitor(rule, watched)
        self.bases: list[FloatArray] = []
        self.place: tuple[FloatArray, FloatArray] | None = None
        self._spec = spec
        self._gpa: list[FloatArray] = []

    @property
    def pending(self) -> bool:
        """Whether the reference is still being collected."""
        return self.nodes is not None and not self.nodes.ready

    @property
    def complete(self) -> bool:
        """Whether the reference holds all its frames."""
        return self.nodes is not None and self.nodes.ready

    def collect(self, columns: Columns, total: FloatArray, gpa: GpaField | None) -> str:
        """Take a frame into the reference; returns the words for it."""
        assert self.nodes is not None
        problem = self.nodes.add(columns, total)
        if not problem:
            basis = self._basis(columns, total)
            self.bases.append(basis)
            self._gpa.append(basis if gpa is None else mean_gradient(gpa) @ basis)
        done = f"reference pending: {self.nodes.frames} of {self.nodes.count} frames collected"
        return f"{done}; this one was left out ({problem})" if problem else done

    def _basis(self, columns: Columns, total: FloatArray) -> FloatArray:
        """Basis of a reference frame in the reference's choice of vectors, x before y; NaN when it cannot be told."""
        assert self.nodes is not None and self.nodes.fit is not None
        found = self.nodes.find(columns, total)
        if isinstance(found, str):
            return np.full((2, 2), NAN)
        change = np.linalg.solve(self.nodes.fit.matrix, found.fit.matrix)
        return np.asarray(flip(columns.fit.matrix @ np.linalg.inv(change)))

    def reference_gradients(self) -> list[FloatArray]:
        """What each frame of the reference reads against their mean."""
        if self.nodes is None or self.nodes.fit is None:
            return []
        inverse = np.linalg.inv(flip(self.nodes.fit.matrix))
        return [np.asarray(basis @ inverse) for basis in self.bases if np.isfinite(basis).all()]

    def gpa_at_reference(self) -> FloatArray:
        """Mean deformation gradient that GPA read on the reference frames against their mean lattice."""
        if self.nodes is None or self.nodes.fit is None or not np.isfinite(self._gpa).all():
            return np.eye(2)
        return np.asarray(np.mean(self._gpa, axis=0) @ np.linalg.inv(flip(self.nodes.fit.matrix)))

    def measure(self, columns: Columns, total: FloatArray, window: Window) -> GrainStrain | str:
        """Strain of a frame's columns against the reference, or why there is none."""
        if self.nodes is not None:
            return self._against_nodes(columns, total, window)
        right = self._to_reference(columns, window)
        if isinstance(right, str):
            return right
        to_reference, extra = right
        weights = class_weights(columns)
        own = measure_deformation(columns, window.px, weights=weights)
        whole = _carried(_sound(whole_strain(columns, weights, own.position_sigma_px), own, columns, window), to_reference)
        sem = tuple(float(np.hypot(s, extra)) for s in whole.sem)
        whole = replace(whole, sem=(sem[0], sem[1], sem[2]))
        means = _column_sem(own, columns, window)
        sigma = np.hypot(own.sigma, extra)
        return GrainStrain(
            own.gradient @ to_reference, sigma, own.d2min, whole, means, own.position_sigma_px, to_reference, columns, weights
        )

    def _to_reference(self, columns: Columns, window: Window) -> tuple[FloatArray, float] | str:
        """Gradient of the frame's own lattice against the reference, and the error of the latter."""
        spec = self._spec
        if isinstance(spec, Region):
            return _region(spec, columns, window)
        if not isinstance(spec, KnownCell):
            return np.eye(2), 0.0
        if not np.isfinite(window.pixel_nm):
            return f"reference {spec.name} needs a pixel size and this frame has none; give --pixel-size-nm"
        measured = columns.fit.matrix[::-1] * window.pixel_nm
        basis = known_basis(spec.cells, measured)
        return _misfit(spec, measured) if basis is None else (np.asarray(measured @ np.linalg.inv(basis)), 0.0)

    def _against_nodes(self, columns: Columns, total: FloatArray, window: Window) -> GrainStrain | str:
        assert self.nodes is not None
        reference = self.nodes.find(columns, total)
        if isinstance(reference, str):
            return reference
        to_reference = np.asarray(flip(columns.fit.matrix @ np.linalg.inv(reference.fit.matrix)))
        weights = class_weights(columns)
        known = measure_deformation(columns, window.px, reference, weights=weights)
        indexed = columns.site >= 0
        lacking = indexed & ~known.valid
        straight = reference.fit.origin_yx_px[np.maximum(columns.site, 0)] + columns.cell @ reference.fit.matrix.T
        remark = ""
        if lacking.sum() > UNKNOWN_SHARE * max(int(indexed.sum()), 1):
            beyond = Reference(reference.fit, straight)
            rest = measure_deformation(columns, window.px, beyond, only=lacking, weights=weights)
            known, remark = _joined(known, rest, lacking)
        full = Reference(reference.fit, np.where(np.isfinite(reference.yx), reference.yx, straight))
        whole = _sound(whole_strain(columns, weights, known.position_sigma_px, full), known, columns, window)
        means = _column_sem(known, columns, window)
        return GrainStrain(
            known.gradient, known.sigma, known.d2min, whole, means, known.position_sigma_px, to_reference, columns, weights,
            full, remark,
        )  # fmt: skip


def _region(spec: Region, columns: Columns, window: Window) -> tuple[FloatArray, float] | str:
    inside = spec.box.holds(columns.yx / np.array(window.aspect_yx)) & (columns.site >= 0)
    if columns.poor is not None:
        inside &= ~columns.poor
    held = np.where(inside, columns.site, -1)
    if inside.sum() < LEAST_IN_REGION or min(np.ptp(columns.cell[inside], axis=0), default=0) < 1:
        return (
            f"reference {spec.name} holds {int(inside.sum())} columns of this lattice (at least {LEAST_IN_REGION} are needed)"
        )
    fit = fit_lattice(columns.yx, columns.cell, held)
    away = columns.yx[inside] - columns.yx[inside].mean(axis=0)
    error = fit.residual_px / float(np.sqrt((away**2).sum(axis=0).min()))
    return np.asarray(flip(columns.fit.matrix @ np.linalg.inv(fit.matrix))), error


def _column_sem(deformation: Deformation, columns: Columns, window: Window) -> tuple[float, float, float]:
    """Error of plain means over the columns that have a tensor, as if their area were a rectangle."""
    known = columns.yx[deformation.valid]
    if len(known) < 2:
        return NAN, NAN, NAN
    density = len(columns.fit.origin_yx_px) / columns.fit.area_px2
    height, width = np.ptp(known, axis=0)
    return column_mean_sem(deformation.position_sigma_px, density, window.px, (float(height), float(width)))


def _sound(whole: Whole, deformation: Deformation, columns: Columns, window: Window) -> Whole:
    """The whole fit, or the mean over columns where displacements jump: cells then are not counted through (a dislocation)."""
    if whole.residual_px <= MOST_RESIDUAL_SPACINGS * columns.spacing or not deformation.valid.any():
        return whole
    mean = deformation.gradient[deformation.valid].mean(axis=0)
    sem, count = _column_sem(deformation, columns, window), int(deformation.valid.sum())
    return replace(whole, gradient=mean, sem=sem, columns=count)


def _joined(known: Deformation, rest: Deformation, lacking: np.ndarray) -> tuple[Deformation, str]:
    """Columns the reference never saw are compared with its mean lattice."""
    joined = Deformation(
        np.where(lacking[:, None, None], rest.gradient, known.gradient),
        np.where(lacking, rest.sigma, known.sigma),
        np.where(lacking, rest.neighbours, known.neighbours),
        np.where(lacking, rest.d2min, known.d2min),
        known.position_sigma_px if known.valid.any() else rest.position_sigma_px,
    )
    outside = float(np.isfinite(rest.sigma[lacking]).sum() / max(int(joined.valid.sum()), 1))
    remark = f"{outside:.0%} of the columns lie outside the reference area and are compared with its mean lattice"
    return joined, remark if outside > 0.05 else ""


def _misfit(spec: KnownCell, measured_nm: FloatArray) -> str:
    a, b = np.hypot(*measured_nm)
    angle = np.degrees(np.arccos(measured_nm[:, 0] @ measured_nm[:, 1] / (a * b)))
    cells = " or ".join(f"{c.a_nm:.4f} x {c.b_nm:.4f} nm, {c.gamma_deg:.1f} deg" for c in spec.cells)
    return (
        f"measured cell {a:.4f} x {b:.4f} nm, {angle:.1f} deg is not that of {spec.name} ({cells}): "
        "check the pixel size and the material"
    )


def same_lattice(one: LatticeFit, other: FloatArray, most: float) -> bool:
    """Whether a basis (2, 2) is another choice of vectors of a lattice, to within `most` of a cell."""
    step = np.linalg.solve(one.matrix, other)
    change = np.rint(step)
    return abs(round(float(np.linalg.det(change)))) == 1 and float(np.abs(step - change).max()) <= most
