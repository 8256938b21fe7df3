"""A small renderer of its own, so that the detector is not tested against the code it may be trained with."""

from __future__ import annotations

import numpy as np

from atomid_live.types import Frame, Origin


def lattice(shape, a, b, basis, margin=15.0):
    """Columns (y, x, weight, site) of a crystal with cell vectors a, b (y, x) and basis (u, v, weight)."""
    i, j = np.meshgrid(np.arange(-150, 151), np.arange(-150, 151))
    parts = []
    for site, (u, v, weight) in enumerate(basis):
        y = 3.7 + (i + u) * a[0] + (j + v) * b[0]
        x = 5.2 + (i + u) * a[1] + (j + v) * b[1]
        parts.append(np.stack([y.ravel(), x.ravel(), np.full(y.size, weight), np.full(y.size, float(site))], 1))
    every = np.concatenate(parts)
    keep = ((every[:, :2] > -margin) & (every[:, :2] < np.asarray(shape) + margin)).all(1)
    return every[keep]


def hexagonal(spacing, angle):
    """Cell vectors of a hexagonal lattice."""
    return tuple((spacing * np.sin(t), spacing * np.cos(t)) for t in (angle, angle + 2 * np.pi / 3))


def render(shape, columns, sigma, electrons, background):
    """Expected electrons per pixel."""
    image = np.full(shape, float(background))
    half = int(5 * sigma + 1)
    for y, x, weight in columns[:, :3]:
        r0, r1 = max(0, int(y) - half), min(shape[0], int(y) + half + 2)
        c0, c1 = max(0, int(x) - half), min(shape[1], int(x) + half + 2)
        if r1 > r0 and c1 > c0:
            gy = np.exp(-0.5 * ((np.arange(r0, r1) - y) / sigma) ** 2)
            gx = np.exp(-0.5 * ((np.arange(c0, c1) - x) / sigma) ** 2)
            image[r0:r1, c0:c1] += weight * electrons / (2 * np.pi * sigma**2) * np.outer(gy, gx)
    return image


def frame(pixels, pixel_size_nm=float("nan")):
    """A frame around an array."""
    return Frame(0, pixels, 0.0, Origin("test"), pixel_size_yx_nm=(pixel_size_nm, pixel_size_nm))
