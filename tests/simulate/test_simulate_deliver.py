"""Files turn up as the mode says, with the truth beside them, and nothing is overwritten."""

import json
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from atomid_live.errors import UsageError
from atomid_live.simulate import microscope
from atomid_live.simulate.acquire import Session
from atomid_live.simulate.deliver import Delivery, SingleFiles
from atomid_live.simulate.scenario import Scenario

SMALL = Scenario(shape=(64, 96), pixel_size_nm=0.02, frames=9, seed=3, drift_px_per_frame=(0.5, -1.0))


def pixels_of(path: Path, index: int = 0) -> np.ndarray:
    """HAADF image of a written file."""
    with h5py.File(path) as h5:
        (key,) = h5["Data/Image"]
        return np.asarray(h5[f"Data/Image/{key}/Data"][..., index])


def truth_of(folder: Path) -> list[dict[str, object]]:
    """Lines of the truth."""
    text = (microscope.truth_folder(folder) / "truth.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("mode", ["rename", "direct", "slow"])
def test_one_file_per_frame(tmp_path: Path, mode: microscope.Mode) -> None:
    folder = tmp_path / "in"
    assert microscope.simulate_session(folder, SMALL, pace_s=0.0, mode=mode) == 9
    session = Session(SMALL)
    lines = truth_of(folder)
    assert len(list(folder.iterdir())) == len(lines) == 9
    for k in (0, 8):
        np.testing.assert_array_equal(pixels_of(folder / str(lines[k]["file"])), session.frame(k).pixels)


def test_a_growing_stack(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    microscope.simulate_session(folder, SMALL, pace_s=0.0, mode="stack")
    (path,) = folder.iterdir()
    np.testing.assert_array_equal(pixels_of(path, 5), Session(SMALL).frame(5).pixels)
    assert [line["item_index"] for line in truth_of(folder)] == list(range(9))
    with pytest.raises(UsageError, match="growing stack"):
        microscope.simulate_session(tmp_path / "t", SMALL, pace_s=0.0, mode="stack", kind="tif")


def test_faults_lie_beside_good_files(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    microscope.simulate_session(folder, SMALL, pace_s=0.0, mode="faulty")
    names = {path.name for path in folder.iterdir()}
    assert {"mos2_HAADF_0001_truncated.emd", "mos2_HAADF_0003_empty.emd", "mos2_HAADF_0005_duplicate.emd"} <= names
    assert "mos2_HAADF_0006_renamed.emd" in names
    assert "mos2_HAADF_0006.emd" not in names
    assert (folder / "mos2_HAADF_0003_empty.emd").stat().st_size == 0
    assert (folder / "mos2_HAADF_0005_duplicate.emd").read_bytes() == (folder / "mos2_HAADF_0005.emd").read_bytes()
    with pytest.raises(OSError, match="truncated"):
        pixels_of(folder / "mos2_HAADF_0001_truncated.emd")
    np.testing.assert_array_equal(pixels_of(folder / "mos2_HAADF_0001.emd"), Session(SMALL).frame(1).pixels)


def test_truth_uses_x_and_y(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    microscope.simulate_session(folder, SMALL, pace_s=0.0)
    truth = Session(SMALL).frame(4).truth
    line = truth_of(folder)[4]
    assert (line["total_y_px"], line["total_x_px"]) == pytest.approx((2.0, -4.0))
    beside = microscope.truth_folder(folder)
    with np.load(beside / "000004.npz") as archive:
        np.testing.assert_array_equal(archive["seen_xy_px"], truth.seen_yx_px[:, ::-1])
        assert archive["vacancies_xy_px"].shape[1] == 2
    table = np.loadtxt(beside / "000004.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(table, truth.seen_yx_px[truth.visible][:, ::-1], atol=1e-4)
    assert line["columns"] == len(table)
    about = json.loads((beside / "scenario.json").read_text(encoding="utf-8"))["scenario"]
    assert (about["crystal"], about["edge_nm"], about["camera"]["bits"]) == ("mos2", None, 16)


def test_tiff_is_calibrated_and_numpy_is_bare(tmp_path: Path) -> None:
    pixels = Session(SMALL).frame(0).pixels
    microscope.simulate_session(tmp_path / "t", SMALL, pace_s=0.0, kind="tif")
    with tifffile.TiffFile(tmp_path / "t" / "mos2_HAADF_0000.tif") as tif:
        assert tif.is_imagej
        numerator, denominator = tif.pages[0].tags["XResolution"].value
        assert numerator / denominator == pytest.approx(50000.0)
        np.testing.assert_array_equal(tif.asarray(), pixels)
    microscope.simulate_session(tmp_path / "n", SMALL, pace_s=0.0, kind="npy")
    np.testing.assert_array_equal(np.load(tmp_path / "n" / "mos2_HAADF_0000.npy"), pixels)


def test_other_signals_travel_in_the_same_file(tmp_path: Path) -> None:
    microscope.simulate_session(tmp_path / "in", SMALL, pace_s=0.0, extra=("BF-S", "DPC"))
    with h5py.File(tmp_path / "in" / "mos2_HAADF_0000.emd") as h5:
        kinds = sorted(h5["Data/Image"][key]["Data"].dtype.kind for key in h5["Data/Image"])
    assert kinds == ["V", "u", "u"]


def test_stop_ends_the_session_between_frames(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    assert microscope.simulate_session(tmp_path / "in", SMALL, pace_s=0.0, stop=stop) == 0
    assert truth_of(tmp_path / "in") == []


def test_a_slow_file_stopped_half_way_has_no_truth(tmp_path: Path) -> None:
    stop = threading.Event()
    writer = SingleFiles(Delivery(tmp_path, SMALL, "slow", pace_s=100.0))
    stop.set()
    assert writer.deliver(Session(SMALL).frame(0), stop) is None
    (left,) = tmp_path.iterdir()
    with pytest.raises(OSError, match="truncated"):
        pixels_of(left)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    microscope.simulate_session(folder, SMALL, pace_s=0.0)
    with pytest.raises(UsageError, match="truth of another session"):
        microscope.simulate_session(folder, SMALL, pace_s=0.0)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mos2_HAADF_0000.emd").write_text("precious")
    with pytest.raises(UsageError, match="not overwritten"):
        microscope.simulate_session(other, SMALL, pace_s=0.0)
    with pytest.raises(UsageError, match="unknown mode 'magic'"):
        microscope.simulate_session(tmp_path / "third", SMALL, pace_s=0.0, mode="magic")  # type: ignore[arg-type]


def test_bench_frames_hold_about_seven_thousand_columns(tmp_path: Path) -> None:
    paths = microscope.bench_frames(tmp_path / "bench", 2)
    assert len({path.read_bytes() for path in paths}) == 2
    truth = Session(microscope.bench_scenario(2)).frame(1).truth
    assert 6600 < truth.visible.sum() < 7400


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        str(tmp_path / "in"),
        "--frames",
        "3",
        "--pace",
        "0",
        "--size",
        "64",
        "96",
        "--crystal",
        "SrTiO3",
        "--strain",
        "0.01",
    ]
    assert microscope.main(words) == 0
    assert "3 frames delivered" in capsys.readouterr().out
    lines = truth_of(tmp_path / "in")
    assert lines[0]["hydrostatic"] == 0.0
    assert lines[-1]["hydrostatic"] == pytest.approx(0.01)
    assert microscope.main(words) == 2
    assert microscope.main([]) == 2
    assert "say where" in capsys.readouterr().err


def test_session_for_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microscope, "live_scenario", lambda crystal, frames, seed, pace: SMALL)
    assert microscope.write_session(tmp_path / "in", frames=9, pace_s=0.0) == 0
    assert len(truth_of(tmp_path / "in")) == 9
