"""From strain as seen to strain without what the scan made of it, and what row jitter adds to the error bars.

Seen: the scan's distortion D (drift within the frame) and S (calibration profile) act after the specimen's own deformation F.
Against a reference seen through the same instrument at another velocity the fit gives G = D S F (Dref S)^-1, so F = (D S)^-1 G
Dref S. A theoretical cell has no Dref and no S; the frame's own lattice is seen through its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from atomid_live.lattice.sites import LatticeFit
from atomid_live.strain.field import Columns, strain_of
from atomid_live.strain.means import summaries_of
from atomid_live.strain.rows import JitterMemory, JitterModel, jitter_of, row_covariance
from atomid_live.strain.scan import MotionMemory, apparent_gradient, aspect_of, settled
from atomid_live.strain.template import template_for
from atomid_live.strain.window import Window
from atomid_live.types import (
    COMPONENTS,
    NAN,
    CorrectedStrain,
    DriftEstimate,
    FloatArray,
    Frame,
    Jitter,
    Lattice,
    ScanDistortion,
    ScanMotion,
    StrainField,
    Summary,
)

ReferenceKind = Literal["frames", "own", "cell"]
Errors = tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """What turns a measured gradient into a corrected one: left @ G @ right; its errors (exx, eyy, exy); in words."""

    left: FloatArray = field(repr=False)
    right: FloatArray = field(repr=False)
    sigma: Errors
    text: str
    applies: bool


def _through_scan(motion: ScanMotion, distortion: ScanDistortion, aspect_yx: float) -> FloatArray:
    """Gradient (2, 2), x before y, by which drift and scan together deform what is seen; unknown drift counts as none."""
    drift = apparent_gradient(motion.per_row_yx_px, aspect_yx) if motion.known else np.eye(2)
    return np.asarray(drift @ np.array([[1.0, -distortion.shear], [0.0, 1.0]]))


def correction_for(
    kind: ReferenceKind, motion: ScanMotion, at_reference: ScanMotion, distortion: ScanDistortion, aspect_yx: float
) -> Correction:
    """Work out the correction of one frame, or why there is none.

    Parameters
    ----------
    kind : str
        "frames" for a reference of earlier frames, "own" for the frame's own lattice, "cell" for a theoretical one.
    motion, at_reference : ScanMotion
        Motion within this frame, and within the frames of the reference.
    distortion : ScanDistortion
        Calibrated distortion of the scan.
    aspect_yx : float
        Height of a pixel over its width.
    """
    seen = _through_scan(motion, distortion, aspect_yx)
    back: FloatArray = np.asarray(np.linalg.inv(seen), np.float64)
    if kind == "own":
        known = motion.known or bool(distortion.name)
        words = "nothing uniform shows against the frame's own lattice" if known else f"not corrected: {motion.reason}"
        return Correction(back, seen, (0.0, 0.0, 0.0), words, known)
    if kind == "frames":
        lacking = motion.reason or (f"in the reference frames {at_reference.reason}" if at_reference.reason else "")
        if lacking:
            return Correction(np.eye(2), np.eye(2), (NAN,) * 3, f"not corrected: {lacking}", False)
        there = _through_scan(at_reference, distortion, aspect_yx)
        sigma = _drift_errors((motion, at_reference), aspect_yx)
        return Correction(back, there, sigma, _words(motion, distortion, ""), True)
    if not motion.known and not distortion.name:
        return Correction(np.eye(2), np.eye(2), (NAN,) * 3, f"not corrected: {motion.reason}", False)
    drift = _drift_errors((motion,), aspect_yx) if motion.known else (0.0, 0.0, 0.0)
    y, x = distortion.sigma_scale_yx
    scale = (x, y, distortion.sigma_shear / 2)
    both = (float(np.hypot(drift[0], scale[0])), float(np.hypot(drift[1], scale[1])), float(np.hypot(drift[2], scale[2])))
    return Correction(back, np.eye(2), both, _words(motion, distortion, motion.reason), True)


def _drift_errors(motions: tuple[ScanMotion, ...], aspect_yx: float) -> Errors:
    y, x = (float(np.linalg.norm([m.sigma_per_row_yx_px[axis] for m in motions])) for axis in (0, 1))
    return 0.0, y, x / aspect_yx / 2


def _words(motion: ScanMotion, distortion: ScanDistortion, lacking: str) -> str:
    parts = ["drift"] if motion.known else []
    parts += [f"scan distortion ({distortion.name})"] if distortion.name else []
    notes = [f"drift within the frame not known: {lacking}"] if lacking else []
    notes += [motion.remark] if motion.remark else []
    return "; ".join([f"corrected for {' and '.join(parts)}", *notes])


def corrected_strain(
    gradient: FloatArray, correction: Correction, kind: ReferenceKind, to_reference: FloatArray
) -> CorrectedStrain:
    """Strain per column after correction.

    Parameters
    ----------
    gradient : ndarray, shape (N, 2, 2)
        Measured against the reference, x before y.
    correction : Correction
        Of this frame.
    kind : str
        As in `correction_for`; the direction of a theoretical cell is free, so that its mean rotation is zero again.
    to_reference : ndarray, shape (2, 2)
        Gradient of the frame's mean lattice against the reference.
    """
    if not correction.applies:
        return CorrectedStrain()
    right = correction.right
    if kind == "cell":
        turn = float(strain_of(correction.left @ to_reference @ right)[3])
        c, s = np.cos(turn), np.sin(turn)
        right = right @ np.array([[c, s], [-s, c]])
    exx, eyy, exy, rotation = strain_of(correction.left @ gradient @ right)
    return CorrectedStrain(exx, eyy, exy, 1000 * rotation, *correction.sigma)


@dataclass(frozen=True, slots=True)
class RowShare:
    """Variance that row jitter gives to a gradient along y, by what is displaced, and the columns' own share of the residuals.

    Attributes
    ----------
    local_yx, across_yx : (float, float)
        Variance of d(uy)/dy and d(ux)/dy, and of d(uy)/dx and d(ux)/dx, at a column well inside: few columns of a small window
        lie on just the same rows, so that jitter is in derivatives along x too.
    mean_yx : (float, float)
        Variance of the first two in the frame's mean.
    own : float
        The columns' own variance, without jitter, over that of the residuals.
    """

    local_yx: tuple[float, float] = (0.0, 0.0)
    across_yx: tuple[float, float] = (0.0, 0.0)
    mean_yx: tuple[float, float] = (0.0, 0.0)
    own: float = 1.0


def _rows_of(place: FloatArray, weight: FloatArray) -> FloatArray:
    at = np.rint(place - place.min()).astype(np.int64)
    return np.asarray(np.bincount(at, weight), np.float64)


def row_share(
    model: JitterModel, fit: LatticeFit, window: Window, columns: Columns, mean_share: FloatArray, position_sigma_px: float
) -> RowShare:
    """How far row jitter enters the strain of a column and of the frame.

    The coefficients with which displacements enter a gradient along y are summed over the columns of each row; the variance is
    that of their sum over rows with the covariance of the model.
    """
    if not model.any:
        return RowShare()
    aspect = np.array(window.aspect_yx)
    template = template_for(fit, window.px, max(columns.table.column.shape[1:]))
    inside = slice(int(template.run[0, 0]), int(template.run[0, -1]))
    g, (dy, dx) = template.weight[inside], template.difference[inside].T
    place, down, along = dy / aspect[0], float(g @ dy**2), float(g @ dx**2)
    if not min(down, along) > 0:
        return RowShare()
    square = aspect**2
    local = np.array(model.of_sum(_rows_of(place, g * dy / down))) * square
    across = np.array(model.of_sum(_rows_of(place, g * dx / along))) * square
    used = np.isfinite(mean_share) & (mean_share != 0)
    rows = _rows_of(columns.yx[used, 0] / aspect[0], mean_share[used]) if used.any() else np.zeros(1)
    mean = np.array(model.of_sum(rows)) * square
    # the fits' own residuals are a median, which jitter shared along rows pulls down; so the columns' part is taken directly
    residual = position_sigma_px**2
    own = float(np.mean(np.array(model.own_yx) * square)) / residual if residual > 0 else 1.0
    pairs = [(float(pair[0]), float(pair[1])) for pair in (local, across, mean)]
    return RowShare(pairs[0], pairs[1], pairs[2], own)


class ScanEffects:
    """What the scan did, frame after frame: motion within frames, row jitter, and the motion while the reference was taken."""

    def __init__(self, kind: ReferenceKind) -> None:
        self.kind = kind
        self._motions = MotionMemory()
        self._jitter = JitterMemory()
        self._at_reference = ScanMotion(reason="no velocity was known")
        self._frames = 0
        self._taken_off: dict[str, float] = {}
        self.motion = ScanMotion()

    @property
    def beginning(self) -> bool:
        """Whether the first frames have no velocity yet but soon will: no series should start with those."""
        return self._motions.beginning

    def see(self, frame: Frame, drift: DriftEstimate) -> ScanMotion:
        """Take a frame's drift; every frame, in order."""
        self.motion = self._motions.update(frame, drift)
        return self.motion

    def see_rows(self, columns: Columns, aspect_yx: tuple[float, float], shape: tuple[int, int]) -> Jitter:
        """Take a frame's columns and tell its row jitter."""
        use = columns.site >= 0 if columns.poor is None else (columns.site >= 0) & ~columns.poor
        fit = columns.fit
        straight = fit.origin_yx_px[columns.site[use]] + columns.cell[use] @ fit.matrix.T
        aspect = np.array(aspect_yx)
        found = row_covariance(columns.yx[use] / aspect, (columns.yx[use] - straight) / aspect, shape)
        self._jitter.add(found)
        return jitter_of(found)

    def enter_reference(self) -> None:
        """The frame seen last became part of the reference; the newest known velocity speaks for all of its frames."""
        self._frames += 1
        if self.motion.known:
            self._at_reference = self.motion

    def watched(self, raw: Mapping[str, Summary], corrected: Mapping[str, Summary]) -> Mapping[str, Summary]:
        """Corrected strain; of a frame that cannot be corrected the raw one, as unsure as the last correction was large."""
        if corrected:
            self._taken_off = {name: abs(each.mean - raw[name].mean) for name, each in corrected.items()}
            return corrected
        return {
            name: replace(each, sem=float(np.hypot(each.sem, self._taken_off.get(name, 0.0)))) for name, each in raw.items()
        }

    def correction(self, frame: Frame, lattice: Lattice, to_reference: FloatArray) -> Correction:
        """Correction of the frame seen last, whose mean lattice lies at `to_reference` from the reference."""
        aspect = aspect_of(frame)
        if self.kind != "own":
            there = (
                self._at_reference if self.kind == "frames" and self._at_reference.known else ScanMotion((0.0, 0.0), reason="")
            )
            gradient = apparent_gradient(there.per_row_yx_px, aspect)
            self.motion = settled(self.motion, lattice, to_reference, gradient, aspect)
        return correction_for(self.kind, self.motion, self._at_reference, frame.distortion, aspect)

    def share(self, columns: Columns, window: Window, mean_share: FloatArray, position_sigma_px: float) -> RowShare:
        """Share of row jitter in the errors of the frame seen last; the reference's own jitter is in them too."""
        share = row_share(self._jitter.model, columns.fit, window, columns, mean_share, position_sigma_px)
        if not self._frames:
            return share
        more = 1 + 1 / self._frames
        local, across, mean = ((more * y, more * x) for y, x in (share.local_yx, share.across_yx, share.mean_yx))
        own = more * share.own if share.mean_yx != (0.0, 0.0) else 1.0
        return RowShare(local, across, mean, own)


