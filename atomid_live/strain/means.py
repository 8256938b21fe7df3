"""Means and spreads over a frame's strain fields, in compiled loops (numba, serial)."""

from __future__ import annotations

import numba
import numpy as np

from atomid_live.types import COMPONENTS, FloatArray, GpaField, Summary


@numba.njit(nogil=True, cache=True)
def _tensor(exx, eyy, exy, rotation):  # type: ignore[no-untyped-def]
    """Deformation gradient (xx, xy, yx, yy) of strain and rotation in rad: (1 + strain) turned."""
    c, s = np.cos(rotation), np.sin(rotation)
    return (1 + exx) * c + exy * s, exy * c - (1 + exx) * s, exy * c + (1 + eyy) * s, (1 + eyy) * c - exy * s


@numba.njit(nogil=True, cache=True)
def _mean_tensor(exx, eyy, exy, rotation_mrad):  # type: ignore[no-untyped-def]
    total, count = np.zeros((2, 2)), 0
    for i in range(len(exx)):
        if np.isfinite(exx[i]):
            xx, xy, yx, yy = _tensor(exx[i], eyy[i], exy[i], rotation_mrad[i] / 1000)
            total[0, 0] += xx
            total[0, 1] += xy
            total[1, 0] += yx
            total[1, 1] += yy
            count += 1
    return total / count if count else np.full((2, 2), np.nan)


@numba.njit(nogil=True, cache=True)
def _carried(exx, eyy, exy, rotation_mrad, right):  # type: ignore[no-untyped-def]
    out, count = np.empty((5, len(exx))), 0
    for i in range(len(exx)):
        if np.isfinite(exx[i]):
            xx, xy, yx, yy = _tensor(exx[i], eyy[i], exy[i], rotation_mrad[i] / 1000)
            fxx, fxy = xx * right[0, 0] + xy * right[1, 0], xx * right[0, 1] + xy * right[1, 1]
            fyx, fyy = yx * right[0, 0] + yy * right[1, 0], yx * right[0, 1] + yy * right[1, 1]
            along, across = fxx + fyy, fyx - fxy
            size = np.hypot(along, across)
            c, s = along / size, across / size
            out[0, count] = fxx * c - fxy * s - 1
            out[1, count] = fyx * s + fyy * c - 1
            out[2, count] = fxx * s + fxy * c
            out[3, count] = 1000 * np.arctan2(across, along)
            out[4, count] = (out[0, count] + out[1, count]) / 2
            count += 1
    return out[:, :count]


def mean_gradient(field: GpaField) -> FloatArray:
    """Mean deformation gradient (2, 2), x before y, of a GPA field against its frame's lattice; NaN when there is none."""
    parts = (np.ravel(part) for part in (field.exx, field.eyy, field.exy, field.rotation_mrad))
    mean: FloatArray = _mean_tensor(*parts)
    return mean


def carried(field: GpaField, right: FloatArray) -> FloatArray:
    """Components (5, M), in the order of `COMPONENTS`, of a GPA field's M known points times a gradient from the right."""
    parts = (np.ravel(part) for part in (field.exx, field.eyy, field.exy, field.rotation_mrad))
    values: FloatArray = _carried(*parts, np.ascontiguousarray(right))
    return values


def summaries_of(values: FloatArray, errors: tuple[float, ...]) -> dict[str, Summary]:
    """Mean and spread of each component over (5, M) values, with the standard errors of the means."""
    mean = values.mean(axis=1)
    spread = np.sqrt(((values - mean[:, None]) ** 2).mean(axis=1))
    return {name: Summary(float(m), float(s), e) for name, m, s, e in zip(COMPONENTS, mean, spread, errors, strict=True)}
