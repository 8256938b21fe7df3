"""Strain against known truth (E1-E4, E7): simulated pictures through the whole chain, and points with known noise."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import pi, sqrt
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from atomid_live.lattice import find_lattice
from atomid_live.settings import StrainSettings
from atomid_live.simulate.acquire import Session
from atomid_live.simulate.publish import as_frame
from atomid_live.simulate.scan import ScanErrors
from atomid_live.simulate.scenario import Scenario
from atomid_live.strain.gpa import gpa
from atomid_live.strain.tracker import StrainTracker
from atomid_live.types import Detections, DriftEstimate, FloatArray, Frame, Origin, Reading, StrainField

Detect = Callable[[Frame], Detections]
A_NM, PIXEL_NM = 0.3160, 0.0124
MARGIN_WINDOWS = 3.2
CURRENTS_PA, WINDOWS_NM = (20.0, 15.0, 10.0), (0.3, 0.5, 1.0)
ZERO_NUMBERS = ("metal position error pm", "std(exx)", "std(hydrostatic)", "spread / formula", "z-std")
UNIFORM = (-0.02, -0.01, -0.005, 0.0, 0.005, 0.01, 0.02)
QUIET = Scenario(
    crystal="mos2", shape=(640, 768), pixel_size_nm=PIXEL_NM, frames=2, scan=ScanErrors(), contamination_e=0.0,
    vacancy_fraction=0.0, background_e=2.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table: scene, what was varied, numbers by name, and the verdict on the target ("" without one)."""

    scene: str
    case: str
    numbers: dict[str, float]
    target: str = ""
    met: bool | None = None


def cif_text(a_nm: float, b_nm: float, gamma_deg: float) -> str:
    """A crystal file with a cell alone."""
    return (
        f"data_cell\n_cell_length_a {10 * a_nm:.5f}\n_cell_length_b {10 * b_nm:.5f}\n_cell_length_c 10\n"
        f"_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma {gamma_deg}\n"
    )


def measure(frame: Frame, found: Detections, settings: StrainSettings) -> tuple[StrainField, Reading]:
    """Lattice, GPA and strain of one frame alone."""
    lattice = find_lattice(found, frame.shape)
    phase = gpa(frame, lattice, settings)
    return StrainTracker(settings).update(frame, found, lattice, DriftEstimate(total_yx_px=(0.0, 0.0)), phase)


def interior(yx_px: FloatArray, shape: tuple[int, int], window_px: float) -> np.ndarray:
    """Columns whose window lies within the frame, shape (N,), bool."""
    margin = MARGIN_WINDOWS * window_px
    return np.asarray(((yx_px > margin) & (yx_px < np.array(shape) - 1 - margin)).all(axis=1))


def position_sigma(found: FloatArray, truth: FloatArray, radius_px: float) -> float:
    """Rms per axis of found positions about the nearest true ones, mean taken off."""
    distance, who = cKDTree(truth).query(found)
    near = distance < radius_px
    return float((found - truth[who])[near].std())


def formula(sigma_px: float, density_px2: float, window_px: float) -> float:
    """Standard deviation of exx for equal errors: sigma / (sqrt(8 pi rho) w^2)."""
    return sigma_px / (sqrt(8 * pi * density_px2) * window_px**2)


def zero_strain(detect: Detect, images: int) -> Iterator[Line]:
    """E1: unstrained frames, three doses, three windows; spread over formula, mean over the frame, honesty of the errors."""
    for current in CURRENTS_PA:
        seen = []
        for seed in range(images):
            session = Session(replace(QUIET, shape=(1024, 1024), current_pa=current, seed=7100 + seed))
            made = session.frame(0)
            frame = as_frame(session.scenario, made, 0)
            seen.append((frame, detect(frame), made.truth.seen_yx_px))
        for window_nm in WINDOWS_NM:
            rows = [_zero(frame, found, truth, window_nm) for frame, found, truth in seen]
            mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
            within = abs(mean["spread / formula"] - 1) <= 0.1
            yield Line("E1", f"{current:g} pA, w {window_nm:g} nm", mean, "spread / formula within 10 %", within)


