"""`evaluate scan`: what drift within the frame, row jitter and a distorted scan leave in the strain (E5, E6, calibration)."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from atomid_live import __version__
from atomid_live.detect.dog import DogDetector
from atomid_live.evaluate.metrics import match
from atomid_live.evaluate.report import place
from atomid_live.evaluate.tables import shown, table
from atomid_live.pipeline import Pipeline
from atomid_live.settings import DetectSettings, FrameSettings, Settings, StrainSettings
from atomid_live.simulate.acquire import FrameTruth, Session
from atomid_live.simulate.publish import as_frame
from atomid_live.simulate.scan import ScanErrors
from atomid_live.simulate.scenario import Scenario
from atomid_live.strain.distortion import SeenLattice, of_frames, of_pair, seen_lattice
from atomid_live.strain.reference import MATERIALS
from atomid_live.types import FloatArray, IntArray, Result, ScanMotion

Tell = Callable[[str], None]
Pair = tuple[float, float]
PIXEL_NM, CELL_NM = 0.0176, 0.3153
SHAPE = (512, 640)
JITTER_NM = 0.015
DRIFT_TARGET, COVER_LOW, COVER_HIGH = 5e-4, 63.0, 73.0
PERCENTS = (0.5, 1.0, 2.0)
SIGNS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


@dataclass(frozen=True, slots=True)
class DriftRow:
    """E5: mean of what is left over a run's frames, its standard deviation per frame, and the mean error that was claimed."""

    per_row: tuple[float, float]
    raw: tuple[float, float]
    left: tuple[float, float]
    spread: tuple[float, float]
    claimed: tuple[float, float]
    frames: int


@dataclass(frozen=True, slots=True)
class CoverRow:
    """E6: per cent of values within one standard error, by what it is a value of."""

    reference: str
    rows: float
    percent: dict[str, float] = field(default_factory=dict)
    count: int = 0
    rms_px: tuple[float, float, float, float] = (np.nan,) * 4


