"""What is wrong with a crystal: missing, replaced and added atoms, holes, strain fields. Small pure functions on `Columns`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from atomid_live.simulate.lattices import Columns
from atomid_live.types import FloatArray, IntArray


def _chosen(rng: np.random.Generator, columns: Columns, fraction: float, sites: Sequence[int] | None) -> IntArray:
    hit = rng.random(len(columns)) < fraction
    if sites is not None:
        hit &= np.isin(columns.site, np.asarray(sites))
    return np.flatnonzero(hit).astype(np.int64)


def vacancies(
    rng: np.random.Generator, columns: Columns, fraction: float, sites: Sequence[int] | None = None
) -> tuple[Columns, Columns]:
    """Take out each column (of `sites`, or any) with probability `fraction`; return what is left and what was taken."""
    gone = np.zeros(len(columns), dtype=np.bool_)
    gone[_chosen(rng, columns, fraction, sites)] = True
    return columns.take(~gone), columns.take(gone)


def thinned(
    rng: np.random.Generator, columns: Columns, fraction: float, sites: Sequence[int], remaining: float = 0.5
) -> Columns:
    """Leave `remaining` of the cross-section in a fraction of the columns, e.g. one sulphur of two."""
    return scaled(columns, _chosen(rng, columns, fraction, sites), remaining)


def substituted(
    rng: np.random.Generator, columns: Columns, fraction: float, sites: Sequence[int], section_A2: float
) -> Columns:
    """Give a fraction of the columns on `sites` the cross-section of another element, in square angstrom."""
    sections = columns.cross_section_A2.copy()
    sections[_chosen(rng, columns, fraction, sites)] = section_A2
    return replace(columns, cross_section_A2=sections)


def scaled(columns: Columns, which: IntArray, factor: float) -> Columns:
    """Multiply the cross-section of some columns."""
    sections = columns.cross_section_A2.copy()
    sections[which] *= factor
    return replace(columns, cross_section_A2=sections)


def adatoms(rng: np.random.Generator, count: int, shape: tuple[int, int], section_A2: float, margin_px: float = 0.0) -> Columns:
    """Single atoms strewn evenly over a frame of `shape` and its margin; their site is -1."""
    low = np.full(2, -margin_px)
    high = np.array(shape) - 1 + margin_px
    yx = rng.uniform(low, high, (count, 2))
    return Columns(yx, np.full(count, section_A2), np.full(count, -1, np.int64), np.zeros((count, 2), np.int64))


def without_disc(columns: Columns, centre_yx_px: tuple[float, float], radius_px: float) -> Columns:
    """Cut a round hole."""
    return columns.take(np.hypot(*(columns.yx_px - np.asarray(centre_yx_px)).T) >= radius_px)


def half_plane(columns: Columns, through_yx_px: tuple[float, float], normal_yx: tuple[float, float]) -> Columns:
    """Keep the side of a straight edge that `normal_yx` points to."""
    return columns.take((columns.yx_px - np.asarray(through_yx_px)) @ np.asarray(normal_yx) >= 0)


def inclusion_displacement(yx_px: FloatArray, centre_yx_px: tuple[float, float], radius_px: float, misfit: float) -> FloatArray:
    """Displacement in px, shape (N, 2), of a misfitting disc: uniform `misfit` inside, pure shear falling as 1/r^2 outside.

    The plane form of Eshelby's (1957) dilating inclusion: u = misfit * r inside, misfit * R^2 / r outside.
    """
    from_centre = yx_px - np.asarray(centre_yx_px)
    r2 = np.maximum((from_centre**2).sum(1, keepdims=True), 1e-12)
    return np.asarray(misfit * from_centre * np.minimum(1.0, radius_px**2 / r2))


def gradient_displacement(yx_px: FloatArray, strain_per_px: float, centre_yx_px: tuple[float, float]) -> FloatArray:
    """Displacement in px, shape (N, 2), whose exx grows by `strain_per_px` along x from zero at the centre."""
    x = yx_px[:, 1] - centre_yx_px[1]
    return np.stack([np.zeros_like(x), strain_per_px * x * x / 2], axis=1)
