"""A calibration profile: the affine distortion of one microscope's scan at one rotation and dwell time, as a TOML file.

A step of one nominal pixel along x goes `scale_x` nominal pixel sizes along the fast axis; one down the rows goes `scale_y` of
them down, and `shear` times that along x. Which way the fast axis points on the specimen is no part of it.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from atomid_live.errors import CalibrationError
from atomid_live.types import NAN, Frame, ScanDistortion

SCHEMA = 1
ROTATION_TOLERANCE_DEG = 1.0
DWELL_TOLERANCE = 0.02
ENERGY_TOLERANCE = 0.02
PIXEL_RANGE = 4.0
SCALE_RANGE = (0.5, 2.0)
MOST_SHEAR = 0.5


@dataclass(frozen=True, slots=True)
class Mode:
    """What a profile is for; NaN where the frames did not say it, and then it is not asked for."""

    scan_rotation_deg: float = NAN
    dwell_us: float = NAN
    beam_energy_kev: float = NAN
    pixel_size_xy_nm: tuple[float, float] = (NAN, NAN)


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile.

    Attributes
    ----------
    name : str
        "<microscope>/<mode>".
    scale_xy, sigma_scale_xy : (float, float)
        True over nominal pixel size along x and y, with standard errors.
    shear, sigma_shear : float
        nm along x per nm down the rows.
    rotation_mrad, sigma_rotation_mrad : float
        How far a second scan, turned by 90 degrees, was off that angle; NaN without one.
    mode : Mode
    provenance : mapping
        Files with hashes, date, version, crystal, residuals: for people, not read by the program.
    """

    name: str
    scale_xy: tuple[float, float]
    sigma_scale_xy: tuple[float, float]
    shear: float
    sigma_shear: float
    rotation_mrad: float = NAN
    sigma_rotation_mrad: float = NAN
    mode: Mode = Mode()
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value) if isinstance(value, int) else f"{value:.9g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    return json.dumps(str(value), ensure_ascii=False)


def _section(name: str, entries: Mapping[str, Any]) -> list[str]:
    told = [f"{key} = {_value(value)}" for key, value in entries.items() if not _unknown(value)]
    return [f"[{name}]", *told, ""]


def _unknown(value: Any) -> bool:
    values = value if isinstance(value, (list, tuple)) else [value]
    return any(isinstance(v, float) and not math.isfinite(v) for v in values)


def as_toml(profile: Profile) -> str:
    """Text of the file; what is not known is left out."""
    mode, notes = profile.mode, dict(profile.provenance)
    files = notes.pop("files", [])
    distortion = {
        "scale_x": profile.scale_xy[0],
        "scale_y": profile.scale_xy[1],
        "shear": profile.shear,
        "rotation_mrad": profile.rotation_mrad,
        "sigma_scale_x": profile.sigma_scale_xy[0],
        "sigma_scale_y": profile.sigma_scale_xy[1],
        "sigma_shear": profile.sigma_shear,
        "sigma_rotation_mrad": profile.sigma_rotation_mrad,
    }
    asked = {
        "scan_rotation_deg": mode.scan_rotation_deg,
        "dwell_us": mode.dwell_us,
        "beam_energy_kev": mode.beam_energy_kev,
        "pixel_size_xy_nm": list(mode.pixel_size_xy_nm),
    }
    lines = ["# Scan distortion measured by `atomid-live calibrate`; see calibration/README.md.", f"schema = {SCHEMA}", ""]
    lines += [*_section("mode", asked), *_section("distortion", distortion), *_section("provenance", notes)]
    for each in files:
        lines += ["[[provenance.files]]", *_section("", each)[1:]]
    return "\n".join(lines)


def write_profile(profile: Profile, folder: Path) -> Path:
    """Write FOLDER/<microscope>/<mode>.toml; an older one is kept as <mode>.N.toml.

    Returns
    -------
    Path
        The file written.
    """
    path = folder / f"{profile.name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        number = 1
        while (old := path.with_suffix(f".{number}.toml")).exists():
            number += 1
        path.rename(old)
    path.write_text(as_toml(profile), encoding="utf-8", newline="\n")
    return path