def drift_explains(raw: Mapping[str, Summary], corrected: Mapping[str, Summary], sigmas: float) -> bool:
    """Whether what would raise an alarm of `sigmas` is gone, to half of that, once drift within the frame is taken off."""
    return any(
        abs(raw[name].mean) > sigmas * raw[name].sem and abs(corrected[name].mean) <= sigmas / 2 * corrected[name].sem
        for name in ("eyy", "exy", "hydrostatic")
        if name in corrected
    )


def mean_errors(sem: Errors, share: RowShare) -> tuple[float, float, float, float, float]:
    """Standard errors of the frame's mean components, in the order of `COMPONENTS`, from those without row jitter."""
    xx, yy = share.own * sem[0] ** 2, share.own * sem[1] ** 2
    y, x = share.mean_yx
    both = (xx + yy) / 4
    exy = float(np.sqrt(both + x / 4))
    return float(np.sqrt(xx)), float(np.sqrt(yy + y)), exy, 1000 * exy, float(np.sqrt(both + y / 4))


def with_row_errors(raw: StrainField, share: RowShare) -> StrainField:
    """Field with errors component by component; `sigma` becomes the rms of exx's and eyy's.

    Where a window is cut, at borders and holes, jitter grows with the power 3/2 of the variance that independent errors give.
    """
    own = share.own * raw.sigma**2
    inside = raw.sigma[np.isfinite(raw.sigma)]
    usual = float(np.median(inside)) if len(inside) else NAN
    wider = (raw.sigma / usual) ** 1.5
    xx, yy = own + share.across_yx[1] * wider, own + share.local_yx[0] * wider
    xy = own / 2 + (share.local_yx[1] + share.across_yx[0]) * wider / 4
    return replace(raw, sigma=np.sqrt((xx + yy) / 2), sigma_exx=np.sqrt(xx), sigma_eyy=np.sqrt(yy), sigma_exy=np.sqrt(xy))


def corrected_summaries(corrected: CorrectedStrain, sems: tuple[float, ...]) -> dict[str, Summary]:
    """Mean and spread of each corrected component, with the errors of velocity and profile added to those of the raw means."""
    known = np.isfinite(corrected.exx)
    if not known.any():
        return {}
    values = np.stack([getattr(corrected, name)[known] for name in COMPONENTS])
    xx, yy, xy = corrected.sigma_exx, corrected.sigma_eyy, corrected.sigma_exy
    added = (xx, yy, xy, 1000 * xy, float(np.hypot(xx, yy)) / 2)
    return summaries_of(values, tuple(float(np.hypot(s, a)) for s, a in zip(sems, added, strict=True)))
