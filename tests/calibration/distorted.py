"""Simulated frames of a known crystal scanned by a scan of known distortion, as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from atomid_live.simulate.acquire import Session
from atomid_live.simulate.files import write_frame
from atomid_live.simulate.scan import ScanErrors
from atomid_live.simulate.scenario import Scenario

TRUE_PIXEL_NM = 0.0176
QUIET = {"contamination_e": 0.0, "vacancy_fraction": 0.0, "background_e": 2.0}


def scenario(stretch: float, shear: float, **more: object) -> Scenario:
    given = {"crystal": "ws2", "shape": (448, 600), "pixel_size_nm": TRUE_PIXEL_NM, "frames": 1, "seed": 3, **QUIET, **more}
    return Scenario(scan=ScanErrors(stretch=stretch, shear=shear), **given)  # type: ignore[arg-type]


def write(folder: Path, made: Scenario, nominal: float = TRUE_PIXEL_NM, stem: str = "frame") -> list[Path]:
    """Write the frames as Velox files whose pixel size says `nominal`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, said = [], replace(made, pixel_size_nm=nominal)
    for frame in Session(made):
        paths.append(folder / f"{stem}{frame.index}.emd")
        write_frame(paths[-1], said, frame)
    return paths


def expected(stretch: float, shear: float, nominal: float = TRUE_PIXEL_NM) -> np.ndarray:
    """(scale x, scale y, shear) that a calibration should find."""
    size = TRUE_PIXEL_NM / nominal
    return np.array([size, size * (1 + stretch), shear / (1 + stretch)])
