"""The scan's affine distortion from the lattice of a known crystal, in one frame, several, or two scans 90 degrees apart.

A nominal position n (pixels times nominal size, x before y) lies truly at X n, where X = A - w e for a specimen that moves by w
per unit of y scanned: q = X n is where the specimen's point was at the start. A is upper triangular: x and y scale, and how far
the rows lean; which way the fast axis points on the crystal is free. The lattice L of the specimen is seen as X^-1 L.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from atomid_live.errors import CalibrationError, UsageError
from atomid_live.flags import Flag
from atomid_live.lattice.sites import fit_lattice
from atomid_live.strain.reference import Cell, known_basis
from atomid_live.strain.rows import JitterModel, jitter_model, row_covariance
from atomid_live.strain.scan import apparent_gradient
from atomid_live.types import FloatArray, Result, ScanMotion

SAME_LATTICE = 0.2
UNDECIDED = 4.0
SETTLED_NM_MIN = 0.5
LEAST_ERROR = 1e-6
MOST_DISTORTION = 0.1
Where = Literal["coils", "scan"]


@dataclass(frozen=True, slots=True, eq=False)
class SeenLattice:
    """Lattice of one frame as seen.

    Attributes
    ----------
    matrix_nm : ndarray, shape (2, 2)
        Basis in nominal nm, columns a and b, rows x and y; drift within the frame already taken off where it was known.
    sigma_gradient : ndarray, shape (2, 2)
        Standard errors of the relative deformation: of displacement (x, y) along direction (x, y).
    """

    matrix_nm: FloatArray = field(repr=False)
    sigma_gradient: FloatArray = field(repr=False)


@dataclass(frozen=True, slots=True)
class Distortion:
    """Measured distortion with standard errors.

    Attributes
    ----------
    scale_xy, sigma_scale_xy, shear, sigma_shear
        As in `calibration.Profile`.
    angle_deg, sigma_angle_deg : float
        Direction of the crystal's a from the fast axis, clockwise on the screen.
    drift_xy, sigma_drift_xy : (float, float)
        Motion of the specimen per unit of y scanned, along x and y of the first scan; NaN without a pair.
    rotation_mrad, sigma_rotation_mrad : float
        How far the second scan was off its nominal turn; NaN without a pair.
    where : str
        Whether the distortion stays with the scan "coils" or turns with the "scan"; "" without a pair.
    residual : float
        Scatter of the frames, or the misfit of the pair, in standard errors; NaN for one frame.
    """

    scale_xy: tuple[float, float]
    sigma_scale_xy: tuple[float, float]
    shear: float
    sigma_shear: float
    angle_deg: float
    sigma_angle_deg: float
    drift_xy: tuple[float, float] = (np.nan, np.nan)
    sigma_drift_xy: tuple[float, float] = (np.nan, np.nan)
    rotation_mrad: float = np.nan
    sigma_rotation_mrad: float = np.nan
    where: str = ""
    residual: float = np.nan


def seen_lattice(result: Result, motion: ScanMotion) -> SeenLattice:
    """Lattice of an analysed frame in nominal nm, without what `motion` within the frame made of it.

    Errors: the columns' own, row jitter, and the motion's; where that is not known, 0.5 nm/min, what a settled specimen drifts.
    """
    found, lattice = result.detections, result.lattice
    use = (lattice.site >= 0) & ((found.flags & (Flag.EDGE | Flag.FIT_FAILED)) == 0)
    if not use.any():
        why = lattice.reason or "no column has a place"
        raise UsageError(
            f"{result.origin.source or 'the frame'} shows no lattice to calibrate by ({why}); "
            "take a frame that one crystal fills"
        )
    yx, cell, site = found.yx_px[use], lattice.cell[use], lattice.site[use]
    fit = fit_lattice(yx, cell, site)
    size = np.array(result.pixel_size_yx_nm)
    matrix = np.diag(size[::-1]) @ fit.matrix[::-1]
    known = motion if motion.known else ScanMotion((0.0, 0.0), _settled_drift(result), "")
    drift = apparent_gradient(known.per_row_yx_px, size[0] / size[1])
    rest = yx - fit.origin_yx_px[site] - cell @ fit.matrix.T
    return SeenLattice(np.linalg.inv(drift) @ matrix, _gradient_errors(yx, rest, result.shape, size, known))


def _settled_drift(result: Result) -> tuple[float, float]:
    meta, (rows, cols) = result.meta, result.shape
    seconds = meta.line_time_s if meta.line_time_s > 0 else meta.frame_time_s / rows
    seconds = seconds if seconds > 0 else meta.dwell_s * cols
    y, x = (SETTLED_NM_MIN / 60 * seconds / size for size in result.pixel_size_yx_nm)
    return (y, x) if np.isfinite(y + x) else (0.0, 0.0)


def _gradient_errors(
    yx: FloatArray, rest: FloatArray, shape: tuple[int, int], size: FloatArray, motion: ScanMotion
) -> FloatArray:
    """Standard errors (2, 2) of displacement (x, y) along (x, y) of the straight lattice through columns at `yx`."""
    found = row_covariance(yx, rest, shape)
    model = JitterModel() if isinstance(found, str) else jitter_model([found])
    away = yx - yx.mean(axis=0)
    square = (away**2).sum(axis=0)
    own = np.maximum(rest.var(axis=0) - np.array(model.variance_yx), 0.02 * rest.var(axis=0))
    at = np.clip(np.rint(yx[:, 0]), 0, shape[0] - 1).astype(np.int64)
    rows = np.asarray(np.bincount(at, away[:, 0] / square[0], shape[0]), np.float64)
    jitter_y, jitter_x = model.of_sum(rows)
    drift_y, drift_x = motion.sigma_per_row_yx_px
    aspect = size[0] / size[1]
    xx, yx_ = own[1] / square[1], own[0] / square[1] * aspect**2
    xy = (own[1] / square[0] + jitter_x + drift_x**2) / aspect**2
    yy = own[0] / square[0] + jitter_y + drift_y**2
    return np.asarray(np.sqrt(np.maximum(np.array([[xx, xy], [yx_, yy]]), LEAST_ERROR**2)), np.float64)


def _turn(angle: float) -> FloatArray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def _undeformed(seen: SeenLattice, cells: tuple[Cell, ...]) -> FloatArray:
    basis = known_basis(cells, seen.matrix_nm)
    if basis is None:
        a, b = np.hypot(*seen.matrix_nm)
        raise CalibrationError(
            f"the measured cell of {a:.4f} x {b:.4f} nm is not the crystal's (areas differ by more than a fifth): "
            "check --crystal, its axis, and the pixel size"
        )
    x, y, shear, _ = _parameters(seen.matrix_nm, basis)
    if max(abs(x / y - 1), abs(shear)) > MOST_DISTORTION:
        raise CalibrationError(
            f"the measured cell is not the crystal's: the scan would have to stretch it by {100 * (x / y - 1):+.0f} % and "
            f"shear it by {100 * shear:+.0f} %, and {100 * MOST_DISTORTION:.0f} % is the most believed; "
            "check --crystal and its axis"
        )
    return basis


def _triangular(matrix: FloatArray) -> tuple[FloatArray, float]:
    """Split a matrix with positive determinant into a turn (angle in rad) and an upper triangular rest."""
    angle = float(np.arctan2(matrix[1, 0], matrix[0, 0]))
    return _turn(-angle) @ matrix, angle


def _parameters(seen: FloatArray, basis: FloatArray) -> FloatArray:
    """(scale x, scale y, shear, angle of a) that lay a seen lattice over the crystal's."""
    rest, _ = _triangular(basis @ np.linalg.inv(seen))
    a = rest @ seen[:, 0]
    return np.array([rest[0, 0], rest[1, 1], rest[0, 1] / rest[1, 1], np.arctan2(a[1], a[0])])


