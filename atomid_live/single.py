"""`detect`: columns of single frames, each for itself; a table and a picture beside the other results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from atomid_live import flags
from atomid_live.assemble import Prepared
from atomid_live.calibration import xy
from atomid_live.errors import AtomidError, UnreadableFileError
from atomid_live.pipeline import Pipeline
from atomid_live.session_file import atoms_csv
from atomid_live.session_file.durable import free_name, write_new
from atomid_live.session_file.lines import plain
from atomid_live.settings import Settings
from atomid_live.sinks.annotate import annotate, encode_png
from atomid_live.sources.files import options_from, read_frames
from atomid_live.types import Frame, Result


def _alone(prepared: Prepared) -> Settings:
    """Single frames have no first frames to refer to: their strain is against their own mean lattice unless asked otherwise."""
    settings = prepared.settings
    if prepared.origins.get("strain.reference", "default") != "default":
        return settings
    return settings.model_copy(update={"strain": settings.strain.model_copy(update={"reference": "frame"})})


def _line(file: Path, number: int, result: Result) -> str:
    told = {
        "schema": 1,
        "file": str(file),
        "frame": number,
        "columns": len(result.detections),
        "spacing_px": result.detections.spacing_px,
        "pixel_size_xy_nm": xy(result.pixel_size_yx_nm),
        "pixel_size_yx_nm": list(result.pixel_size_yx_nm),
        "timings_ms": {name: round(value, 3) for name, value in result.timings_ms.items()},
        "flags": flags.names(result.flags),
    }
    return json.dumps(plain(told), allow_nan=False)


def _save(frame: Frame, result: Result, wanted: Path) -> tuple[Path, list[str]]:
    """Write table and picture under free names; returns the table's path and what had to be renamed."""
    renamed = []
    pairs = ((".atoms.csv", bytes(atoms_csv(result))), (".annotated.png", encode_png(annotate(frame, result))))
    saved = wanted
    for ending, data in pairs:
        path = wanted.with_name(wanted.name + ending)
        free = free_name(path)
        write_new(free, data)
        if free != path:
            renamed.append(f"{path.name} exists; written as {free.name}")
        saved = free if ending == ".atoms.csv" else saved
    return saved, renamed


def _detect_one(file: Path, out: Path, prepared: Prepared, detector_pipeline: Pipeline) -> None:
    settings = _alone(prepared)
    frames = list(read_frames(file, settings.frame, options_from(settings.frame, settings.source)))
    if not frames:
        raise UnreadableFileError(f"holds no frame of detector {settings.frame.detector}; choose another with --detector")
    for number, frame in enumerate(frames):
        result = Pipeline(detector_pipeline.detector, settings).process(frame)
        stem = file.stem if len(frames) == 1 else f"{file.stem}.f{number:04d}"
        saved, renamed = _save(frame, result, out / stem)
        for text in renamed:
            print(f"atomid-live: {text}", file=sys.stderr)
        if settings.output.json_lines:
            print(_line(file, number, result), flush=True)
        else:
            found = result.detections
            print(f"{file.name}[{number}]: {len(found)} columns, spacing {found.spacing_px:.2f} px -> {saved}", flush=True)


def detect_files(prepared: Prepared, files: list[Path]) -> int:
    """Detect in each file; a file that cannot be read is reported, the others go on, and the exit code is 1."""
    chosen = prepared.origins.get("output.out", "default") != "default"
    out = prepared.settings.output.out if chosen else Path()
    out.mkdir(parents=True, exist_ok=True)
    pipeline, failures = Pipeline(prepared.detector(), prepared.settings), 0
    for file in files:
        try:
            _detect_one(file, out, prepared, pipeline)
        except AtomidError as error:
            failures += 1
            print(f"atomid-live: {file}: {error}", file=sys.stderr)
    return 1 if failures else 0
