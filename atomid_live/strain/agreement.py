"""Columns and GPA place by place: how far two methods that share only the picture agree, and where they do not.

GPA sees a shift of the whole motif as a displacement: where composition, polarity or the order of sites changes, the phase of
a reflection changes with the structure factor and reads as strain (Peters et al. 2015). Columns fitted class by class do not,
so a patch of frame where the two differ by far more than elsewhere is marked.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np

from atomid_live.types import Agreement, FloatArray, GpaField

LEAST_PLACES = 30
ARTEFACT_SIGMAS = 6.0
ARTEFACT_LEAST = 0.002
ARTEFACT_SHARE = 0.02
SPREAD_PLACES = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Both methods at the columns where both have a value.

    Attributes
    ----------
    agreement : Agreement
        Of hydrostatic strain.
    columns, gpa : ndarray, shape (3,)
        Mean exx, eyy, exy of either method over the same places; NaN with fewer than 30 of them.
    apart : ndarray of bool, shape (N,)
        Columns at which GPA differs by more than six joint errors from its usual difference.
    """

    agreement: Agreement = field(default_factory=Agreement)
    columns: FloatArray = field(default_factory=lambda: np.full(3, np.nan), repr=False)
    gpa: FloatArray = field(default_factory=lambda: np.full(3, np.nan), repr=False)
    apart: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_), repr=False)

    @property
    def patchy(self) -> bool:
        """Whether so many columns stand apart that it is no accident."""
        return bool(len(self.apart)) and float(self.apart.sum()) > ARTEFACT_SHARE * self.agreement.places


@numba.njit(nogil=True, cache=True)
def _pairs(yx, exx, eyy, exy, gxx, gyy, gxy, turn_mrad, right, step):  # type: ignore[no-untyped-def]
    """GPA's (exx, eyy, exy), carried to the reference, at each column with a strain, between grid points; NaN elsewhere."""
    rows, cols = gxx.shape
    out = np.full((len(yx), 3), np.nan)
    tensor = np.empty(4)
    for k in range(len(yx)):
        if not np.isfinite(exx[k]):
            continue
        v, u = yx[k, 0] / step, yx[k, 1] / step
        i, j = int(np.floor(v)), int(np.floor(u))
        if i < 0 or j < 0 or i + 1 >= rows or j + 1 >= cols:
            continue
        tensor[:] = 0.0
        for p in range(2):
            for q in range(2):
                w = (v - i if p else 1 - v + i) * (u - j if q else 1 - u + j)
                tensor[0] += w * gxx[i + p, j + q]
                tensor[1] += w * gyy[i + p, j + q]
                tensor[2] += w * gxy[i + p, j + q]
                tensor[3] += w * turn_mrad[i + p, j + q]
        if not np.isfinite(tensor[0]):
            continue
        c, s = np.cos(tensor[3] / 1000), np.sin(tensor[3] / 1000)
        xx, xy = (1 + tensor[0]) * c + tensor[2] * s, tensor[2] * c - (1 + tensor[0]) * s
        yx_, yy = tensor[2] * c + (1 + tensor[1]) * s, (1 + tensor[1]) * c - tensor[2] * s
        fxx, fxy = xx * right[0, 0] + xy * right[1, 0], xx * right[0, 1] + xy * right[1, 1]
        fyx, fyy = yx_ * right[0, 0] + yy * right[1, 0], yx_ * right[0, 1] + yy * right[1, 1]
        along, across = fxx + fyy, fyx - fxy
        size = np.hypot(along, across)
        c, s = along / size, across / size
        out[k, 0], out[k, 1], out[k, 2] = fxx * c - fxy * s - 1, fyx * s + fyy * c - 1, fxx * s + fxy * c
    return out


def compare(
    yx_px: FloatArray, tensors: tuple[FloatArray, FloatArray, FloatArray], gpa: GpaField, right: FloatArray, sigma: float
) -> Comparison:
    """Compare the strain of columns with GPA's at the same places.

    Parameters
    ----------
    yx_px : ndarray, shape (N, 2)
        Columns in pixels of the frame.
    tensors : (ndarray, ndarray, ndarray), shape (N,) each
        Their exx, eyy, exy against the reference, NaN where unknown.
    gpa : GpaField
        Against the frame's own lattice.
    right : ndarray, shape (2, 2)
        Gradient that carries the frame's own lattice to the reference.
    sigma : float
        Typical standard error of a normal component at a column.
    """
    exx, eyy, exy = tensors
    if not gpa.exx.size or not len(yx_px) or not np.isfinite(right).all():
        return Comparison()
    parts = (gpa.exx, gpa.eyy, gpa.exy, gpa.rotation_mrad)
    phase: FloatArray = _pairs(yx_px, exx, eyy, exy, *parts, np.ascontiguousarray(right), gpa.step_px)
    both = np.isfinite(phase[:, 0])
    count, known = int(both.sum()), int(np.isfinite(exx).sum())
    inside = _in_grid(yx_px, gpa)
    missing = 1 - count / max(int(inside.sum()), 1)
    if count < LEAST_PLACES:
        return Comparison(Agreement(invalid=missing if known else 1.0, places=count))
    ours = np.stack([exx[both], eyy[both], exy[both]], axis=1)
    theirs = phase[both]
    difference = (theirs[:, 0] + theirs[:, 1] - ours[:, 0] - ours[:, 1]) / 2
    a, b = (t[:, 0] + t[:, 1] for t in (ours, theirs))
    spread = float(a.std() * b.std())
    alike = float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else float("nan")
    agreement = Agreement(float(difference.mean()), float(difference.std()), alike, missing, count)
    apart = np.zeros(len(yx_px), np.bool_)
    apart[both] = _apart(theirs - ours, sigma)
    return Comparison(agreement, ours.mean(axis=0), theirs.mean(axis=0), apart)


def _in_grid(yx_px: FloatArray, gpa: GpaField) -> np.ndarray:
    """Columns within the frame of the places where GPA could have a value, shape (N,), bool: its border does not count."""
    rows, cols = (np.flatnonzero(np.isfinite(gpa.exx).any(axis=1 - axis)) for axis in (0, 1))
    if not len(rows):
        return np.ones(len(yx_px), np.bool_)
    low = np.array([rows[0], cols[0]]) * gpa.step_px
    high = np.array([rows[-1], cols[-1]]) * gpa.step_px
    return np.asarray(((yx_px >= low) & (yx_px <= high)).all(axis=1))


def _apart(difference: FloatArray, sigma: float) -> np.ndarray:
    """Rows of (M, 3) differences further than six joint errors, and further than 0.2 %, from the middle in any component."""
    some = difference[:: -(-len(difference) // SPREAD_PLACES)]
    away = np.abs(difference - np.median(some, axis=0))
    return np.asarray((away > max(ARTEFACT_SIGMAS * np.sqrt(2) * sigma, ARTEFACT_LEAST)).any(axis=1))