def of_frame(seen: SeenLattice, cells: tuple[Cell, ...]) -> tuple[FloatArray, FloatArray]:
    """(scale x, scale y, shear, angle in rad) of one frame and their covariance (4, 4)."""
    basis = _undeformed(seen, cells)
    middle, square = _parameters(seen.matrix_nm, basis), np.zeros((4, 4))
    for i, j in np.ndindex(2, 2):
        step = np.zeros((2, 2))
        step[i, j] = 1e-6
        change = (_parameters((np.eye(2) + step) @ seen.matrix_nm, basis) - middle) / 1e-6
        square += seen.sigma_gradient[i, j] ** 2 * np.outer(change, change)
    return middle, square


def of_frames(frames: Sequence[SeenLattice], cells: tuple[Cell, ...], drift_known: bool = True) -> Distortion:
    """Mean distortion of frames of one scan; errors are the larger of the stated ones and of the frames' scatter.

    A drift that is not known is the same in all frames: then their errors do not average out.
    """
    found = [of_frame(seen, cells) for seen in frames]
    values = np.array([middle for middle, _ in found])
    turned = (values[:, 3] - values[0, 3] + np.pi / 2) % np.pi - np.pi / 2
    values[:, 3] = values[0, 3] + turned
    variance = np.array([np.maximum(np.diag(square), 1e-18) for _, square in found])
    weight = 1 / variance
    mean = (weight * values).sum(axis=0) / weight.sum(axis=0)
    sigma, residual = np.sqrt((1 if drift_known else len(frames)) / weight.sum(axis=0)), np.nan
    if len(frames) > 1:
        excess = ((values - mean) ** 2 / variance).sum(axis=0) / (len(frames) - 1)
        sigma, residual = sigma * np.sqrt(np.maximum(excess, 1.0)), float(np.sqrt(excess[:3].mean()))
    x, y, shear, angle = (float(v) for v in mean)
    sx, sy, ss, sa = (float(v) for v in sigma)
    return Distortion((x, y), (sx, sy), shear, ss, float(np.degrees(angle)), float(np.degrees(sa)), residual=residual)


