"""Thesis figure 11 on a frame with known truth: strain from several methods' positions, and GPA, at one reference and window.

The methods that come from networks are shown through our own network's map, decoded their way: whole pixels from pooling and
box suppression for the thesis's, centres of connected regions for AtomSegNet's. Rivals get their best parameters for this
very frame.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from atomid_live.evaluate.contestants import Contestant
from atomid_live.evaluate.rivals.atomap import Atomap, absent_reason
from atomid_live.evaluate.rivals.blobs import blobs
from atomid_live.evaluate.rivals.findfoci import findfoci_best
from atomid_live.evaluate.rivals.our_map import frame_map
from atomid_live.evaluate.rivals.thesis_decode import thesis_decode
from atomid_live.evaluate.scenes.truth import SceneImage, SceneTruth
from atomid_live.evaluate.strain_scenes import A_NM, PIXEL_NM, QUIET, Line, cif_text, interior, measure
from atomid_live.settings import StrainSettings
from atomid_live.simulate.acquire import Session, SimulatedFrame
from atomid_live.simulate.publish import as_frame
from atomid_live.types import Detections, FloatArray, Frame

REGION_LEVEL, LEAST_REGION = 0.5, 3
METAL_PART = 0.6
REAL_STRAIN = 0.005
OURS = "ours, metal alone"


def _scene(made: SimulatedFrame) -> SceneImage:
    truth = made.truth
    strong = truth.electrons > METAL_PART * truth.electrons.max()
    count = len(truth.seen_yx_px)
    nothing = np.full(count, np.nan)
    told = SceneTruth(
        truth.seen_yx_px, truth.seen_yx_px, np.zeros(count, np.int64), np.full(count, ""), truth.electrons, truth.d_prime,
        nothing, strong, ~strong, periodic=True,
    )  # fmt: skip
    return SceneImage("strain", "MoS2", 0, made.pixels, PIXEL_NM, QUIET.probe.sigma_px, told)


def _regions(heat: np.ndarray) -> FloatArray:
    """Centres of mass of connected regions of a map above half."""
    label, count = ndimage.label(heat > REGION_LEVEL)
    index = np.arange(1, count + 1)
    large = index[np.asarray(ndimage.sum_labels(np.ones_like(heat), label, index)) >= LEAST_REGION]
    return np.asarray(ndimage.center_of_mass(heat, label, large), np.float64).reshape(-1, 2)


def _metal(yx: FloatArray, truth: SceneTruth, spacing_px: float) -> Detections:
    """Positions nearest to a metal column, in our own type: every method is compared on the same columns."""
    from scipy.spatial import cKDTree

    distance, who = cKDTree(truth.yx_px).query(yx)
    kept = yx[truth.target[who] & (distance < 0.35 * spacing_px)]
    kept = np.ascontiguousarray(kept[np.lexsort((kept[:, 1], kept[:, 0]))])
    n = len(kept)
    nan = np.full((n, 2), np.nan)
    return Detections(kept, np.ones(n), nan, np.ones(n), np.zeros(n, np.int64), spacing_px)


def methods(contestant: Contestant, atomap_python: Path | None) -> tuple[list[Line], list[str]]:
    """Mean and spread of hydrostatic strain of each method on one frame of known strain; and who could not take part."""
    scenario = replace(
        QUIET, shape=(1024, 1024), strain_exx_eyy_exy=(REAL_STRAIN, REAL_STRAIN, 0.0), strain_from_frame=0,
        strain_until_frame=1, seed=7110,
    )  # fmt: skip
    made = Session(scenario).frame(1)
    frame, scene = as_frame(scenario, made, 1), _scene(made)
    absent: list[str] = []
    lines: list[Line] = []
    with ExitStack() as closing, tempfile.TemporaryDirectory(prefix="atomid-live-cell-") as folder:
        path = Path(folder) / "cell.cif"
        path.write_text(cif_text(A_NM, A_NM, 120.0), encoding="ascii")
        settings = StrainSettings(reference=str(path))
        found = dict(_positions(contestant, frame, scene))
        reason = absent_reason(atomap_python)
        if reason or atomap_python is None:
            absent.append(f"Atomap: {reason}")
        else:
            worker = Atomap(atomap_python)
            closing.callback(worker.close)
            found["Atomap"] = worker(scene).yx_px
        true = scene.truth.yx_px[scene.truth.target]
        spacing = A_NM / PIXEL_NM
        lines.append(_shipped_line(frame, contestant.detections(frame), settings))
        for name, yx in (("truth, as scanned", true), *found.items()):
            lines.append(_line(name, yx, scene, frame, settings))
        lines.append(_gpa_line(frame, _metal(found[OURS], scene.truth, spacing), settings))
    return lines, absent


def _positions(contestant: Contestant, frame: Frame, scene: SceneImage) -> Iterator[tuple[str, FloatArray]]:
    yield OURS, contestant(frame).yx_px
    assert contestant.network is not None
    heat, _ = frame_map(frame, contestant.network)
    if heat is not None:
        yield "thesis decode of our map (AtomID-type)", thesis_decode(heat, scene).yx_px
        yield "regions of our map (AtomSegNet-type)", _regions(heat)
    yield "FindFoci", findfoci_best(scene).yx_px
    yield "LoG", blobs("LoG", scene.pixels, scene).yx_px


def _line(name: str, yx: FloatArray, scene: SceneImage, frame: Frame, settings: StrainSettings) -> Line:
    found = _metal(yx, scene.truth, A_NM / PIXEL_NM)
    field, reading = measure(frame, found, settings)
    inside = interior(found.yx_px, frame.shape, field.window_px) & np.isfinite(field.exx)
    values = field.hydrostatic[inside]
    off = float(np.sqrt(np.mean((values - REAL_STRAIN) ** 2))) if len(values) else float("nan")
    mean = reading.strain["hydrostatic"].mean if reading.strain else float("nan")
    return Line(
        "fig. 11", name, {"columns": float(len(found)), "mean": mean, "spread": float(values.std()), "rms from truth": off}
    )


def _shipped_line(frame: Frame, found: Detections, settings: StrainSettings) -> Line:
    """Ours as it ships: every column found, each class with its weight."""
    field, reading = measure(frame, found, settings)
    inside = interior(found.yx_px, frame.shape, field.window_px) & np.isfinite(field.exx)
    values = field.hydrostatic[inside]
    off = float(np.sqrt(np.mean((values - REAL_STRAIN) ** 2)))
    numbers = {"columns": float(len(found)), "mean": reading.strain["hydrostatic"].mean, "spread": float(values.std())}
    return Line("fig. 11", "ours as shipped, every column", numbers | {"rms from truth": off})


def _gpa_line(frame: Frame, found: Detections, settings: StrainSettings) -> Line:
    _, reading = measure(frame, found, settings)
    told = reading.gpa["hydrostatic"]
    off = float(np.hypot(told.mean - REAL_STRAIN, told.std))
    return Line("fig. 11", "GPA", {"columns": float("nan"), "mean": told.mean, "spread": told.std, "rms from truth": off})
