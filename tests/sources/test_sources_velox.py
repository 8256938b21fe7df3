"""Velox files: real ones against h5py and RosettaSciIO, and written ones for what real ones do not show."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from velox_files import UUID, metadata

from atomid_live.errors import AtomidError, FileNotReadyError, NotAFrameError, UnreadableFileError
from atomid_live.sources.files import read_batch
from atomid_live.sources.readers import hdf5, velox_emd
from atomid_live.sources.readers.raw import ReadOptions

TAKE = ReadOptions(accept_zero_tail=True)


def real_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted([*folder.glob("formats/velox/*.emd"), *folder.glob("unlabelled/*.emd")]):
        yield path.name, path.read_bytes()
    for archive in sorted(folder.glob("formats/velox/*.zip")):
        with zipfile.ZipFile(archive) as opened:
            for name in opened.namelist():
                if name.endswith(".emd"):
                    yield name, opened.read(name)


EXPECTED = {
    ("fei_SI_SuperX-HAADF_10frames_10x50.emd", "HAADF"): (10, (50, 10), 1.23401),
    ("fei_emd_image.emd", "HAADF"): (1, (512, 512), 5.302415),
    ("fei_emd_si.emd", "HAADF"): (5, (16, 16), 5.302415),
    ("fei_example_dpc_titles.emd", "DF4"): (4, (2, 2), 0.09962),
    ("fei_example_tem_stack.emd", "BM-Ceta"): (2, (3, 3), 0.008173),
    ("four_detectors.emd", "HAADF"): (1, (128, 128), 87.370796),
    ("four_detectors.emd", "BF"): (1, (128, 128), 87.370796),
    ("spectra_twin_boundary.emd", "HAADF"): (1, (1024, 1024), 0.008006),
    ("spectra_ws2.emd", "haadf"): (1, (1024, 1024), 0.010622),
    ("example_velox_EELS_EDS.emd", "DF-S"): (2, (128, 128), 158.658038),
    ("SI_empty selection.emd", "HAADF"): (1, (16, 20), 1.996849),
    ("Test SI 16x16 215 kx.emd", "HAADF"): (2, (16, 16), 3.599249),
    ("Test SI 16x16 ReducedData 215 kx.emd", "HAADF"): (1, (16, 16), 3.599249),
}


def test_every_real_file_reads_as_h5py_reads_it_or_says_why_not(real_data: Path) -> None:
    names = set()
    for name, data in real_files(real_data):
        names.add(name)
        for detector in ("HAADF", "haadf", "DF4", "BF", "BM-Ceta", "DF-S"):
            expected = EXPECTED.get((name, detector))
            try:
                contents = velox_emd.scan(io.BytesIO(data), ReadOptions(detector, accept_zero_tail=True))
            except (NotAFrameError, UnreadableFileError):
                assert expected is None, (name, detector)
                continue
            frames = [contents.load(key) for key in contents.keys]
            with h5py.File(io.BytesIO(data)) as file:
                for key, raw in zip(contents.keys, frames, strict=True):
                    np.testing.assert_array_equal(raw.pixels, file[f"Data/Image/{key[0]}/Data"][..., key[1]])
            if expected is not None:
                assert (len(frames), frames[0].pixels.shape) == expected[:2], name
                assert frames[0].pixel_size_yx_nm == pytest.approx((expected[2], expected[2]), rel=1e-4)
                assert contents.waiting == ""
    assert {name for name, _ in EXPECTED} <= names


def test_spectra_agrees_with_rosettasciio(real_data: Path) -> None:
    reader = pytest.importorskip("rsciio.emd")
    for name, pm in (("spectra_twin_boundary.emd", 8.0063581), ("spectra_ws2.emd", 10.622316)):
        path = real_data / "unlabelled" / name
        (batch,) = read_batch(path, TAKE, lambda key: True, 4).loaded
        (other,) = reader.file_reader(str(path), select_type="images")
        assert batch.raw is not None
        np.testing.assert_array_equal(batch.raw.pixels, other["data"])
        assert batch.raw.pixel_size_yx_nm == pytest.approx((pm / 1e3, pm / 1e3), rel=1e-6)
        assert other["axes"][0]["scale"] == pytest.approx(batch.raw.pixel_size_yx_nm[0], rel=1e-6)
        assert batch.raw.time_source == "estimated"
        assert batch.raw.meta.frame_time_s == pytest.approx(22.58944)
        assert batch.raw.meta.detector == "HAADF"


def test_both_libraries_give_the_same(real_data: Path) -> None:
    data = (real_data / "formats/velox/fei_SI_SuperX-HAADF_10frames_10x50.emd").read_bytes()
    pure, library = (velox_emd._scan_tree(kind(io.BytesIO(data)), TAKE) for kind in hdf5.LIBRARIES)
    assert pure.keys == library.keys
    for key in pure.keys:
        a, b = pure.load(key), library.load(key)
        np.testing.assert_array_equal(a.pixels, b.pixels)
        assert a.meta == b.meta and a.time_s == b.time_s


def test_no_prefix_and_no_zero_tail_of_a_real_file_is_taken_for_whole(real_data: Path) -> None:
    data = (real_data / "formats/velox/four_detectors.emd").read_bytes()
    for part in np.linspace(0, len(data) - 1, 23).astype(int):
        with pytest.raises(FileNotReadyError):
            velox_emd.scan(io.BytesIO(data[:part]), TAKE)
    whole = velox_emd.scan(io.BytesIO(data), TAKE)
    truth = whole.load(whole.keys[0]).pixels
    for part in np.linspace(0, len(data) - 1, 23).astype(int):
        try:
            contents = velox_emd.scan(io.BytesIO(data[:part] + bytes(len(data) - part)), ReadOptions())
            pixels = contents.load(contents.keys[0]).pixels
        except AtomidError:
            continue
        np.testing.assert_array_equal(pixels, truth)


def test_bad_files_are_refused(real_data: Path) -> None:
    for path in (real_data / "formats" / "bad").iterdir():
        with pytest.raises(UnreadableFileError):
            read_batch(path, TAKE, lambda key: True, 1)


def test_times_numbers_and_description_of_a_series(tmp_path: Path, velox_stack: Any, frames: Any) -> None:
    path = velox_stack(tmp_path / "a.emd", [frames(k) for k in range(3)])
    loaded = read_batch(path, TAKE, lambda key: True, 9).loaded
    assert [one.raw.time_s for one in loaded if one.raw] == pytest.approx([1726606301.25, 1726606303.75, 1726606306.25])
    first = loaded[0].raw
    assert first is not None
    assert first.time_source == "estimated" and first.time_sigma_s == 0.5
    assert first.pixel_size_yx_nm == pytest.approx((0.009, 0.008))
    assert (first.meta.dwell_s, first.meta.scan_rotation_rad, first.meta.beam_energy_ev) == (2e-6, 0.5, 2e5)
    assert [one.raw.index for one in loaded if one.raw] == [1, 2, 3]


def test_missing_keys_mean_unknown_never_one(tmp_path: Path, velox_stack: Any, frames: Any) -> None:
    said = {"BinaryResult": {"Detector": "HAADF"}, "Scan": {}, "Acquisition": {}, "Optics": "", "CustomProperties": None}
    (loaded,) = read_batch(velox_stack(tmp_path / "a.emd", [frames(1)], **said), TAKE, lambda key: True, 1).loaded
    assert loaded.raw is not None and all(map(math.isnan, loaded.raw.pixel_size_yx_nm))
    assert loaded.raw.scale_source == "unknown" and loaded.raw.time_source == "arrival"
    assert loaded.raw.time_s == pytest.approx((tmp_path / "a.emd").stat().st_mtime)


def test_dcfi_and_other_computed_images_are_left_out(tmp_path: Path, velox: Any, frames: Any) -> None:
    with velox(tmp_path / "a.emd", "12") as file:
        for letter in "abc":
            file.image(letter * 32, (24, 40), np.uint16)
            file.extend(letter * 32, 1)
            file.write(letter * 32, 0, frames(ord(letter)), metadata())
        file.text("Operations/StemInputOperation/1", {"dataPath": f"/Data/Image/{'a' * 32}", "detector": "HAADF"})
        file.text("Operations/FrameIntegrationOperation/2", {"dataPath": f"/Data/Image/{'b' * 32}"})
        file.text("Displays/ImageDisplay/3", {"data": "/SharedProperties/ImageSeriesDataReference/4", "title": "HAADF DCFI"})
        file.text("SharedProperties/ImageSeriesDataReference/4", {"dataPath": f"/Data/Image/{'c' * 32}"})
    loaded = read_batch(tmp_path / "a.emd", TAKE, lambda key: True, 9).loaded
    assert [one.origin.item for one in loaded] == ["a" * 32]


def test_a_newer_version_is_read_with_a_warning(
    tmp_path: Path, velox: Any, frames: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with velox(tmp_path / "a.emd", "17") as file:
        file.image(UUID, (24, 40), np.uint16)
        file.extend(UUID, 1)
        file.write(UUID, 0, frames(1))
    assert len(read_batch(tmp_path / "a.emd", TAKE, lambda key: True, 9).loaded) == 1
    assert "newer" in caplog.text


def test_room_made_for_frames_is_not_taken_for_frames(tmp_path: Path, velox: Any, frames: Any) -> None:
    with velox(tmp_path / "a.emd") as file:
        file.image(UUID, (24, 40), np.uint16)
        file.extend(UUID, 4)
        file.write(UUID, 0, frames(0))
        file.write(UUID, 1, frames(1))
    batch = read_batch(tmp_path / "a.emd", TAKE, lambda key: True, 9)
    assert [one.origin.item_index for one in batch.loaded] == [0, 1]
    assert "frame 3 of 4" in batch.waiting


def test_a_frame_without_its_metadata_waits(tmp_path: Path, velox: Any, frames: Any) -> None:
    with velox(tmp_path / "a.emd") as file:
        file.image(UUID, (24, 40), np.uint16)
        file.extend(UUID, 2)
        file.write(UUID, 0, frames(0))
        file.write(UUID, 1, frames(1))
        file.file[f"Data/Image/{UUID}/Metadata"][:, 1] = 0
    batch = read_batch(tmp_path / "a.emd", TAKE, lambda key: True, 9)
    assert len(batch.loaded) == 1 and "metadata of frame 2" in batch.waiting


def test_a_stack_that_grows_live_never_gives_a_wrong_frame(tmp_path: Path, velox: Any, frames: Any) -> None:
    path, seen = tmp_path / "a.emd", 0
    with velox(path) as file:
        file.image(UUID, (24, 40), np.uint16)
        file.file.flush()
        for k in range(6):
            file.extend(UUID, k + 1)
            for written in (False, True):
                if written:
                    file.write(UUID, k, frames(k))
                if k % 2:
                    file.file.flush()
                try:
                    batch = read_batch(path, ReadOptions(), lambda key: True, 99)
                except FileNotReadyError:
                    continue
                for one in batch.loaded:
                    assert one.raw is not None
                    np.testing.assert_array_equal(one.raw.pixels, frames(one.origin.item_index))
                seen = max(seen, len(batch.loaded))
    assert seen >= 3
    assert len(read_batch(path, ReadOptions(), lambda key: True, 99).loaded) == 6


def _image_group(path: Path, **data: Any) -> None:
    with h5py.File(path, "w", libver="earliest") as file:
        file.create_dataset("Version", (1,), h5py.string_dtype(), ['{"version": "11", "format": "Velox"}'])
        group = file.create_group(f"Data/Image/{UUID}")
        group.create_dataset("Metadata", data=np.full((64, 1), 32, np.uint8), chunks=(64, 1))
        group.create_dataset("Data", **data)


def test_nothing_is_read_from_outside_the_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"S" * 4000)
    _image_group(tmp_path / "ext.emd", shape=(20, 30, 1), dtype=np.uint8, external=[(str(secret), 0, 600)])
    with pytest.raises(AtomidError):
        read_batch(tmp_path / "ext.emd", TAKE, lambda key: True, 1)
    layout = h5py.VirtualLayout((20, 30, 1), np.uint8)
    layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (20, 30, 1))
    with h5py.File(tmp_path / "virtual.emd", "w") as file:
        file.create_dataset("Version", (1,), h5py.string_dtype(), ['{"version": "11", "format": "Velox"}'])
        file.create_group(f"Data/Image/{UUID}").create_virtual_dataset("Data", layout)
        file[f"Data/Image/{UUID}"].create_dataset("Metadata", data=np.full((64, 1), 32, np.uint8))
    with pytest.raises(AtomidError):
        read_batch(tmp_path / "virtual.emd", TAKE, lambda key: True, 1)
    with h5py.File(tmp_path / "link.emd", "w", libver="earliest") as file:
        file.create_dataset("Version", (1,), h5py.string_dtype(), ['{"version": "11", "format": "Velox"}'])
        file["Data"] = h5py.ExternalLink(str(tmp_path / "ext.emd"), "/Data")
    with pytest.raises(AtomidError):
        read_batch(tmp_path / "link.emd", TAKE, lambda key: True, 1)


def test_bombs_are_refused(tmp_path: Path) -> None:
    _image_group(tmp_path / "huge.emd", shape=(10**6, 10**6, 1), dtype=np.uint64, chunks=(100, 100, 1))
    with pytest.raises(UnreadableFileError, match="limit"):
        read_batch(tmp_path / "huge.emd", TAKE, lambda key: True, 1)
    _image_group(tmp_path / "zip.emd", data=np.zeros((512, 512, 1), np.uint8), chunks=(512, 512, 1), compression="gzip")
    with pytest.raises(UnreadableFileError, match="compressed"):
        read_batch(tmp_path / "zip.emd", TAKE, lambda key: True, 1)


def test_an_emd_that_is_none_says_so(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "berkeley.emd", "w") as file:
        file.create_group("signals")
    with pytest.raises(UnreadableFileError, match="not from Velox"):
        read_batch(tmp_path / "berkeley.emd", TAKE, lambda key: True, 1)
    (tmp_path / "text.emd").write_text("no HDF5 at all, but long enough to have a header of sixty-four bytes.")
    with pytest.raises(UnreadableFileError, match="no HDF5"):
        read_batch(tmp_path / "text.emd", TAKE, lambda key: True, 1)