def _seen_by(given: FloatArray, basis: FloatArray, turn: float, where: Where) -> tuple[FloatArray, FloatArray]:
    """Lattices of both scans for (scale x, scale y, shear, angle, drift x, drift y, rotation)."""
    sx, sy, shear, angle, wx, wy, rotation = given
    scan = np.array([[sx, sy * shear], [0.0, sy]])
    moving = np.array([[0.0, wx], [0.0, wy]])
    second = _turn(turn + rotation)
    other = scan @ second if where == "coils" else second @ scan
    lattice = _turn(angle) @ basis
    return np.linalg.solve(scan - moving, lattice), np.linalg.solve(other - moving, lattice)


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Both scans' lattices in one choice of vectors, what they should be, and the angle between the scans in rad."""

    first: SeenLattice
    second: SeenLattice
    basis: FloatArray = field(repr=False)
    turn: float

    def misfit(self, given: FloatArray, where: Where) -> FloatArray:
        """Eight residuals in standard errors."""
        seen = (self.first, self.second)
        made = _seen_by(given, self.basis, self.turn, where)
        parts = [(m @ np.linalg.inv(s.matrix_nm) - np.eye(2)) / s.sigma_gradient for m, s in zip(made, seen, strict=True)]
        return np.concatenate([part.ravel() for part in parts])


def _in_one_basis(first: SeenLattice, second: SeenLattice, cells: tuple[Cell, ...], turn: float) -> _Pair:
    basis = _undeformed(first, cells)
    change = np.linalg.solve(basis, _turn(turn) @ second.matrix_nm)
    whole = np.rint(change)
    if abs(round(float(np.linalg.det(whole)))) != 1 or np.abs(change - whole).max() > SAME_LATTICE:
        raise CalibrationError(
            f"the two frames do not show one crystal scanned at an angle of {np.degrees(turn):.0f} degrees: check their order, "
            "--turn-deg, and that the specimen was not turned"
        )
    return _Pair(first, SeenLattice(second.matrix_nm @ np.linalg.inv(whole), second.sigma_gradient), basis, turn)


def of_pair(first: SeenLattice, second: SeenLattice, cells: tuple[Cell, ...], turn_deg: float = 90.0) -> Distortion:
    """Distortion and drift from two scans of one place, the second turned by `turn_deg` (clockwise on the screen).

    Drift is the same in both on the specimen and falls on different axes of the two pictures; the scan's own distortion either
    stays with the coils or turns with the scan. Both are tried, and the one that fits is told; where the data do not decide it
    is the coils', with half of the difference in the errors. Eight numbers are measured and seven fitted.

    Raises
    ------
    CalibrationError
        The frames show another crystal, or not the same one turned by that angle.
    """
    from scipy.optimize import least_squares

    pair = _in_one_basis(first, second, cells, float(np.radians(turn_deg)))
    start = np.array([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    fits = {}
    for where in ("coils", "scan"):
        fit = least_squares(lambda given, where=where: pair.misfit(given, where), start, xtol=1e-14, ftol=1e-14, gtol=1e-14)
        fits[where] = (fit.x, np.linalg.inv(fit.jac.T @ fit.jac), 2 * fit.cost)
    (coils, _, bad), (scan, _, worse) = fits["coils"], fits["scan"]
    where = "scan" if worse < bad - UNDECIDED else "coils"
    undecided = abs(bad - worse) <= UNDECIDED
    value, square, chi2 = fits[where]
    sigma = np.sqrt(np.diag(square) * max(chi2, 1.0) + (np.abs(coils - scan) / 2) ** 2 * undecided)
    a = _turn(float(value[3])) @ pair.basis[:, 0]
    return Distortion(
        (float(value[0]), float(value[1])),
        (float(sigma[0]), float(sigma[1])),
        float(value[2]),
        float(sigma[2]),
        float(np.degrees(np.arctan2(a[1], a[0]))),
        float(np.degrees(sigma[3])),
        (float(value[4]), float(value[5])),
        (float(sigma[4]), float(sigma[5])),
        1000 * float(value[6]),
        1000 * float(sigma[6]),
        f"{where}{' (not decided by these frames)' if undecided else ''}",
        float(np.sqrt(chi2)),
    )