@dataclass(frozen=True, slots=True)
class CalibrationRow:
    """Error of scale x, scale y and shear found, and the errors claimed."""

    what: str
    error: tuple[float, float, float]
    sigma: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was measured."""

    drift: tuple[DriftRow, ...]
    cover: tuple[CoverRow, ...]
    calibration: tuple[CalibrationRow, ...]


def _scenario(**more: object) -> Scenario:
    given = {"crystal": "ws2", "shape": SHAPE, "pixel_size_nm": PIXEL_NM, "vacancy_fraction": 0.01, "contamination_e": 0.0}
    return Scenario(**{"scan": ScanErrors(), **given, **more})  # type: ignore[arg-type]


def _results(scenario: Scenario, reference: str) -> Iterator[tuple[FrameTruth, Result]]:
    settings = Settings(strain=StrainSettings(reference=reference))
    pipeline = Pipeline(DogDetector(DetectSettings(), FrameSettings()), settings)
    for made in Session(scenario):
        yield made.truth, pipeline.process(as_frame(scenario, made, made.index))


def drift_row(per_row: tuple[float, float], frames: int, seed: int) -> DriftRow:
    """One session with a steady drift of `per_row` (y, x) pixels per row, against the theoretical cell."""
    rows = SHAPE[0]
    scenario = _scenario(drift_px_per_frame=(per_row[0] * rows, per_row[1] * rows), frames=frames, seed=seed)
    offset = float(np.hypot(*scenario.cell_matrix_px[:, 0])) * PIXEL_NM / CELL_NM - 1
    raw, left, claimed = list[Pair](), list[Pair](), list[Pair]()
    for _, result in _results(scenario, "material:WS2"):
        seen, free = result.reading.strain, result.reading.strain_corrected
        if free:
            raw.append((seen["eyy"].mean - offset, seen["exy"].mean))
            left.append((free["eyy"].mean - offset, free["exy"].mean))
            claimed.append((free["eyy"].sem, free["exy"].sem))
    return DriftRow(per_row, _mean(raw), _mean(left), _mean(left, np.std), _mean(claimed), len(left))


def _mean(pairs: list[Pair], how: Callable[..., FloatArray] = np.mean) -> Pair:
    if not pairs:
        return np.nan, np.nan
    first, second = how(np.array(pairs), axis=0)
    return float(first), float(second)


def _reference_truth(truth: FrameTruth, found: FloatArray) -> tuple[IntArray, FloatArray]:
    """Columns found (index) and where they ideally are, matched through where the scan drew them."""
    i, j = match(found, truth.seen_yx_px, 6.0)
    return i, truth.columns.yx_px[j]


def cover_row(reference: str, rows: float, frames: int, seed: int) -> CoverRow:
    """Share of columns and frames whose unstrained specimen reads within one standard error of zero, 15 pm of row jitter."""
    rms = JITTER_NM / PIXEL_NM
    scenario = _scenario(scan=ScanErrors(jitter_yx_px=(rms, rms), jitter_rows=rows), frames=frames, seed=seed)
    within: dict[str, list[float]] = {}
    jitters, true_rms = list[Pair](), list[Pair]()
    for truth, result in _results(scenario, reference):
        if not result.reading.valid:
            continue
        field, index_ideal = result.strain, _reference_truth(truth, result.detections.yx_px)
        offset = _offset_of(scenario, reference)
        for name, expected in (("exx", offset), ("eyy", offset), ("exy", 0.0)):
            value, sigma = getattr(field, name), getattr(field, f"sigma_{name}")
            known = np.isfinite(value) & np.isfinite(sigma)
            within.setdefault(name, []).append(float(np.mean(np.abs(value[known] - expected) <= sigma[known])))
            if reference != "frame":
                mean = result.reading.strain[name]
                within.setdefault(f"frame's {name}", []).append(float(abs(mean.mean - expected) <= mean.sem))
        index, ideal = index_ideal
        away = result.detections.yx_px[index] - ideal
        total = np.hypot(result.detections.sigma_yx_px[index], np.array(result.reading.jitter.rms_yx_px))
        for axis, name in enumerate(("y", "x")):
            free = np.abs(away[:, axis] - np.median(away[:, axis])) <= total[:, axis]
            within.setdefault(f"position {name}", []).append(float(free.mean()))
        jitters.append(result.reading.jitter.rms_yx_px)
        drawn = truth.seen_yx_px - truth.columns.yx_px
        true_rms.append((float(drawn[:, 0].std()), float(drawn[:, 1].std())))
    percent = {name: 100 * float(np.mean(values)) for name, values in within.items()}
    return CoverRow(reference, rows, percent, len(jitters), (*_mean(jitters), *_mean(true_rms)))


def _offset_of(scenario: Scenario, reference: str) -> float:
    """Strain of the simulated crystal against the reference."""
    if not reference.startswith("material"):
        return 0.0
    return float(np.hypot(*scenario.cell_matrix_px[:, 0])) * PIXEL_NM / CELL_NM - 1


def _seen(scenario: Scenario) -> SeenLattice:
    return next(seen_lattice(result, ScanMotion((0.0, 0.0), (0.0, 0.0), "")) for _, result in _results(scenario, "frame"))


def calibration_rows(seed: int) -> tuple[CalibrationRow, ...]:
    """One frame, three, and a drifting pair of a scan stretched by 1.2 % and sheared by -0.8 %."""
    scan, cells = ScanErrors(stretch=0.012, shear=-0.008, jitter_yx_px=(0.2, 0.4)), MATERIALS["WS2"]
    still = [_scenario(scan=scan, frames=1, seed=seed + k) for k in range(3)]
    offset = 1 / (1 + _offset_of(still[0], "material:WS2"))
    truth = np.array([offset, offset * 1.012, -0.008 / 1.012])
    rows = SHAPE[0]
    drift = (0.01 * rows, -0.005 * rows)
    first = _scenario(scan=scan, frames=1, seed=seed, drift_px_per_frame=drift, angle_rad=0.15)
    second = replace(first, angle_rad=0.15 - np.pi / 2, drift_px_per_frame=(-drift[1], drift[0]))
    lattices = [_seen(scenario) for scenario in still]
    found = {
        "one frame": of_frames(lattices[:1], cells),
        "three frames": of_frames(lattices, cells),
        "two scans at 90 degrees, drifting": of_pair(_seen(first), _seen(second), cells),
    }
    told = []
    for what, each in found.items():
        error = np.array([*each.scale_xy, each.shear]) - truth
        told.append(CalibrationRow(what, (error[0], error[1], error[2]), (*each.sigma_scale_xy, each.sigma_shear)))
    return tuple(told)


def measure(frames: int, seed: int, tell: Tell) -> Findings:
    """Run everything; `frames` per run."""
    drift = []
    for percent in PERCENTS:
        for sign_y, sign_x in SIGNS:
            tell(f"drift of {sign_y * percent:+.1f}, {sign_x * percent:+.1f} % per row (y, x)")
            drift.append(drift_row((sign_y * percent / 100, sign_x * percent / 100), min(frames, 8), seed))
    cover = []
    for reference, rows in (("material:WS2", 3.0), ("first:5", 3.0), ("first:5", 10.0)):
        tell(f"row jitter over {rows:.0f} rows against {reference}")
        cover.append(cover_row(reference, rows, frames, seed + 100))
    tell("calibration")
    return Findings(tuple(drift), tuple(cover), calibration_rows(seed + 200))


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def markdown(findings: Findings, frames: int) -> str:
    """The section of the results page."""
    rows, cols = SHAPE
    text = [
        "# Scan distortion",
        "",
        f"Written by `atomid-live evaluate scan --frames {frames}`. WS2, {cols} x {rows} pixels of {1000 * PIXEL_NM:g} pm, "
        f"through detector (`dog`), drift and strain; atomid-live {__version__}, Python {platform.python_version()}.",
        "",
        "## Drift within the frame (E5)",
        "",
        "Steady drift; strain against the theoretical cell as seen, and what is left after correction by the measured drift: "
        "mean over the frames, spread of single frames, and the mean error claimed for one. In per cent.",
        "",
    ]
    head = ("drift per row y, x", "frames", "seen eyy", "seen exy", "left eyy", "left exy", "spread", "claimed")
    lines = [
        (
            f"{100 * r.per_row[0]:+.1f}, {100 * r.per_row[1]:+.1f}", str(r.frames),
            *(shown(100 * v, 3) for v in (*r.raw, *r.left)),
            *(f"{shown(100 * pair[0], 3)}, {shown(100 * pair[1], 3)}" for pair in (r.spread, r.claimed)),
        )
        for r in findings.drift
    ]  # fmt: skip
    worst = max((abs(v) for r in findings.drift for v in r.left), default=np.nan)
    known = [r for r in findings.drift if r.frames]
    met = len(known) == len(findings.drift) and worst <= DRIFT_TARGET
    text += [*table(head, lines), f"Largest mean residual {100 * worst:.3f} %; target 0.050 %: {_verdict(met)}.", ""]
    text += [
        "## Error bars under row jitter (E6)",
        "",
        f"{1000 * JITTER_NM:.0f} pm of jitter on either axis. Per cent of columns (and of frames, for their means) within one "
        "standard error; 68 is right, 63 to 73 the target for columns. Jitter rms is of the columns, y and x: found, and true.",
        "",
    ]
    names = list(dict.fromkeys(name for r in findings.cover for name in r.percent))
    lines = [
        (f"{r.reference}, {r.rows:.0f} rows", str(r.count), *(shown(r.percent.get(name, np.nan), 1) for name in names),
         f"{r.rms_px[0]:.2f}, {r.rms_px[1]:.2f}", f"{r.rms_px[2]:.2f}, {r.rms_px[3]:.2f}")
        for r in findings.cover
    ]  # fmt: skip
    text += table(("reference, correlation", "frames", *names, "rms found px", "rms true px"), lines)
    columns = [v for r in findings.cover for name, v in r.percent.items() if not name.startswith("frame")]
    met = all(COVER_LOW <= v <= COVER_HIGH for v in columns)
    text += [f"Columns from {min(columns):.1f} to {max(columns):.1f} %: {_verdict(met)}.", "", "## Calibration", ""]
    text += ["Error of what `calibrate` finds, and the standard error it claims, in per cent.", ""]
    lines = [
        (r.what, *(f"{100 * e:+.3f} ± {100 * s:.3f}" for e, s in zip(r.error, r.sigma, strict=True)))
        for r in findings.calibration
    ]
    text += table(("from", "scale x", "scale y", "shear"), lines)
    return "\n".join(text).rstrip() + "\n"


def evaluate_scan(frames: int, seed: int, page: Path | None, tell: Tell) -> Findings:
    """Measure, and write the section of the results page where one is named."""
    findings = measure(frames, seed, tell)
    section = markdown(findings, frames)
    if page is not None:
        place(page, section, "scan")
    print(section)
    return findings
