"""Scene S18: frames made of multislice cells, and their twins by the linear model that all other scenes use.

`multislice.npz` was made by scripts/multislice_set.py (abTEM, static lattice) and holds cells, not frames.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates

from atomid_live.evaluate.scenes.expose import (
    CURRENT_PA,
    DWELL_US,
    Conditions,
    Exposure,
    digitise,
    expose,
    truth_of,
)
from atomid_live.evaluate.scenes.layout import MARGIN_PX, Layout, bright_only
from atomid_live.evaluate.scenes.truth import SceneImage
from atomid_live.simulate.crystals import Crystal, make
from atomid_live.simulate.imaging import electrons_per_pixel
from atomid_live.simulate.lattices import fill, lattice_matrix
from atomid_live.types import FloatArray

CELLS = Path(__file__).with_name("multislice.npz")
# What the focused probe of 21 mrad itself measures; the source makes up the rest of a real column's width.
PROBE_NM = 0.020
LINEAR = " linear"
PIXEL_NM = 0.0124


@lru_cache(maxsize=1)
def _cells() -> tuple[dict[str, dict[str, Any]], dict[str, FloatArray]]:
    with np.load(CELLS) as stored:
        about = {each["name"]: each for each in json.loads(str(stored["about"]))}
        return about, {name: np.asarray(stored[name], np.float64) for name in about}


def names() -> tuple[str, ...]:
    """Names of the cells, e.g. "MoS2 x 3" for three layers."""
    return tuple(_cells()[0])


def crystal_of(name: str) -> Crystal:
    """The cell's projected columns: atoms over one another, layer upon layer, are one column."""
    about = _cells()[0][name]
    a, b = (side / 10 for side in about["sides_xy_angstrom"])
    columns: dict[tuple[float, float], Counter[str]] = {}
    for symbol, x, y, _ in about["atoms"]:
        place = (round(x / 10 / a % 1, 5) % 1, round(y / 10 / b % 1, 5) % 1)
        columns.setdefault(place, Counter())[symbol] += about["layers"]
    atoms = tuple(("+".join(f"{symbol}*{n}" for symbol, n in found.items()), u, v) for (u, v), found in columns.items())
    return make(name, a, b, 90.0, atoms)


def _blurred(cell: FloatArray, sides_yx_nm: tuple[float, float], sigma_nm: float) -> FloatArray:
    ky, kx = (np.fft.fftfreq(n, side / n) for n, side in zip(cell.shape, sides_yx_nm, strict=True))
    factor = np.exp(-2 * np.pi**2 * sigma_nm**2 * (ky[:, None] ** 2 + kx[None, :] ** 2))
    return np.asarray(np.fft.ifft2(np.fft.fft2(cell) * factor).real)


def multislice(
    rng: np.random.Generator, shape: tuple[int, int], name: tuple[str, str, int], *, cell: str, linear: bool
) -> SceneImage:
    """Frame of a cell at a random angle and place, by multislice or by the linear model; noise is drawn alike."""
    # thick crystals scatter more: the dose keeps the brightest column of any at that of one tungsten layer
    crystal = crystal_of(cell)
    dose = min(1.0, 0.02 / max(crystal.cross_section_A2))
    c = replace(Conditions(PIXEL_NM, dose=dose), bits=int(rng.choice([8, 16])))
    angle, shift = float(rng.uniform(0, 2 * np.pi)), rng.uniform(-20.0, 20.0, 2)
    columns = fill(crystal, shape, PIXEL_NM, angle, (float(shift[0]), float(shift[1])), None, MARGIN_PX)
    layout = bright_only(Layout(columns, np.array(crystal.sites)[columns.site]))
    exposure = expose(rng, layout, c, shape)
    if not linear:
        sampled = _sampled(cell, crystal, c, shape, (np.array(shape) - 1) / 2 + shift, angle)
        beam = electrons_per_pixel(CURRENT_PA, DWELL_US) * c.dose
        exposure = Exposure(
            np.asarray(exposure.background + beam * np.maximum(sampled, 0), np.float32),
            exposure.background,
            exposure.seen_yx_px,
        )
    truth = truth_of(layout, exposure, c, shape)
    return SceneImage(*name, digitise(rng, exposure.expected, c), PIXEL_NM, c.sigma_px, truth)


def _sampled(
    cell: str, crystal: Crystal, c: Conditions, shape: tuple[int, int], origin_yx_px: FloatArray, angle_rad: float
) -> FloatArray:
    """The cell repeated over the frame, shape `shape`, as a fraction of the beam."""
    array = _cells()[1][cell]
    a, b = float(np.hypot(*crystal.a_yx_nm)), float(np.hypot(*crystal.b_yx_nm))
    smooth = _blurred(array, (b, a), float(np.sqrt(c.sigma_nm**2 - PROBE_NM**2)))
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    matrix = np.linalg.inv(lattice_matrix(crystal, (PIXEL_NM, PIXEL_NM), angle_rad))
    dy, dx = y - origin_yx_px[0], x - origin_yx_px[1]
    along_a, along_b = matrix[0, 0] * dy + matrix[0, 1] * dx, matrix[1, 0] * dy + matrix[1, 1] * dx
    where = np.stack([along_b * array.shape[0], along_a * array.shape[1]])
    return np.asarray(map_coordinates(smooth, where, order=3, mode="grid-wrap"))


__all__ = ["CELLS", "LINEAR", "crystal_of", "multislice", "names"]
