"""Real frames: a strain profile across PbTiO3/SrRuO3 layers, and nanoparticles, as numbers only."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from atomid_live.errors import UsageError
from atomid_live.evaluate.real_frames import labelled
from atomid_live.evaluate.scenes.truth import SceneImage
from atomid_live.evaluate.strain_scenes import Detect, Line, measure
from atomid_live.settings import StrainSettings
from atomid_live.types import Detections, FloatArray

SETS = ("nanoparticle", "PbTiO3/SrRuO3")
STRETCHES = 8
WINDOW_NM = 1.0


def real_lines(folder: Path | None, detect: Detect) -> Iterator[Line]:
    """Strain of the frames that are in a folder of real data; none without one."""
    if folder is None or not folder.is_dir():
        return
    try:
        images = [image for image in labelled(folder) if image.scene in SETS]
    except (UsageError, OSError, ImportError):
        return
    for image in images:
        frame = image.frame()
        for source, found in (("labels", _labels(image)), ("found", detect(frame))):
            field, reading = measure(frame, found, StrainSettings(reference="frame", window_nm=WINDOW_NM))
            case = f"{image.scene} {image.variant}, {source}"
            known = np.isfinite(field.exx)
            if not reading.valid or not known.any():
                yield Line("real", f"{case}: not valid, {reading.reason}", {"columns": float(len(found))})
                continue
            yield Line("real", case, _summary(field.exx[known], field.eyy[known], field.sigma[known], len(found)))
            if image.scene == SETS[1]:
                yield from _profile(case, found.yx_px[known], field.exx[known], field.eyy[known], field.sigma[known])


def _labels(image: SceneImage) -> Detections:
    yx = image.truth.yx_px
    yx = np.ascontiguousarray(yx[np.lexsort((yx[:, 1], yx[:, 0]))])
    n = len(yx)
    from scipy.spatial import cKDTree

    spacing = float(np.median(cKDTree(yx).query(yx, 2)[0][:, 1]))
    return Detections(yx, np.ones(n), np.full((n, 2), np.nan), np.ones(n), np.zeros(n, np.int64), spacing)


def _summary(exx: FloatArray, eyy: FloatArray, sigma: FloatArray, count: int) -> dict[str, float]:
    return {
        "columns": float(count), "std(exx)": float(exx.std()), "std(eyy)": float(eyy.std()), "sigma": float(np.median(sigma)),
    }  # fmt: skip


def _profile(case: str, yx: FloatArray, exx: FloatArray, eyy: FloatArray, sigma: FloatArray) -> Iterator[Line]:
    """Mean strain along the long side of the frame in equal stretches."""
    long = int(np.ptp(yx, axis=0).argmax())
    edges = np.quantile(yx[:, long], np.linspace(0, 1, STRETCHES + 1))
    for low, high in pairwise(edges):
        inside = (yx[:, long] >= low) & (yx[:, long] <= high)
        numbers = {"columns": float(inside.sum()), "exx": float(exx[inside].mean()), "eyy": float(eyy[inside].mean())}
        yield Line("real", f"{case}: px {low:.0f} to {high:.0f}", numbers | {"sigma": float(np.median(sigma[inside]))})
