"""Neighbours of a column within the Gaussian window, worked out once per lattice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from atomid_live.lattice.sites import LatticeFit
from atomid_live.types import FloatArray, IntArray

CUT_WINDOWS = 3.3
STRAY_SPACINGS = 0.35
STRAY_PER_PX = 0.08


@dataclass(frozen=True, slots=True)
class Template:
    """Neighbours of a column of each class within the cut, grouped by class.

    `run[s, c] : run[s, c + 1]` are those of class c around one of class s; `full[s, c]` holds the sums of g, g y, g x, g yy,
    g yx, g xx and of g^2 likewise over them, so that a fit need only take off what is missing. `stride` is the way to each
    neighbour in (classes, rows, columns) of nodes.
    """

    run: IntArray
    stride: IntArray
    difference: FloatArray
    weight: FloatArray
    stray2: FloatArray
    full: FloatArray
    span: int


def template_for(fit: LatticeFit, window: float, cells: int) -> Template:
    """Template of a lattice; one reference serves many frames, so the last few are kept."""
    offset = np.round(fit.origin_yx_px - fit.origin_yx_px[0], 6) + 0.0
    return _template_of(fit.matrix.tobytes(), offset.tobytes(), window, -(-cells // 8) * 8)


@lru_cache(maxsize=8)
def _template_of(matrix_bytes: bytes, origin_bytes: bytes, window: float, cells: int) -> Template:
    matrix = np.frombuffer(matrix_bytes).reshape(2, 2)
    origin = np.frombuffer(origin_bytes).reshape(-1, 2)
    spacing = float(np.sqrt(abs(np.linalg.det(matrix)) / len(origin)))
    reach = CUT_WINDOWS * window
    inverse = np.linalg.inv(matrix)
    span = int(np.ceil(np.hypot(inverse[:, 0], inverse[:, 1]) * reach).max()) + 1
    span = min(span, cells + 1)
    axis = np.arange(-span, span + 1)
    step = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    shift = np.linalg.solve(matrix, (origin - origin[0]).T).T
    classes = len(shift)
    run = np.zeros((classes, classes + 1), np.int64)
    steps, differences, furthest = [], [], 0
    count = 0
    for own in range(classes):
        run[own, 0] = count
        for other in range(classes):
            near = np.rint(shift[other] - shift[own]).astype(np.int64)
            d = (step - near + shift[other] - shift[own]) @ matrix.T
            keep = (d**2).sum(axis=1) <= reach**2
            there = step[keep] - near
            steps.append(np.column_stack([np.full(len(there), other - own), there]))
            differences.append(d[keep])
            count += int(keep.sum())
            run[own, other + 1] = count
            furthest = max(furthest, int(np.abs(there).max(initial=0)))
    y, x = np.concatenate(differences).T
    square = y * y + x * x
    g = np.exp(-0.5 * square / window**2)
    moments = np.stack([h * m for h in (g, g * g) for m in (np.ones_like(g), y, x, y * y, y * x, x * x)], axis=1)
    total = np.concatenate([np.zeros((1, 12)), np.cumsum(moments, axis=0)])
    full = total[run[:, 1:]] - total[run[:, :-1]]
    stray2 = (STRAY_SPACINGS * spacing + STRAY_PER_PX * np.sqrt(square)) ** 2
    return Template(run, np.concatenate(steps), np.stack([y, x], 1), g, stray2, full, furthest)