def _zero(frame: Frame, found: Detections, truth: FloatArray, window_nm: float) -> dict[str, float]:
    settings = StrainSettings(reference="frame", window_nm=window_nm)
    lattice = find_lattice(found, frame.shape)
    if not lattice.found:
        return dict.fromkeys(ZERO_NUMBERS, float("nan"))
    field, _ = measure(frame, found, settings)
    inside = interior(found.yx_px, frame.shape, field.window_px) & np.isfinite(field.exx)
    area = float(np.prod(np.ptp(found.yx_px, axis=0)))
    # classes weigh by their variance, so the densities over variances add up
    worth = 0.0
    for kind in range(int(lattice.site.max(initial=-1)) + 1):
        own = found.yx_px[lattice.site == kind]
        worth += len(own) / area / position_sigma(own, truth, 0.4 * found.spacing_px) ** 2
    expected = formula(1.0, worth, field.window_px)
    sigma = position_sigma(found.yx_px[lattice.site == 0], truth, 0.4 * found.spacing_px)
    z = np.concatenate([field.exx[inside] / field.sigma_exx[inside], field.eyy[inside] / field.sigma_eyy[inside]])
    return {
        "metal position error pm": 1000 * sigma * PIXEL_NM,
        "std(exx)": float(field.exx[inside].std()),
        "std(hydrostatic)": float(field.hydrostatic[inside].std()),
        "spread / formula": float((field.exx[inside].std() + field.eyy[inside].std()) / 2 / expected),
        "z-std": float(z.std()),
    }


def uniform(detect: Detect) -> Iterator[Line]:
    """E2: hydrostatic strain, shear and rotation of the whole specimen against the theoretical cell of a CIF file."""
    with tempfile.TemporaryDirectory(prefix="atomid-live-cell-") as folder:
        path = Path(folder) / "cell.cif"
        path.write_text(cif_text(A_NM, A_NM, 120.0), encoding="ascii")
        settings = StrainSettings(reference=str(path))
        yield _slope(detect, settings, "hydrostatic", [(e, (e, e, 0.0)) for e in UNIFORM])
        yield _slope(detect, settings, "exx", [(e, (e, 0.0, 0.0)) for e in (-0.01, 0.0, 0.01)])
        yield _slope(detect, settings, "exy", [(e, (0.0, 0.0, e)) for e in (-0.01, 0.0, 0.01)])


def _slope(detect: Detect, settings: StrainSettings, name: str, cases: list[tuple[float, tuple[float, float, float]]]) -> Line:
    applied, columns, phase = [], [], []
    for value, tensor in cases:
        scenario = replace(QUIET, strain_exx_eyy_exy=tensor, strain_from_frame=0, strain_until_frame=1, seed=7200)
        session = Session(scenario)
        frame = as_frame(scenario, session.frame(1), 1)
        _, reading = measure(frame, detect(frame), settings)
        applied.append(value)
        columns.append(reading.strain[name].mean)
        phase.append(reading.gpa[name].mean)
    (slope, offset), (gpa_slope, gpa_offset) = (np.polyfit(applied, each, 1) for each in (columns, phase))
    numbers = {"slope": slope, "offset": offset, "slope GPA": gpa_slope, "offset GPA": gpa_offset}
    met = bool(abs(slope - 1) <= 0.02 and abs(offset) <= 2e-4)
    return Line("E2", name, {key: float(v) for key, v in numbers.items()}, "slope 1 within 0.02, offset 2e-4", met)


