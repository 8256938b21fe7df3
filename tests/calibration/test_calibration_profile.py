"""Profiles: written, read back, refused where they do not fit, applied to frames."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atomid_live.calibration.profile import Mode, Profile, as_toml, calibrated, find_profile, read_profile, write_profile
from atomid_live.errors import CalibrationError
from atomid_live.types import Detections, Frame, FrameMeta, Origin, Reading, Result, ScanMotion

META = FrameMeta(dwell_s=1e-5, scan_rotation_rad=0.0, beam_energy_ev=300e3)
PROFILE = Profile(
    "spectra/usual",
    (1.01, 0.98),
    (1e-4, 2e-4),
    0.012,
    3e-4,
    mode=Mode(0.0, 10.0, 300.0, (0.012, 0.012)),
    provenance={"crystal": "Si", "files": [{"name": 'a "b".emd', "sha256": "00"}]},
)


def frame(pixel_nm: tuple[float, float] = (0.012, 0.012), meta: FrameMeta = META) -> Frame:
    return Frame(0, np.zeros((40, 60)), 0.0, Origin("x"), pixel_size_yx_nm=pixel_nm, scale_source="file", meta=meta)


def test_what_is_written_is_read_and_an_older_one_is_kept(tmp_path: Path) -> None:
    first = write_profile(PROFILE, tmp_path)
    assert first == tmp_path / "spectra/usual.toml"
    again = read_profile(first)
    assert replace(again, provenance={}) == replace(PROFILE, provenance={}) or math.isnan(again.rotation_mrad)
    assert again.scale_xy == PROFILE.scale_xy and again.shear == PROFILE.shear and again.mode == PROFILE.mode
    assert again.provenance["files"][0]["name"] == 'a "b".emd'
    write_profile(replace(PROFILE, shear=0.02), tmp_path)
    assert read_profile(first).shear == 0.02 and read_profile(tmp_path / "spectra/usual.1.toml").shear == 0.012
    assert find_profile("spectra/usual", (tmp_path,)) == first


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scale = [", "not valid TOML"),
        ("schema = 2", "schema 2"),
        (as_toml(PROFILE).replace("scale_x = 1.01", "scale_x = 11.0"), "scale_x"),
        (as_toml(PROFILE).replace("shear = 0.012", ""), "shear"),
        (as_toml(PROFILE).replace("sigma_scale_y = 0.0002", "sigma_scale_y = true"), "sigma_scale_y"),
    ],
)
def test_a_broken_profile_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CalibrationError, match=words):
        read_profile(path)


def test_an_unknown_name_lists_the_known(tmp_path: Path) -> None:
    write_profile(PROFILE, tmp_path)
    with pytest.raises(CalibrationError, match="spectra/usual"):
        find_profile("spectra/other", (tmp_path,))
    with pytest.raises(CalibrationError, match="check --calibration"):
        read_profile(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (frame(meta=replace(META, scan_rotation_rad=math.pi / 2)), "scan rotation"),
        (frame(meta=replace(META, dwell_s=2e-5)), "dwell"),
        (frame(meta=replace(META, beam_energy_ev=60e3)), "keV"),
        (frame((math.nan, math.nan)), "--pixel-size-nm"),
        (frame((0.12, 0.12)), "pixel size"),
    ],
)
def test_another_mode_is_refused_with_the_reason(changed: Frame, words: str) -> None:
    with pytest.raises(CalibrationError, match=words):
        calibrated(changed, PROFILE)


def test_a_frame_gets_scale_and_shear_once() -> None:
    given = calibrated(frame((0.012, 0.010)), PROFILE)
    assert given.pixel_size_yx_nm == pytest.approx((0.012 * 0.98, 0.010 * 1.01)) and given.scale_source == "calibration"
    assert given.distortion.shear == 0.012 and given.distortion.sigma_scale_yx == pytest.approx((2e-4 / 0.98, 1e-4 / 1.01))
    assert calibrated(given, PROFILE) is given
    unsaid = calibrated(frame(meta=FrameMeta()), PROFILE)
    assert unsaid.scale_source == "calibration"


def test_positions_are_those_of_the_middle_of_the_frame_in_an_upright_raster() -> None:
    """A point that moves down while an inclined scan writes it is put back where it was at mid-frame."""
    shape, size = (41, 60), (0.02, 0.01)
    k, lean = (0.01, -0.03), 0.012
    true_nm = np.array([[0.1, 0.2], [-0.3, 0.05], [0.35, -0.2]])
    down = true_nm[:, 0] / size[0]
    rows = down / (1 - k[0])
    cols = (true_nm[:, 1] - lean * true_nm[:, 0]) / size[1] + k[1] * rows
    seen = np.stack([rows + 20, cols + 29.5], axis=1)
    n = len(seen)
    found = Detections(seen, np.ones(n), np.ones((n, 2)), np.ones(n), np.zeros(n, np.int64))
    given = calibrated(frame((0.02 / 0.98, 0.01 / 1.01)), replace(PROFILE, mode=Mode()))
    result = Result(0, shape, 0.0, "sender", Origin("x"), found, size, distortion=given.distortion,
                    reading=Reading(motion=ScanMotion(k, (0.0, 0.0), "")))  # fmt: skip
    back = (result.corrected_yx_px - np.array([20, 29.5])) * np.array(size)
    np.testing.assert_allclose(back, true_nm, atol=1e-12)
