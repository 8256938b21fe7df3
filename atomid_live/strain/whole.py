"""One strain for a whole frame, a region or a grain: the straight line through all its columns' displacements.

The mean of the strains of single columns hangs on the displacements at the border, where windows are cut; the least-squares
affine fit of all displacements uses every column and has the least error there is for a uniform strain,
sigma sqrt(12 / (M L^2)) for M columns on a square of side L. Of a strain that varies it is a mean as well, that gives the
middle of the frame more weight (6 t (1 - t) along each side).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np

from atomid_live.strain.field import ClassWeights, Columns, Reference
from atomid_live.types import NAN, FloatArray

LEAST_FOR_WHOLE = 6


@dataclass(frozen=True, slots=True)
class Whole:
    """Deformation gradient (2, 2), x before y, and standard errors of exx, eyy and (exy, rotation or hydrostatic).

    `residual_px` is the rms per axis of what the fit leaves of the displacements; `share` (N,) is how much each column's
    displacement along y adds to d(uy)/dy, in 1/px.
    """

    gradient: FloatArray
    sem: tuple[float, float, float]
    columns: int
    residual_px: float
    share: FloatArray = field(default_factory=lambda: np.empty(0), repr=False)


@numba.njit(nogil=True, cache=True)
def _fit(yx, straight, undeformed, site, use, part, share):  # type: ignore[no-untyped-def]
    """Gradient (yy, yx, xy, xx), inverse of the weighted moments (yy, yx, xx) and number of columns; one offset per class."""
    classes = len(part)
    total, mean = np.zeros(classes), np.zeros((classes, 4))
    count = 0
    for i in range(len(yx)):
        if use[i] and undeformed[i, 0] == undeformed[i, 0]:
            s = site[i]
            total[s] += 1.0
            count += 1
            for c in range(2):
                mean[s, c] += straight[i, c]
                mean[s, 2 + c] += yx[i, c] - undeformed[i, c]
    for s in range(classes):
        mean[s] /= max(total[s], 1.0)
    yy, yx_, xx, square = 0.0, 0.0, 0.0, 0.0
    gyy, gyx, gxy, gxx = 0.0, 0.0, 0.0, 0.0
    for i in range(len(yx)):
        if use[i] and undeformed[i, 0] == undeformed[i, 0]:
            s = site[i]
            w = part[s]
            y, x = straight[i, 0] - mean[s, 0], straight[i, 1] - mean[s, 1]
            dy = yx[i, 0] - undeformed[i, 0] - mean[s, 2]
            dx = yx[i, 1] - undeformed[i, 1] - mean[s, 3]
            square += dy * dy + dx * dx
            yy += w * y * y
            yx_ += w * y * x
            xx += w * x * x
            gyy += w * dy * y
            gyx += w * dy * x
            gxy += w * dx * y
            gxx += w * dx * x
    out = np.full(9, np.nan)
    det = yy * xx - yx_ * yx_
    out[7] = count
    if count >= LEAST_FOR_WHOLE and det > 1e-9 * (yy + xx) ** 2:
        iyy, iyx, ixx = xx / det, -yx_ / det, yy / det
        out[0], out[1] = gyy * iyy + gyx * iyx, gyy * iyx + gyx * ixx
        out[2], out[3] = gxy * iyy + gxx * iyx, gxy * iyx + gxx * ixx
        out[4], out[5], out[6] = iyy, iyx, ixx
        explained = out[0] * gyy + out[1] * gyx + out[2] * gxy + out[3] * gxx
        for i in range(len(yx)):
            if use[i] and undeformed[i, 0] == undeformed[i, 0]:
                s = site[i]
                y, x = straight[i, 0] - mean[s, 0], straight[i, 1] - mean[s, 1]
                share[i] = part[s] * (iyy * y + iyx * x)
        out[8] = np.sqrt(max(square - explained, 0.0) / (2 * count))
    return out


def whole_strain(
    columns: Columns,
    weights: ClassWeights,
    position_sigma_px: float,
    reference: Reference | None = None,
    inside: np.ndarray | None = None,
) -> Whole:
    """Fit one deformation gradient to the columns of a frame, or to those `inside`.

    Parameters
    ----------
    columns, weights
        As for `measure_deformation`.
    position_sigma_px : float
        Standard error of one coordinate that the local fits found.
    reference : Reference, optional
        Undeformed state; without it the straight lattice through the frame itself.
    inside : ndarray of bool, shape (N,), optional
        Columns that count.

    Returns
    -------
    Whole
        NaN when fewer than six columns count or they lie in a line. The errors are those of independent columns.
    """
    fit = columns.fit if reference is None else reference.fit
    site = np.maximum(columns.site, 0)
    straight = fit.origin_yx_px[site] + columns.cell @ fit.matrix.T
    undeformed = straight if reference is None else reference.yx
    share = np.zeros(len(columns.yx))
    use = weights.use if inside is None else weights.use & inside
    gyy, gyx, gxy, gxx, iyy, _, ixx, count, left = _fit(columns.yx, straight, undeformed, site, use, weights.part, share)
    along_x, along_y = (position_sigma_px * float(np.sqrt(max(v, 0.0))) if v == v else NAN for v in (ixx, iyy))
    shear = float(np.hypot(along_x, along_y)) / 2
    return Whole(np.array([[1 + gxx, gxy], [gyx, 1 + gyy]]), (along_x, along_y, shear), int(count), float(left), share)


def column_mean_sem(
    position_sigma_px: float, density_px2: float, window_px: float, sides_yx_px: tuple[float, float]
) -> tuple[float, float, float]:
    """Standard errors of the plain mean over an area's columns of exx, eyy and (exy, rotation or hydrostatic).

    A mean of gradients is a difference of the displacements of two borders, each averaged over 2 sqrt(pi) windows w inwards, so
    that for density rho on sides Ly, Lx: sigma / Lx sqrt(2 / (2 sqrt(pi) rho w Ly)).

    Parameters
    ----------
    position_sigma_px, density_px2, window_px
        Error of one coordinate, columns per square pixel, Gaussian window.
    sides_yx_px : (float, float)
        Height and width of the area.
    """
    height, width = sides_yx_px
    if not (height > 0 and width > 0 and density_px2 > 0):
        return NAN, NAN, NAN
    one = position_sigma_px * np.sqrt(1 / (np.sqrt(np.pi) * density_px2 * window_px))
    along_x, along_y = float(one / (width * np.sqrt(height))), float(one / (height * np.sqrt(width)))
    return along_x, along_y, float(np.hypot(along_x, along_y)) / 2
