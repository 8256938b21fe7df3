"""`calibrate` on simulated scans of known distortion, and what a calibrated session makes of the same frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from distorted import TRUE_PIXEL_NM, expected, scenario, write

from atomid_live.assemble import Prepared
from atomid_live.calibrate import Task, crystal_cells, measure, run_calibrate
from atomid_live.errors import CalibrationError, SettingsError, UsageError
from atomid_live.pipeline import Pipeline
from atomid_live.settings import FrameSettings, resolve
from atomid_live.sources.files import read_frames
from atomid_live.strain.distortion import SeenLattice, Where, _seen_by, of_pair, seen_lattice
from atomid_live.strain.reference import MATERIALS, Cell
from atomid_live.types import Frame, Origin, ScanMotion

PAIR = Path(__file__).resolve().parents[3] / "shared/data/series/scan_pair"
STRETCH, SHEAR, NOMINAL = 0.012, -0.008, 0.0172


def prepared(**given: object) -> Prepared:
    return Prepared(*resolve(None, {"detect.model": "dog", "threads": 1, **given}))


def test_one_frame_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Measured within its errors; with the profile the same frame shows no strain, and another rotation is refused."""
    files = write(tmp_path / "frames", scenario(STRETCH, SHEAR), NOMINAL)
    task = Task(tuple(files), "WS2", "sim", folder=tmp_path / "calibration")
    found, _, _ = measure(task, prepared())
    away = np.array([*found.scale_xy, found.shear]) - expected(STRETCH, SHEAR, NOMINAL)
    sigma = np.array([*found.sigma_scale_xy, found.sigma_shear])
    assert (np.abs(away) < 4e-4).all() and (np.abs(away) < 3 * sigma).all()
    assert run_calibrate(prepared(), task) == 0
    assert "--calibration sim/rot0-dwell10us-300kV" in capsys.readouterr().out
    path = tmp_path / "calibration/sim/rot0-dwell10us-300kV.toml"
    given = {"frame.calibration": str(path), "strain.reference": "material:WS2"}
    built = prepared(**given)
    frame = next(iter(read_frames(files[0], FrameSettings())))
    result = Pipeline(built.detector(), built.settings).process(frame)
    assert result.scale_source == "calibration" and result.pixel_size_yx_nm[1] == pytest.approx(TRUE_PIXEL_NM, rel=3e-4)
    assert "scan distortion (sim/" in result.reading.correction and "not known" in result.reading.correction
    for name in ("exx", "eyy", "exy"):
        assert abs(result.reading.strain_corrected[name].mean) < 1e-3
    bare = Pipeline(built.detector(), prepared(**{"strain.reference": "material:WS2"}).settings).process(frame)
    assert abs(bare.reading.strain["exx"].mean) > 0.01
    text = path.read_text(encoding="utf-8").replace("scan_rotation_deg = 0", "scan_rotation_deg = 45")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CalibrationError, match="scan rotation"):
        Pipeline(built.detector(), prepared(**given).settings).process(frame)


def test_a_series_takes_its_drift_off(tmp_path: Path) -> None:
    """The drift of 2, -3 px a frame would be half a per cent of stretch; it is measured and gone."""
    made = scenario(-0.01, 0.015, frames=5, drift_px_per_frame=(2.0, -3.0), vacancy_fraction=0.015, frame_time_s=25.0)
    files = write(tmp_path, made, 0.018)
    found, frames, notes = measure(Task(tuple(files), "WS2", "sim"), prepared())
    away = np.array([*found.scale_xy, found.shear]) - expected(-0.01, 0.015, 0.018)
    assert len(frames) == 5 and "measured and taken off in 3" in notes["drift"]
    assert (np.abs(away) < 5e-4).all() and found.sigma_shear < 1e-3


@pytest.mark.parametrize("where", ["coils", "scan"])
@pytest.mark.parametrize("cell", [Cell(0.3905, 0.3905, 90.0), MATERIALS["Si"][0]])
def test_a_pair_tells_drift_from_distortion(where: Where, cell: Cell) -> None:
    """Scales, shear, drift and the error of the turn come back, and where the distortion stays is recognised."""
    truth = np.array([1.013, 0.991, 0.012, 0.3, 0.004, -0.008, 0.002])
    lattices = _seen_by(truth, cell.matrix, np.pi / 2, where)
    rng, s = np.random.default_rng(4), 2e-5
    first, second = (SeenLattice((np.eye(2) + rng.normal(0, s, (2, 2))) @ m, np.full((2, 2), s)) for m in lattices)
    found = of_pair(first, second, (cell,))
    got = np.array([*found.scale_xy, found.shear, *found.drift_xy, found.rotation_mrad / 1000])
    sigma = np.array([*found.sigma_scale_xy, found.sigma_shear, *found.sigma_drift_xy, found.sigma_rotation_mrad / 1000])
    assert found.where == where
    assert (np.abs(got - truth[[0, 1, 2, 4, 5, 6]]) < 4 * sigma).all() and sigma.max() < 4e-4
    with pytest.raises(CalibrationError, match="turn-deg"):
        of_pair(first, second, (cell,), 60.0)


def test_what_cannot_be_calibrated_is_refused(tmp_path: Path) -> None:
    files = tuple(write(tmp_path, scenario(0.0, 0.0)))
    with pytest.raises(CalibrationError, match="not the crystal's"):
        measure(Task(files, "si110", "sim"), prepared())
    with pytest.raises(UsageError, match="exactly two"):
        measure(Task(files, "WS2", "sim", pair=True), prepared())
    with pytest.raises(UsageError, match="names a file"):
        run_calibrate(prepared(), Task(files, "WS2", "../sim"))
    with pytest.raises(SettingsError, match="known are"):
        crystal_cells("unobtainium", None)


def test_crystals_by_their_usual_names() -> None:
    assert crystal_cells("si110", None) == crystal_cells("Si", "110") == MATERIALS["Si"]
    assert crystal_cells("si", "001") == MATERIALS["Si-001"]
    assert crystal_cells("srtio3", None) == MATERIALS["SrTiO3"]


@pytest.mark.skipif(not PAIR.is_dir(), reason="the scan pair is not on this machine")
def test_drift_of_a_foreign_pair_is_on_the_slow_axis_only() -> None:
    """Against the undistorted picture the fast axis of either scan is right to 5e-4, the slow one off by up to 5 %."""
    import cv2

    built = prepared(**{"strain.reference": "frame", "frame.pixel_size_nm": 0.01})
    seen = {}
    for name in ("Image0", "Image1", "Imageideal"):
        pixels = cv2.imread(str(PAIR / f"{name}.tif"), cv2.IMREAD_UNCHANGED)
        frame = Frame(0, pixels, 0.0, Origin(name), pixel_size_yx_nm=(0.01, 0.01), scale_source="user")
        result = Pipeline(built.detector(), built.settings).process(frame)
        seen[name] = seen_lattice(result, ScanMotion((0.0, 0.0), (0.0, 0.0), ""))
    a, b = seen["Imageideal"].matrix_nm.T
    gamma = np.degrees(np.arccos(a @ b / np.hypot(*a) / np.hypot(*b)))
    cell = Cell(float(np.hypot(*a)), float(np.hypot(*b)), float(gamma))
    found = of_pair(seen["Image0"], seen["Image1"], (cell, cell.centred))
    assert found.scale_xy[0] == pytest.approx(1, abs=5e-4) and found.where == "scan"
    assert abs(found.rotation_mrad) < 3 and np.hypot(*found.drift_xy) > 0.02
