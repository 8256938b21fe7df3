"""`calibrate`: frames of a known crystal into a profile of the scan's distortion, with where every number came from."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from atomid_live import __version__
from atomid_live.assemble import Prepared
from atomid_live.calibration import Profile, is_calibrated, write_profile
from atomid_live.calibration.profile import Mode
from atomid_live.errors import CalibrationError, SettingsError, UsageError
from atomid_live.pipeline import Pipeline
from atomid_live.sources.files import options_from, read_frames
from atomid_live.strain.distortion import Distortion, SeenLattice, of_frames, of_pair, seen_lattice
from atomid_live.strain.reference import Cell, KnownCell, ReferenceSpec, known_basis, parse_reference
from atomid_live.strain.scan import aspect_of, settled
from atomid_live.types import Frame, FrameMeta, Result, ScanMotion

SAME_ROTATION_DEG = 0.5
_FREE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Task:
    """What the command was asked for; see `atomid-live calibrate --help`."""

    files: tuple[Path, ...]
    crystal: str
    microscope: str
    axis: str | None = None
    mode: str | None = None
    pair: bool = False
    turn_deg: float | None = None
    folder: Path = Path("calibration")


def crystal_cells(crystal: str, axis: str | None) -> tuple[Cell, ...]:
    """Cells of a crystal by name (si110, srtio3, Si with --axis 001, ...) or of a CIF file.

    Raises
    ------
    SettingsError
        No such crystal; the message lists the known ones.
    """
    if crystal.lower().endswith(".cif"):
        spec = parse_reference(crystal)
    else:
        spelled = re.fullmatch(r"([A-Za-z]+\d?[A-Za-z]*\d?)-?(001|110)", crystal)
        name, seen = (spelled[1], spelled[2]) if spelled else (crystal, None)
        spec = _first_known([f"{name}-{axis or seen}", name] if axis or seen else [name])
    if not isinstance(spec, KnownCell):
        raise SettingsError(f"--crystal {crystal!r}: name a material or a .cif file")
    return spec.cells


def _first_known(names: list[str]) -> ReferenceSpec:
    for name in names[:-1]:
        try:
            return parse_reference(f"material:{name}")
        except SettingsError:
            continue
    return parse_reference(f"material:{names[-1]}")


def _analysed(task: Task, prepared: Prepared) -> Iterator[tuple[Frame, Result]]:
    """Every frame with its result; the frames of a pair each for itself."""
    settings = prepared.settings
    changes = {
        "strain": settings.strain.model_copy(update={"reference": "frame"}),
        "frame": settings.frame.model_copy(update={"calibration": None}),
    }
    plain, detector = settings.model_copy(update=changes), prepared.detector()
    pipeline, number = Pipeline(detector, plain), 0
    for file in task.files:
        for frame in read_frames(file, plain.frame, options_from(plain.frame, plain.source)):
            if task.pair:
                pipeline = Pipeline(detector, plain)
            numbered = Frame(**{name: getattr(frame, name) for name in Frame.__slots__} | {"sequence": number})
            result = pipeline.process(numbered)
            _check(file, numbered, result)
            yield numbered, result
            number += 1


def _check(file: Path, frame: Frame, result: Result) -> None:
    if not is_calibrated(frame.pixel_size_yx_nm):
        raise CalibrationError(f"{file}: the frame has no nominal pixel size to compare with; give --pixel-size-nm")
    if not result.lattice.found:
        raise CalibrationError(f"{file}: no lattice found ({result.lattice.reason}); take a larger, sharper frame")
    if not result.reading.valid:
        raise CalibrationError(f"{file}: not one even crystal ({result.reading.reason}); take another place")


def _motion(frame: Frame, result: Result, cells: tuple[Cell, ...]) -> ScanMotion:
    """Motion within a frame of a series; where drift is known only up to a lattice vector the crystal decides."""
    motion, bare = result.reading.motion, seen_lattice(result, ScanMotion((0.0, 0.0), (0.0, 0.0), ""))
    basis = known_basis(cells, bare.matrix_nm)
    if basis is None:
        return motion
    return settled(motion, result.lattice, bare.matrix_nm @ np.linalg.inv(basis), np.eye(2), aspect_of(frame))


def _angle_between(first: FrameMeta, second: FrameMeta, asked: float | None) -> float:
    if asked is not None:
        return asked
    turn = math.degrees(second.scan_rotation_rad - first.scan_rotation_rad)
    if not math.isfinite(turn) or abs(turn) < SAME_ROTATION_DEG:
        return 90.0
    return (turn + 180) % 360 - 180


def measure(task: Task, prepared: Prepared) -> tuple[Distortion, list[Frame], dict[str, Any]]:
    """Measure the distortion; returns it with the frames used and what is worth knowing about them."""
    cells, frames, seen, known = crystal_cells(task.crystal, task.axis), list[Frame](), list[SeenLattice](), 0
    lattices: list[tuple[SeenLattice, bool]] = []
    columns = 0
    for frame, result in _analysed(task, prepared):
        motion = ScanMotion() if task.pair else _motion(frame, result, cells)
        if task.pair:
            # the pair itself tells the drift, so that nothing is allowed for it
            motion = ScanMotion((0.0, 0.0), (0.0, 0.0), "")
        lattices.append((seen_lattice(result, motion), motion.known))
        frames.append(frame)
        columns += len(result.detections)
    if not frames:
        raise UsageError(
            f"no frame of detector {prepared.settings.frame.detector} in the files; choose another with --detector"
        )
    notes = {"frames": len(frames), "columns": columns}
    if task.pair:
        if len(frames) != 2:
            raise UsageError(f"--pair needs exactly two frames and got {len(frames)}")
        turn = _angle_between(frames[0].meta, frames[1].meta, task.turn_deg)
        found = of_pair(lattices[0][0], lattices[1][0], cells, turn)
        return found, frames, {**notes, "turn_deg": turn, "drift": "fitted from the pair", "distortion_stays_with": found.where}
    with_drift = [lattice for lattice, sure in lattices if sure]
    seen = with_drift or [lattice for lattice, _ in lattices]
    known = len(with_drift)
    told = f"measured and taken off in {known} frames" if known else "not known; 0.5 nm/min allowed for in the errors"
    return of_frames(seen, cells, bool(known)), frames, {**notes, "drift": told}


def _mode(frame: Frame) -> Mode:
    meta, (y, x) = frame.meta, frame.pixel_size_yx_nm
    return Mode(math.degrees(meta.scan_rotation_rad), meta.dwell_s * 1e6, meta.beam_energy_ev / 1e3, (x, y))


def mode_name(mode: Mode) -> str:
    """Name made of what sets one mode apart: rot0-dwell10us-300kV; what is not known is left out."""
    parts = [f"rot{mode.scan_rotation_deg:.0f}"] if math.isfinite(mode.scan_rotation_deg) else []
    parts += [f"dwell{mode.dwell_us:g}us"] if math.isfinite(mode.dwell_us) else []
    parts += [f"{mode.beam_energy_kev:.0f}kV"] if math.isfinite(mode.beam_energy_kev) else []
    return "-".join(parts) or "scan"


def profile_of(task: Task, found: Distortion, frames: list[Frame], notes: dict[str, Any]) -> Profile:
    """Profile with its provenance."""
    mode = _mode(frames[0])
    files = [{"name": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()} for file in task.files]
    provenance = {
        "written_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "program": f"atomid-live {__version__}",
        "crystal": " ".join(word for word in (task.crystal, task.axis) if word),
        "crystal_angle_deg": found.angle_deg,
        "sigma_crystal_angle_deg": found.sigma_angle_deg,
        "residual_sigmas": found.residual,
        "drift_per_line_xy": list(found.drift_xy),
        "sigma_drift_per_line_xy": list(found.sigma_drift_xy),
        **notes,
        "files": files,
    }
    name = f"{task.microscope}/{task.mode or mode_name(mode)}"
    return Profile(
        name,
        found.scale_xy,
        found.sigma_scale_xy,
        found.shear,
        found.sigma_shear,
        found.rotation_mrad,
        found.sigma_rotation_mrad,
        mode,
        provenance,
    )


def report(profile: Profile, path: Path) -> list[str]:
    """What was measured, for the screen."""
    p = profile
    lines = [
        f"scale x   {100 * (p.scale_xy[0] - 1):+.3f} ± {100 * p.sigma_scale_xy[0]:.3f} %",
        f"scale y   {100 * (p.scale_xy[1] - 1):+.3f} ± {100 * p.sigma_scale_xy[1]:.3f} %",
        f"shear     {100 * p.shear:+.3f} ± {100 * p.sigma_shear:.3f} %",
    ]
    if math.isfinite(p.rotation_mrad):
        lines.append(f"rotation  {p.rotation_mrad:+.2f} ± {p.sigma_rotation_mrad:.2f} mrad off the nominal turn")
    lines.append(f"drift     {p.provenance['drift']}")
    return [*lines, f"written to {path}; use it with --calibration {p.name}"]


def run_calibrate(prepared: Prepared, task: Task) -> int:
    """Measure, write, tell; returns the exit code."""
    for word, name in (("--microscope", task.microscope), ("--mode", task.mode or "scan")):
        if not _FREE_NAME.fullmatch(name):
            raise UsageError(f"{word} is {name!r}; use letters, digits, '.', '_' and '-' only, as it names a file")
    found, frames, notes = measure(task, prepared)
    profile = profile_of(task, found, frames, notes)
    path = write_profile(profile, task.folder)
    print("\n".join(report(profile, path)))
    return 0
