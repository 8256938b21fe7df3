"""Aligned mean with its error per pixel, and the TIFF it is saved as."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from atomid_live.flags import Flag
from atomid_live.sinks.average import FOLDER, AverageSink, aligned_average, tiff_bytes
from atomid_live.types import Detections, DriftEstimate, Frame, Origin, Result

SHAPE = (90, 120)


def _scene(total: tuple[float, float]) -> NDArray[np.float64]:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    return np.asarray(100 + 40 * np.sin((y - total[0]) / 4) * np.cos((x - total[1]) / 5))


def _frames(number: int, sigma: float) -> list[tuple[NDArray[np.float64], tuple[float, float]]]:
    rng = np.random.default_rng(4)
    totals = [(0.7 * k, -1.3 * k) for k in range(number)]
    return [(_scene(total) + rng.normal(0, sigma, SHAPE), total) for total in totals]


def test_drifting_frames_stand_still_in_the_newest_ones_coordinates() -> None:
    frames = _frames(8, 0.0)
    got = aligned_average(frames)
    known = got.frames == 8
    assert known.mean() > 0.75
    assert np.abs(got.mean - _scene(frames[-1][1]))[known].max() < 0.3
    blurred = np.mean([pixels for pixels, _ in frames], axis=0)
    assert np.abs(blurred - _scene(frames[-1][1])).max() > 20


def test_error_is_the_scatter_of_the_mean() -> None:
    frames = _frames(16, 5.0)
    whole = [(pixels, (float(round(t[0])), float(round(t[1])))) for pixels, t in frames]
    rng = np.random.default_rng(5)
    still = [(_scene(t) + rng.normal(0, 5.0, SHAPE), t) for _, t in whole]
    got = aligned_average(still)
    known = got.frames == 16
    assert np.sqrt(np.mean(got.error[known] ** 2)) == pytest.approx(5 / 4, rel=0.05)
    z = (got.mean - _scene(still[-1][1]))[known] / (5 / 4)
    assert np.std(z) == pytest.approx(1, abs=0.05)


def test_uncovered_pixels_are_not_guessed() -> None:
    got = aligned_average([(np.ones(SHAPE), (0.0, 0.0)), (np.ones(SHAPE), (500.0, 0.0))])
    assert np.isnan(got.error).all()
    assert (got.frames == 1).all()


def test_tiff_is_calibrated_32_bit_and_readable_by_our_own_reader() -> None:
    raw = tiff_bytes(aligned_average(_frames(3, 1.0)), (0.02, 0.01), "three")
    with tifffile.TiffFile(io.BytesIO(raw)) as file:
        assert file.series[0].shape == (3, *SHAPE)
        assert file.pages[0].dtype == np.float32
        assert file.imagej_metadata["unit"] == "nm"
        assert file.imagej_metadata["Labels"] == ["mean", "standard error", "frames"]
        over, under = file.pages[0].tags["XResolution"].value
        assert over / under == pytest.approx(100, rel=1e-6)
        over, under = file.pages[0].tags["YResolution"].value
        assert over / under == pytest.approx(50, rel=1e-6)


def _result(sequence: int, total: tuple[float, float], flags: int = 0, segment: int = 0) -> Result:
    drift = DriftEstimate(total_yx_px=total, flags=flags)
    return Result(sequence, SHAPE, 0.0, "arrival", Origin(""), Detections.empty(), segment=segment, drift=drift)


def test_every_nth_sure_frame_is_saved_and_unsure_ones_never_enter(tmp_path: Path) -> None:
    sink = AverageSink(tmp_path, 3, lossless=True)
    frame = Frame(0, np.zeros(SHAPE, np.uint16), 0.0, Origin(""))
    for k in range(7):
        unsure = int(Flag.MODULO_LATTICE) if k == 1 else 0
        sink.write(replace(frame, sequence=k, pixels=np.full(SHAPE, 100 * (k == 1), np.uint16)), _result(k, (0.0, 0.0), unsure))
    sink.write(frame, _result(7, (0.0, 0.0), segment=1))
    sink.close()
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ["000003.tif", "000006.tif"]
    assert sink.problem == ""
    assert tifffile.imread(tmp_path / FOLDER / "000003.tif")[0].max() == 0
