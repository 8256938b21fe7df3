"""Compile what lattice and strain need before the first frame arrives."""

from __future__ import annotations

import numpy as np

from atomid_live.lattice import find_lattice
from atomid_live.settings import StrainSettings
from atomid_live.strain.gpa import gpa
from atomid_live.strain.tracker import StrainTracker
from atomid_live.types import Detections, DriftEstimate, Frame, Origin


def warm_up() -> None:
    """Run a small made-up honeycomb crystal through lattice, GPA and tracker; leaves no trace but compiled code."""
    shape, a = (220, 260), np.array([[0.0, 16.0], [13.9, -8.0]])
    cells = np.stack(np.meshgrid(np.arange(-30, 31), np.arange(-30, 31), indexing="ij"), -1).reshape(-1, 2)
    points = np.concatenate([cells @ a, cells @ a + np.array([4.6, 8.0])]) + 110.3
    points = points[((points > 4) & (points < np.array(shape) - 5)).all(axis=1)]
    yx = points[np.lexsort((points[:, 1], points[:, 0]))]
    pixels = np.zeros(shape, np.float32)
    pixels[tuple(np.rint(yx).astype(int).T)] = 1.0
    settings = StrainSettings(reference="first:1")
    tracker = StrainTracker(settings)
    for k in range(2):
        moved = yx + np.array([0.0, 20.0 * k])
        moved = moved[moved[:, 1] < shape[1] - 5]
        n = len(moved)
        found = Detections(moved, np.ones(n), np.full((n, 2), 0.1), np.ones(n), np.zeros(n, np.int64), 9.2)
        frame = Frame(k, pixels, float(k), Origin("warm-up"), pixel_size_yx_nm=(0.02, 0.02))
        lattice = find_lattice(found, shape)
        drift = DriftEstimate(total_yx_px=(0.0, 20.0 * k))
        tracker.update(frame, found, lattice, drift, gpa(frame, lattice, settings))
