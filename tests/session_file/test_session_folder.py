"""A session written and read back: files, columns, numbers."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atomid_live.errors import RecordingError, UsageError
from atomid_live.flags import Flag
from atomid_live.session_file import SessionFolder, SessionInfo, find_latest, log_handler, read_session, reopen
from atomid_live.types import COMPONENTS, CorrectedStrain, FrameState, Jitter, Refused, Result, ScanMotion, Summary

Make = Callable[..., Result]
MakeRefused = Callable[..., Refused]
INFO = SessionInfo(
    "/data/watched", {"detect.model": "dog"}, {"detect.model": "command line"}, {"name": "dog", "sha256": None}, "cal-1"
)


@pytest.fixture
def folder(tmp_path: Path, clock: object) -> SessionFolder:
    return SessionFolder.create(tmp_path / "out", INFO, clock)  # type: ignore[arg-type]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_headers_are_those_of_the_contract(folder: SessionFolder, result: Make) -> None:
    folder.record(result())
    folder.close()
    assert (folder.path / "atoms/000000.csv").read_text().splitlines()[0] == (
        "frame,column_id,x_px,y_px,x_nm,y_nm,score,sigma_x_px,sigma_y_px,amplitude,site,"
        "exx,eyy,exy,rotation_mrad,hydrostatic,sigma_strain,flags,sigma_exx,sigma_eyy,sigma_exy,"
        "x_corrected_px,y_corrected_px,exx_corrected,eyy_corrected,exy_corrected,rotation_corrected_mrad,track_id,"
        "d2min_px2,grain,sample_x_px,sample_y_px"
    )
    assert (folder.path / "drift.csv").read_text().splitlines()[0] == (
        "frame,time_s,dx_px,dy_px,total_x_px,total_y_px,sigma_px,total_x_nm,total_y_nm,"
        "vx_nm_min,vy_nm_min,sigma_v_nm_min,quality,reference_frame,segment,flags,"
        "settling_s,sigma_settling_s,leaving_s,sigma_leaving_s"
    )
    strain = (folder.path / "strain.csv").read_text().splitlines()[0]
    assert strain.startswith("frame,time_s,columns,spacing_px,exx_mean,exx_std,exx_sem,eyy_mean,")
    assert ",hydrostatic_sem,gpa_exx_mean," in strain
    assert ",drift_shear_exy,drift_stretch_eyy,reference,window_nm,alarm,valid,reason,segment,flags,exx_corrected" in strain
    assert strain.endswith(
        "correction,drift_shear_sigma,drift_stretch_sigma,jitter_x_px,jitter_y_px,jitter_sigma_x_px,jitter_sigma_y_px,"
        "jitter_x_pm,jitter_y_pm,jitter_rows,gpa_bias,gpa_rms,gpa_correlation,gpa_invalid,grains"
    )


def test_corrected_strain_positions_and_jitter_stand_beside_the_raw_ones(folder: SessionFolder, result: Make) -> None:
    made = result(1)
    count, raw = len(made.detections), made.strain
    free = CorrectedStrain(raw.exx, raw.eyy - 0.01, raw.exy + 0.005, raw.rotation_mrad, 0.0, 1e-4, 2e-4)
    motion, jitter = ScanMotion((0.01, -0.02), (1e-4, 2e-4), ""), Jitter((0.2, 0.4), (0.02, 0.03), 5.0, 1.0, "")
    reading = replace(
        made.reading,
        strain_corrected={name: Summary(0.002, 0.001, 0.0004) for name in COMPONENTS},
        correction="corrected for drift",
        motion=motion,
        jitter=jitter,
    )
    sigmas = {name: np.full(count, 0.001) for name in ("sigma_exx", "sigma_eyy", "sigma_exy")}
    folder.record(replace(made, strain=replace(raw, corrected=free, **sigmas), reading=reading))
    folder.record(result(2))
    folder.close()
    first = rows(folder.path / "atoms/000001.csv")[0]
    y, x = made.detections.yx_px[0]
    assert float(first["y_corrected_px"]) == pytest.approx(y - 0.01 * (y - 19.5), abs=6e-5)
    assert float(first["x_corrected_px"]) == pytest.approx(x + 0.02 * (y - 19.5), abs=6e-5)
    assert float(first["eyy_corrected"]) == pytest.approx(float(first["eyy"]) - 0.01, abs=1.1e-6)
    line, other = rows(folder.path / "strain.csv")
    assert line["correction"] == "corrected for drift" and float(line["exx_corrected_mean"]) == 0.002
    assert float(line["jitter_x_px"]) == 0.4 and float(line["jitter_y_pm"]) == pytest.approx(0.2 * 12.5)
    assert float(line["drift_shear_sigma"]) == pytest.approx(1e-4 * 1.02) and float(line["jitter_rows"]) == 5
    assert other["correction"].startswith("not corrected") and other["eyy_corrected_mean"] == other["jitter_x_px"] == ""


def test_atoms_are_x_y_and_nm_follow_each_axis(folder: SessionFolder, result: Make) -> None:
    made = result()
    folder.record(made)
    folder.close()
    first = rows(folder.path / "atoms/000000.csv")[0]
    y, x = made.detections.yx_px[0]
    assert float(first["x_px"]) == pytest.approx(x, abs=5.1e-5)
    assert float(first["y_px"]) == pytest.approx(y, abs=5.1e-5)
    assert float(first["x_nm"]) == pytest.approx(x * 0.0125 * 1.02, abs=6e-7)
    assert float(first["y_nm"]) == pytest.approx(y * 0.0125, abs=6e-7)
    assert first["flags"] == str(int(Flag.EDGE))
    assert float(first["hydrostatic"]) == pytest.approx((made.strain.exx[0] + made.strain.eyy[0]) / 2, abs=6e-7)


def test_what_is_not_known_is_empty(folder: SessionFolder, result: Make, uncalibrated: Result) -> None:
    folder.record(uncalibrated)
    folder.record(result(2, strained=False))
    folder.close()
    first = rows(folder.path / "atoms/000001.csv")[0]
    assert first["x_nm"] == first["y_nm"] == ""
    assert rows(folder.path / "atoms/000002.csv")[0]["exx"] == ""
    drift = rows(folder.path / "drift.csv")
    assert drift[0]["total_x_nm"] == "" and drift[0]["total_x_px"] == "-2.0000"
    strain = rows(folder.path / "strain.csv")
    assert (strain[1]["exx_mean"], strain[1]["valid"], strain[1]["reason"]) == ("", "0", "'=pending, 2 of 5")
    assert read_session(folder.path).frame(1)["pixel_size_yx_nm"] is None


def test_drift_row_by_hand(folder: SessionFolder, result: Make) -> None:
    folder.record(result())
    folder.close()
    row = rows(folder.path / "drift.csv")[0]
    assert row["time_s"] == "1764000000.250000"
    assert [row[name] for name in ("dx_px", "dy_px", "total_x_px", "total_y_px")] == ["-0.2500", "0.5000", "-2.0000", "1.5000"]
    assert float(row["sigma_px"]) == pytest.approx(np.sqrt((0.03**2 + 0.04**2) / 2), abs=1e-4)
    assert float(row["total_x_nm"]) == pytest.approx(-2 * 0.0125 * 1.02)
    assert [row["vx_nm_min"], row["vy_nm_min"], row["reference_frame"]] == ["0.20000", "0.10000", "0"]


def test_a_frame_without_columns_is_an_empty_table(folder: SessionFolder, result: Make) -> None:
    folder.record(result(count=0))
    folder.close()
    assert len(read_session(folder.path).atoms(0)) == 0
    assert (folder.path / "atoms/000000.csv").read_bytes().count(b"\n") == 1


def test_the_line_names_the_atoms_file(folder: SessionFolder, result: Make) -> None:
    folder.record(result())
    text = (folder.path / "atoms/000000.csv").read_bytes()
    line = json.loads((folder.path / "frames.jsonl").read_bytes())
    assert line["atoms"] == {"file": "atoms/000000.csv", "bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    assert line["flags"] == ["segment_start"] and line["schema"] == 1
    assert {"time_ns", "received_ns", "recorded_ns", "recorded_monotonic_s", "time_source"} <= line.keys()
    folder.close()


def test_reading_gives_back_what_was_measured(folder: SessionFolder, result: Make, refused: MakeRefused) -> None:
    made = [result(0), result(2)]
    folder.record(made[0])
    folder.refuse(refused(1, FrameState.QUARANTINED))
    folder.record(made[1])
    folder.close()
    session = read_session(folder.path)
    assert session.counts == {"received": 3, "processed": 2, "dropped": 0, "skipped": 0, "failed": 0, "quarantined": 1}
    atoms = session.atoms(2)
    np.testing.assert_allclose(atoms.yx_px, made[1].detections.yx_px, atol=5.1e-5)
    np.testing.assert_allclose(atoms.detections().sigma_yx_px, made[1].detections.sigma_yx_px, atol=5.1e-5)
    np.testing.assert_array_equal(atoms.flags, made[1].detections.flags)
    np.testing.assert_allclose(atoms.strain().rotation_mrad, made[1].strain.rotation_mrad, atol=5.1e-5)
    np.testing.assert_array_equal(session.drift_table()["frame"], [0, 2])
    assert list(session.strain_table()["reference"]) == ["first:5", "first:5"]
    with pytest.raises(KeyError):
        session.atoms(1)


def test_a_changed_atoms_file_is_noticed(folder: SessionFolder, result: Make) -> None:
    folder.record(result())
    folder.close()
    path = folder.path / "atoms/000000.csv"
    path.write_bytes(path.read_bytes().replace(b"0,1,", b"0,9,"))
    with pytest.raises(RecordingError, match="not the file that was recorded"):
        read_session(folder.path).atoms(0)
    path.unlink()
    with pytest.raises(RecordingError, match="cannot be read"):
        read_session(folder.path).atoms(0)


def test_a_revision_corrects_without_rewriting(folder: SessionFolder, result: Make) -> None:
    folder.record(result())
    before = (folder.path / "frames.jsonl").read_bytes()
    folder.revise(0, {"drift": {"total_xy_px": [9.0, 8.0]}}, "lattice hop resolved")
    with pytest.raises(UsageError, match="no line"):
        folder.revise(5, {}, "")
    folder.close()
    assert (folder.path / "frames.jsonl").read_bytes().startswith(before)
    session = read_session(folder.path)
    assert session.frame(0)["drift"]["total_xy_px"] == [9.0, 8.0]
    assert session.frame(0)["drift"]["quality"] == 0.9
    assert session.drift_table()["total_x_px"][0] == 9.0


def test_a_number_is_recorded_once(folder: SessionFolder, result: Make, refused: MakeRefused) -> None:
    folder.record(result())
    folder.record(result(count=9))
    folder.refuse(refused(0))
    folder.close()
    assert [frame["columns"] for frame in read_session(folder.path).frames] == [5]


def test_session_json_at_start_and_end(folder: SessionFolder, result: Make, refused: MakeRefused, tmp_path: Path) -> None:
    start = json.loads((folder.path / "session.json").read_text())
    assert start["schema"] == 1 and start["outcome"] is None
    assert start["settings"] == {"detect.model": {"value": "dog", "origin": "command line"}}
    assert (
        start["model"]["name"] == "dog" and start["calibration_id"] == "cal-1" and start["versions"]["numpy"] == np.__version__
    )
    found = find_latest(tmp_path / "out", "/data/watched")
    assert found and (found.ended, found.running) == (False, True)
    folder.record(result(0))
    folder.refuse(refused(1))
    summary = folder.finish("clean", "stopped by the user", {"latency_p50_ms": 40.0})
    folder.close()
    end = json.loads((folder.path / "session.json").read_text())
    assert (end["outcome"], end["reason"], end["counts"]["received"]) == ("clean", "stopped by the user", 2)
    assert [segment["reason"] for segment in end["segments"]] == ["first frame"]
    assert json.loads((folder.path / "summary.json").read_text()) == summary
    assert summary["columns"] == {"frames": 1, "median": 5, "min": 5, "max": 5} and summary["run"] == {"latency_p50_ms": 40.0}
    found = find_latest(tmp_path / "out", "/data/watched/../watched")
    assert found and (found.path, found.ended, found.outcome, found.running) == (folder.path, True, "clean", False)
    assert find_latest(tmp_path / "out", "/data/other") is None and find_latest(tmp_path / "no", "/data/watched") is None


class FrozenClock:
    def time_ns(self) -> int:
        return 1_795_378_501_000_000_000

    def monotonic(self) -> float:
        return 0.0


def test_folders_of_one_second_get_a_suffix_and_the_newest_is_found(tmp_path: Path) -> None:
    made = [SessionFolder.create(tmp_path, INFO, FrozenClock()) for _ in range(11)]
    assert [folder.path.name for folder in made[:2]] == ["20261122T201501Z", "20261122T201501Z-2"]
    found = find_latest(tmp_path, INFO.source)
    assert found and found.path.name == "20261122T201501Z-11"
    with pytest.raises(UsageError, match="another process"):
        reopen(made[0].path)
    for folder in made:
        folder.close()


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="--out"):
        SessionFolder.create(tmp_path / "file" / "out", INFO)
    with pytest.raises(RecordingError, match="session folder"):
        read_session(tmp_path)
    with pytest.raises(RecordingError, match="schema"):
        (tmp_path / "session.json").write_text('{"schema": 2}')
        (tmp_path / "frames.jsonl").write_text("")
        read_session(tmp_path)


def test_the_log_is_utc_and_bounded(tmp_path: Path) -> None:
    handler = log_handler(tmp_path, max_bytes=500, backups=1)
    for number in range(20):
        handler.emit(logging.LogRecord("atomid_live.x", logging.INFO, "", 0, "frame %d", (number,), None))
    handler.close()
    text = (tmp_path / "session.log").read_text()
    assert text.split()[1] == "INFO" and "Z INFO    atomid_live.x: frame 19" in text
    assert {path.name for path in tmp_path.iterdir()} == {"session.log", "session.log.1"}
    assert (tmp_path / "session.log").stat().st_size <= 500
