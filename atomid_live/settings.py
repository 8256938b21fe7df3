"""Strict settings: command line over TOML file over default, unknown keys refused, every value with its origin.

One nested model per step of the work. `resolve` merges and says where each value came from; nothing reads the environment.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from atomid_live.errors import SettingsError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class FrameSettings(_Section):
    """How a frame is to be understood."""

    pixel_size_nm: tuple[float, float] | None = Field(None, description="pixel size X, Y in nm, over what the file says")
    detector: str = Field("HAADF", description="which detector's images to take")
    polarity: Literal["bright", "dark", "auto"] = Field("bright", description="columns brighter or darker than around them")
    beam_current_pa: float | None = Field(
        None, gt=0, le=1e6, description="probe current in pA for the dose, over what the file says"
    )

    calibration: str | None = Field(None, description="scan distortion: a .toml file or MICROSCOPE/MODE in ./calibration")

    @field_validator("pixel_size_nm", mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [float(part) for part in value.split(",")]
        if isinstance(value, (int, float)):
            value = (value, value)
        if isinstance(value, (list, tuple)) and len(value) == 1:
            value = (value[0], value[0])
        if isinstance(value, (list, tuple)) and not all(isinstance(v, (int, float)) and 1e-4 <= v <= 1e3 for v in value):
            raise ValueError(f"{value!r} is outside 0.0001 to 1000 nm; give the size of one pixel in nm, e.g. 0.0124")
        return value


class DetectSettings(_Section):
    """Finding columns."""

    model: str = Field("auto", description="detector by name: dog is the classical one, auto the best shipped model")
    backend: Literal["auto", "openvino", "onnxruntime", "torch", "tensorrt", "torch-cuda", "onnxruntime-cuda"] = Field(
        "auto", description="network runtime; tensorrt and those on -cuda run the whole detector on an NVIDIA GPU"
    )
    threshold: float | None = Field(None, ge=0, le=1, description="least score of a column; none lets the detector choose")
    refine: Literal["full", "fast"] = Field(
        "full", description="fit with neighbours taken away, or one quick step each; a GPU always fits in full"
    )
    min_separation: str | None = Field(
        None, pattern=r"^\d+(\.\d+)?(px|nm|d)$", description="least distance of two columns: 5px, 0.15nm or 0.5d (d = spacing)"
    )
    columns: Literal["all", "bright"] = Field(
        "all", description="all visible columns, or of two kinds by height the brighter only (metal without chalcogen)"
    )


class SourceSettings(_Section):
    """Taking frames from a folder or a stream."""

    existing: Literal["last", "process", "skip"] | None = Field(
        None, description="files already there: newest only, all, none; default last, or resume by ledger"
    )
    recursive: bool = Field(False, description="watch sub-folders too")
    polling: Literal["auto", "on", "off"] = Field("auto", description="rescan only, without file-system events")
    scan_interval_s: float = Field(1.0, gt=0, le=60, description="seconds between rescans, which are the truth")
    settle_s: float = Field(0.4, ge=0, le=60, description="a file must stay unchanged this long before it is probed")
    give_up_s: float = Field(60.0, gt=0, description="a file that stays unreadable and unchanged this long is quarantined")
    until_idle_s: float | None = Field(None, gt=0, description="end after this long without a new frame")
    max_frames: int | None = Field(None, gt=0, description="end after this many frames")
    max_pixels: int = Field(16384 * 16384, gt=0, description="largest image that is read")
    gap_s: float = Field(10.0, gt=0, description="a live stream silent this long is said to have stopped")


class DriftSettings(_Section):
    """Following the specimen."""

    history: int = Field(12, ge=3, le=500, description="frames used for the velocity")
    max_gap_s: float = Field(3600.0, gt=0, description="a longer gap between frames begins a new segment")
    settled_nm_min: float = Field(0.5, gt=0, le=1000, description="speed in nm/min below which the specimen counts as settled")
    mark_xy_px: tuple[float, float] | None = Field(
        None, description="feature x, y in a segment's first frame whose leaving the field is foretold; none is the centre"
    )


class StrainSettings(_Section):
    """Measuring strain."""

    reference: str = Field(
        "first:5", description="first:N, frame, region:x0:x1,y0:y1, material:NAME, file.cif or file.cif@110 (zone axis)"
    )
    window_nm: float = Field(0.5, gt=0, le=50, description="Gaussian radius of the weights")
    watched: Literal["corrected", "raw"] = Field(
        "corrected",
        description="strain the alarm goes by: without drift in the frame and scan distortion, or as seen",
    )
    alarm_sigma: float = Field(5.0, gt=0, description="sum of change, in standard errors, that raises the alarm")
    alarm_frames: int = Field(2, ge=1, le=20, description="frames in a row that must confirm a change")
    watch_region: str | None = Field(None, description="part of the frame that the alarm watches, x0:x1,y0:y1 in pixels")


class TrackSettings(_Section):
    """Following single columns."""

    confirm_frames: int = Field(3, ge=2, le=20, description="frames that must agree before an event is told")


class OutputSettings(_Section):
    """Showing and saving."""

    out: Path = Field(Path("atomid-live-sessions"), description="folder that receives one session folder per run")
    display: tuple[Literal["terminal", "window", "browser", "none"], ...] = Field(("terminal",), description="where to show")
    annotate: str = Field(
        "all", pattern=r"^(all|none|events|[1-9]\d*)$", description="annotated frames: all, every N, events, none"
    )
    json_lines: bool = Field(False, description="one JSON line per frame on standard output")
    publish: str | None = Field(None, description="publish results on this ZMQ address of this machine")
    advise: bool = Field(False, description="also publish by how much the scan would have to follow the specimen")
    average: int | None = Field(None, ge=2, le=200, description="save the aligned mean of each N frames with its error as TIFF")
    verbose: bool = Field(False, description="log details")
    min_free_bytes: int = Field(500_000_000, ge=0, description="pictures and tables stop below this much free disk")


class Settings(_Section):
    """Everything a session is run with."""

    frame: FrameSettings = FrameSettings()
    detect: DetectSettings = DetectSettings()
    source: SourceSettings = SourceSettings()
    drift: DriftSettings = DriftSettings()
    strain: StrainSettings = StrainSettings()
    tracks: TrackSettings = TrackSettings()
    output: OutputSettings = OutputSettings()
    threads: int | None = Field(None, ge=1, le=256, description="processor threads; default half the cores")


Origins = dict[str, str]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _tree(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for dotted, value in flat.items():
        *parents, last = dotted.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"] if not isinstance(part, int))
        where = origins.get(key, "settings")
        if item["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown setting '{key}'; `atomid-live config show` lists the known ones")
        else:
            lines.append(f"{where}: {key} = {item.get('input')!r}: {item['msg']}")
    return "\n".join(lines)


def resolve(file: Path | None, command_line: Mapping[str, Any]) -> tuple[Settings, Origins]:
    """Merge default, file and command line into settings, with the origin of each value.

    Parameters
    ----------
    file : Path or None
        TOML file with the sections of `Settings`.
    command_line : mapping
        Dotted key to value, e.g. ``{"detect.model": "dog"}``; keys with value None were not given.

    Returns
    -------
    Settings, dict
        The settings, and for each dotted key one of "default", the file's name, or "command line".

    Raises
    ------
    SettingsError
        An unknown key, or a value out of range; the message names each.
    """
    given: dict[str, Any] = {}
    origins: Origins = {}
    if file is not None:
        try:
            loaded = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"settings file {file}: {error.strerror or error}; check the path given to --config") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"settings file {file} is not valid TOML: {error}") from error
        for key, value in _flat(loaded).items():
            given[key], origins[key] = value, str(file)
    for key, value in command_line.items():
        if value is not None:
            given[key], origins[key] = value, "command line"
    try:
        settings = Settings.model_validate(_tree(given))
    except ValidationError as error:
        raise SettingsError(_explain(error, origins)) from error
    every = _flat(settings.model_dump())
    return settings, {key: origins.get(key, "default") for key in every}


def flat_values(settings: Settings) -> dict[str, Any]:
    """Return every setting as dotted key to value, in the order of the models."""
    return _flat(settings.model_dump(mode="json"))


def describe(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    """One line per setting: key, value, origin and meaning, for `config show`."""
    meanings: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            meanings |= {f"{name}.{key}": part.description or "" for key, part in section.model_fields.items()}
        else:
            meanings[name] = field.description or ""
    return [
        f"{key:<24} = {_word(value):<28} ({origins.get(key, 'default')})  {meanings[key]}"
        for key, value in flat_values(settings).items()
    ]


def _word(value: Any) -> str:
    return "not set" if value is None else str(value)