def sites(detect: Detect) -> Line:
    """E4: ReS2 strained by 1 %: mean hydrostatic strain of each of the four rhenium sites about the mean of all."""
    scenario = replace(
        QUIET, crystal="res2", pixel_size_nm=0.0131, current_pa=19.6, strain_exx_eyy_exy=(0.01, 0.01, 0.0),
        strain_from_frame=0, strain_until_frame=1, seed=7400,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="atomid-live-cell-") as folder:
        path = Path(folder) / "cell.cif"
        path.write_text(cif_text(0.642, 0.651, 118.8), encoding="ascii")
        frame = as_frame(scenario, Session(scenario).frame(1), 1)
        found = detect(frame)
        field, _ = measure(frame, found, StrainSettings(reference=str(path), window_nm=1.0))
        site = find_lattice(found, frame.shape).site
    inside = interior(found.yx_px, frame.shape, field.window_px / 2) & np.isfinite(field.exx)
    each = [float(field.hydrostatic[inside & (site == kind)].mean()) for kind in range(4)]
    bias = float(np.abs(np.array(each) - np.mean(each)).max())
    return Line(
        "E4", "ReS2, four Re sites, w 1 nm", {"mean": float(np.mean(each)), "site bias": bias}, "bias 3e-4", bias <= 3e-4
    )


def points(
    shape: tuple[int, int], sigma_px: float, rng: np.random.Generator, move: Callable[[FloatArray], FloatArray]
) -> Detections:
    """A hexagonal crystal of points, moved, with position noise, cut to a frame; the undeformed grid is that of `ideal`."""
    ideal = move(ideal_points(shape))
    noisy = ideal + rng.normal(0, sigma_px, ideal.shape)
    yx = noisy[((noisy > 2) & (noisy < np.array(shape) - 3)).all(axis=1)]
    yx = np.ascontiguousarray(yx[np.lexsort((yx[:, 1], yx[:, 0]))])
    n = len(yx)
    return Detections(yx, np.ones(n), np.full((n, 2), sigma_px), np.ones(n), np.zeros(n, np.int64), A_NM / PIXEL_NM)


def ideal_points(shape: tuple[int, int]) -> FloatArray:
    """Undeformed points over a field larger than the frame."""
    a = A_NM / PIXEL_NM
    reach = int(1.2 * max(shape) / a) + 4
    i, j = np.meshgrid(np.arange(-reach, reach), np.arange(-reach, reach), indexing="ij")
    t = 0.13
    x, y = a * (i + 0.5 * j).ravel(), a * sqrt(0.75) * j.ravel()
    both = np.stack([x * np.sin(t) + y * np.cos(t), x * np.cos(t) - y * np.sin(t)], axis=1) + (np.array(shape) - 1) / 2
    return np.asarray(both[(np.abs(both - (np.array(shape) - 1) / 2) < 0.75 * np.array(shape)).all(axis=1)])


def blank(shape: tuple[int, int], number: int = 0) -> Frame:
    """A frame without a picture, for points."""
    pixels = np.broadcast_to(np.uint8(0), shape)
    return Frame(number, pixels, 10.0 * number, Origin("points"), pixel_size_yx_nm=(PIXEL_NM, PIXEL_NM))


def uneven(sigma_pm: float = 10.0) -> Iterator[Line]:
    """E3: gradient of 3 % over the frame, an inclusion of 2 % misfit, a dislocation: what is left over, against the noise."""
    shape, centre = (760, 860), np.array([379.5, 429.5])
    radius = 2.0 / PIXEL_NM

    def gradient(p: FloatArray) -> FloatArray:
        return np.asarray(p + np.stack([0 * p[:, 0], 0.03 / shape[1] * p[:, 1] ** 2 / 2], axis=1))

    def inclusion(p: FloatArray) -> FloatArray:
        away = p - centre
        r = np.maximum(np.hypot(*away.T), 1e-9)
        return np.asarray(p + 0.02 * away * np.where(r < radius, 1.0, (radius / r) ** 2)[:, None])

    def dislocation(p: FloatArray) -> FloatArray:
        y, x = (p - centre - 0.3).T
        return np.asarray(p + np.stack([A_NM / PIXEL_NM * np.arctan2(y, x) / (2 * pi), 0 * x], axis=1))

    for name, move, core in (
        ("gradient 0-3 %", gradient, 0.0),
        ("inclusion 2 %, R 2 nm", inclusion, 1.0),
        ("dislocation", dislocation, 3.0),
    ):
        yield _against_clean(name, shape, sigma_pm / 1000 / PIXEL_NM, move, (centre, core))