def _number(tree: Mapping[str, Any], key: str, path: Path, low: float, high: float, default: float | None = None) -> float:
    value = tree.get(key, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not (math.isnan(value) or low <= value <= high):
        raise CalibrationError(f"{path}: {key} is {value!r}; a number from {low:g} to {high:g} belongs there: measure it anew")
    return float(value)


@lru_cache(maxsize=8)
def _read(path: Path, mtime_ns: int) -> Profile:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path} is not valid TOML: {error}; write it anew with `atomid-live calibrate`") from error
    if tree.get("schema") != SCHEMA:
        raise CalibrationError(f"{path} has schema {tree.get('schema')!r}, this program reads {SCHEMA}; write it anew")
    d, m = tree.get("distortion", {}), tree.get("mode", {})
    pair = m.get("pixel_size_xy_nm", [NAN, NAN])
    if not isinstance(pair, list) or len(pair) != 2:
        raise CalibrationError(f"{path}: pixel_size_xy_nm is {pair!r}; two sizes in nm belong there")
    sizes = {"x": pair[0], "y": pair[1]}
    return Profile(
        f"{path.parent.name}/{path.stem}",
        (_number(d, "scale_x", path, *SCALE_RANGE), _number(d, "scale_y", path, *SCALE_RANGE)),
        (_number(d, "sigma_scale_x", path, 0, 1), _number(d, "sigma_scale_y", path, 0, 1)),
        _number(d, "shear", path, -MOST_SHEAR, MOST_SHEAR),
        _number(d, "sigma_shear", path, 0, 1),
        _number(d, "rotation_mrad", path, -1000, 1000, NAN),
        _number(d, "sigma_rotation_mrad", path, 0, 1000, NAN),
        Mode(
            _number(m, "scan_rotation_deg", path, -360, 360, NAN),
            _number(m, "dwell_us", path, 0, 1e6, NAN),
            _number(m, "beam_energy_kev", path, 0, 1e4, NAN),
            (_number(sizes, "x", path, 1e-4, 1e3), _number(sizes, "y", path, 1e-4, 1e3)),
        ),
        tree.get("provenance", {}),
    )


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises
    ------
    CalibrationError
        The file is not there or is no profile of this schema.
    """
    try:
        return _read(path.resolve(), path.stat().st_mtime_ns)
    except OSError as error:
        raise CalibrationError(f"calibration profile {path}: {error.strerror or error}; check --calibration") from error


def find_profile(text: str, folders: tuple[Path, ...] = ()) -> Path:
    """Path of a profile given as a file or as <microscope>/<mode> in one of the folders (default: ./calibration)."""
    given = Path(text)
    if given.suffix == ".toml":
        return given
    places = folders or (Path("calibration"),)
    for folder in places:
        if (folder / f"{text}.toml").is_file():
            return folder / f"{text}.toml"
    known = sorted(f"{p.parent.name}/{p.stem}" for folder in places for p in folder.glob("*/*.toml"))
    where = ", ".join(str(folder.resolve()) for folder in places)
    raise CalibrationError(
        f"no calibration profile {text!r} in {where}; known there: {', '.join(known) or 'none'}. "
        "Give a .toml file, or make one with `atomid-live calibrate`"
    )


def _turned(first_deg: float, second_deg: float) -> float:
    away = (second_deg - first_deg) % 360
    return min(away, 360 - away)


def misfit(profile: Profile, frame: Frame) -> str:
    """Why a profile must not be used on a frame; "" when it fits. What either does not say is not asked for."""
    mode, meta = profile.mode, frame.meta
    rotation = math.degrees(meta.scan_rotation_rad)
    if _turned(mode.scan_rotation_deg, rotation) > ROTATION_TOLERANCE_DEG:
        return f"it was measured at a scan rotation of {mode.scan_rotation_deg:.1f} degrees, this frame has {rotation:.1f}"
    dwell = meta.dwell_s * 1e6
    if mode.dwell_us > 0 and abs(dwell / mode.dwell_us - 1) > DWELL_TOLERANCE:
        return f"it was measured at a dwell time of {mode.dwell_us:g} µs, this frame has {dwell:g}"
    energy = meta.beam_energy_ev / 1e3
    if mode.beam_energy_kev > 0 and abs(energy / mode.beam_energy_kev - 1) > ENERGY_TOLERANCE:
        return f"it was measured at {mode.beam_energy_kev:g} keV, this frame has {energy:g}"
    for axis, nominal, measured in zip("yx", frame.pixel_size_yx_nm, mode.pixel_size_xy_nm[::-1], strict=True):
        if not math.isfinite(nominal):
            return "the frame has no pixel size that it could correct; give --pixel-size-nm"
        if math.isfinite(measured) and not 1 / PIXEL_RANGE <= nominal / measured <= PIXEL_RANGE:
            return f"it was measured at a pixel size of {measured:g} nm along {axis}, this frame has {nominal:g}"
    return ""


def calibrated(frame: Frame, profile: Profile) -> Frame:
    """Give a frame the true pixel size of its scan and tell it the shear; a frame that has them already stays as it is.

    Raises
    ------
    CalibrationError
        The profile is for another scan rotation, dwell time, beam energy or magnification.
    """
    if frame.distortion.name == profile.name:
        return frame
    problem = misfit(profile, frame)
    if problem:
        raise CalibrationError(
            f"calibration profile {profile.name} does not fit: {problem}. Choose another with --calibration, or leave it out"
        )
    size = frame.pixel_size_yx_nm[0] * profile.scale_xy[1], frame.pixel_size_yx_nm[1] * profile.scale_xy[0]
    sigma = profile.sigma_scale_xy[1] / profile.scale_xy[1], profile.sigma_scale_xy[0] / profile.scale_xy[0]
    distortion = ScanDistortion(profile.name, profile.shear, profile.sigma_shear, sigma)
    return replace(frame, pixel_size_yx_nm=size, scale_source="calibration", distortion=distortion)
