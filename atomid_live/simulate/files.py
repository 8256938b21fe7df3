"""A simulated frame as a file: Velox .emd, calibrated ImageJ TIFF, or a bare numpy array; and the truth beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from atomid_live import __version__
from atomid_live.simulate.acquire import SimulatedFrame
from atomid_live.simulate.scenario import Scenario
from atomid_live.simulate.velox import DPC_DTYPE, ScanFacts, Signal, VeloxFile

FileKind = Literal["emd", "tif", "npy"]
HAADF = Signal("HAADF")
OTHER_SIGNALS = {"BF-S": Signal("BF-S", 0), "DPC": Signal("DPC", 3, DPC_DTYPE)}


def signals(extra: Sequence[str] = ()) -> list[Signal]:
    """Signals of a file: HAADF, and any of "BF-S" (a second image) and "DPC" (complex, no image of columns)."""
    return [*(OTHER_SIGNALS[name] for name in extra), HAADF]


def images(frame: SimulatedFrame, extra: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Return each signal's image of a frame, shape (rows, cols)."""
    pixels = frame.pixels
    every: dict[str, NDArray[Any]] = {"HAADF": pixels}
    if "BF-S" in extra:
        every["BF-S"] = (int(pixels.max()) + int(pixels.min()) - pixels.astype(np.int64)).astype(np.uint16)
    if "DPC" in extra:
        slope_y, slope_x = np.gradient(pixels.astype(np.float32))
        every["DPC"] = np.zeros(pixels.shape, DPC_DTYPE)
        every["DPC"]["realFloat"], every["DPC"]["imagFloat"] = slope_x, slope_y
    return every


def facts(scenario: Scenario, frame: SimulatedFrame, series_start_s: float | None = None, number: int = 1) -> ScanFacts:
    """What the file's metadata says; in a stack the start is that of the series and `number` counts from 1."""
    total_y, total_x = frame.truth.total_yx_px
    metre = scenario.pixel_size_nm * 1e-9
    return ScanFacts(
        scenario.shape,
        scenario.pixel_size_yx_nm,
        scenario.dwell_us * 1e-6,
        scenario.line_time_s,
        scenario.exposure_s,
        frame.start_s if series_start_s is None else series_start_s,
        number,
        scenario.current_pa,
        (-1.97e-4 + total_x * metre, -3.79e-4 + total_y * metre, -1.13e-4),
    )


def write_frame(
    path: Path, scenario: Scenario, frame: SimulatedFrame, kind: FileKind = "emd", extra: Sequence[str] = ()
) -> None:
    """Write one frame as one file, straight to `path`."""
    if kind == "emd":
        with VeloxFile(path, scenario.shape, signals(extra), f"{scenario.seed}/{frame.index}") as file:
            file.append(images(frame, extra), facts(scenario, frame))
    elif kind == "tif":
        import tifffile

        per_um = 1e3 / scenario.pixel_size_nm
        tifffile.imwrite(path, frame.pixels, imagej=True, resolution=(per_um, per_um), metadata={"unit": "um", "axes": "YX"})
    else:
        with path.open("xb") as handle:
            np.save(handle, frame.pixels, allow_pickle=False)


def truth_line(scenario: Scenario, frame: SimulatedFrame, name: str, item_index: int) -> str:
    """One line of truth.jsonl; x to the right and y downwards, in pixels, as in every file of the project."""
    truth = frame.truth
    deformation = truth.deformation
    exx, eyy = float(deformation[1, 1] - 1), float(deformation[0, 0] - 1)
    exy = float(deformation[0, 1] + deformation[1, 0]) / 2
    row = {
        "schema": 1,
        "frame": frame.index,
        "file": name,
        "item_index": item_index,
        "start_s": frame.start_s,
        "middle_s": frame.middle_s,
        "total_x_px": truth.total_yx_px[1],
        "total_y_px": truth.total_yx_px[0],
        "step_x_px": truth.step_yx_px[1],
        "step_y_px": truth.step_yx_px[0],
        "exx": exx,
        "eyy": eyy,
        "exy": exy,
        "hydrostatic": (exx + eyy) / 2,
        "columns": int(truth.visible.sum()),
        "columns_all": len(truth.columns),
        "vacancies": len(truth.vacancies_yx_px),
        "pixel_size_nm": scenario.pixel_size_nm,
        "crystal": scenario.crystal,
    }
    return json.dumps(row, allow_nan=False) + "\n"


def _without_nan(tree: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what was left open becomes null."""
    return {
        key: _without_nan(value) if isinstance(value, dict) else None if value != value else value
        for key, value in tree.items()
    }


class TruthFolder:
    """Truth written beside a session: truth.jsonl, scenario.json, and for each frame NNNNNN.npz and NNNNNN.csv (X,Y).

    The table holds the as-scanned centres of the columns that can be seen (d' at least 2.5); the archive holds every column:
    `seen_xy_px`, `ideal_xy_px`, `site`, `cell`, `electrons`, `d_prime`, and `vacancies_xy_px`.
    """

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._scenario = scenario
        self._lines = (folder / "truth.jsonl").open("x", encoding="utf-8", newline="\n")
        about = {"schema": 1, "software": f"atomid-live {__version__}", "scenario": _without_nan(asdict(scenario))}
        (folder / "scenario.json").write_text(json.dumps(about, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def add(self, frame: SimulatedFrame, name: str, item_index: int = 0) -> None:
        """Write the truth of one frame."""
        truth = frame.truth
        np.savez(
            self.folder / f"{frame.index:06d}.npz",
            seen_xy_px=truth.seen_yx_px[:, ::-1],
            ideal_xy_px=truth.columns.yx_px[:, ::-1],
            site=truth.columns.site,
            cell=truth.columns.cell,
            electrons=truth.electrons,
            d_prime=truth.d_prime,
            vacancies_xy_px=truth.vacancies_yx_px[:, ::-1],
        )
        table = "".join(f"{x:.4f},{y:.4f}\n" for y, x in truth.seen_yx_px[truth.visible].tolist())
        (self.folder / f"{frame.index:06d}.csv").write_text("X,Y\n" + table, encoding="utf-8", newline="\n")
        self._lines.write(truth_line(self._scenario, frame, name, item_index))
        self._lines.flush()

    def close(self) -> None:
        """Close the list; may be called twice."""
        self._lines.close()