def _against_clean(
    name: str, shape: tuple[int, int], sigma_px: float, move: Callable[[FloatArray], FloatArray], core: tuple[FloatArray, float]
) -> Line:
    """Residual to the true gradient (central differences of the displacement, smoothed by nothing), outside the core."""
    centre, core_windows = core
    settings = StrainSettings(reference="frame")
    found = points(shape, sigma_px, np.random.default_rng(7300), move)
    field, _ = measure(blank(shape), found, settings)
    w = field.window_px
    true = _smoothed_truth(found.yx_px, move, w)
    inside = interior(found.yx_px, shape, w) & np.isfinite(field.exx)
    inside &= np.hypot(*(found.yx_px - centre).T) > core_windows * w
    if name.startswith("inclusion"):
        inside &= np.abs(np.hypot(*(found.yx_px - centre).T) - 2.0 / PIXEL_NM) > 2 * w
    rest = field.exx[inside] - true[inside]
    rest -= np.median(rest)
    noise = formula(sigma_px, 2 / (sqrt(3) * (A_NM / PIXEL_NM) ** 2), w)
    ratio = float(np.sqrt(np.mean(rest**2))) / noise
    return Line("E3", name, {"residual rms": float(rest.std()), "residual / noise": ratio}, "at most 1.3 x noise", ratio <= 1.3)


def _smoothed_truth(yx: FloatArray, move: Callable[[FloatArray], FloatArray], w: float) -> FloatArray:
    """True d(ux)/dx at moved positions by central differences in the undeformed crystal."""
    guess = yx.copy()
    for _ in range(20):
        guess = guess - (move(guess) - yx)
    step = np.array([0.0, 0.02 * w])
    return np.asarray((move(guess + step) - move(guess - step))[:, 1] / (2 * step[1]) - 1)


def steps(seeds: int, sigma_pm: float = 10.0) -> Iterator[Line]:
    """E7: 0.5 % at frame 20, w 1 nm, first:5, and a hundred quiet frames; drift within frames scatters both."""
    for scatter in (0.0, 3e-4):
        late, false, frames = [], 0, 0
        for seed in range(seeds):
            late.append(_watch(seed, sigma_pm, scatter, 40, 20)[0])
            _, alarms = _watch(10_000 + seed, sigma_pm, scatter, 105, 1000)
            false, frames = false + alarms, frames + 100
        worst, per_hundred = float(np.max(late)), 100 * false / frames
        numbers = {
            "frames to alarm, worst": worst,
            "frames to alarm, mean": float(np.mean(late)),
            "false alarms per 100": per_hundred,
        }
        met = worst <= 2 and per_hundred <= 1
        yield Line("E7", f"frame scatter {scatter:g}, {seeds} series", numbers, "within 2 frames, at most 1 in 100", met)


def _deformed(yx: FloatArray, gradient: FloatArray, shape: tuple[int, int]) -> FloatArray:
    middle = (np.array(shape) - 1) / 2
    return np.asarray((yx - middle) @ gradient + middle)


def _watch(seed: int, sigma_pm: float, scatter: float, frames: int, at: int) -> tuple[float, int]:
    """Frames from the step to the alarm, and alarms that began before it."""
    rng = np.random.default_rng(7700 + seed)
    shape, tracker = (380, 420), StrainTracker(StrainSettings(reference="first:5", window_nm=1.0))
    was, false = False, 0
    for k in range(frames):
        jump = 0.005 if k >= at else 0.0
        f = (1 + jump) * np.eye(2) + rng.normal(0, scatter) * np.array([[1.0, 0.0], [0.5, 0.0]])
        found = points(shape, sigma_pm / 1000 / PIXEL_NM, rng, partial(_deformed, gradient=f, shape=shape))
        lattice = find_lattice(found, shape)
        _, reading = tracker.update(blank(shape, k), found, lattice, DriftEstimate(total_yx_px=(0.0, 0.0)))
        if reading.alarm and k >= at:
            return float(k - at + 1), false
        false += bool(reading.alarm) and not was
        was = bool(reading.alarm)
    return float("inf"), false
