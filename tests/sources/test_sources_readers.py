"""Readers against files whose content is known, and against files that must be refused with a clear reason."""

from __future__ import annotations

import io
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from atomid_live.errors import FileNotReadyError, NotAFrameError, UnreadableFileError
from atomid_live.settings import FrameSettings
from atomid_live.sources.files import every_frame, read_batch, read_frames
from atomid_live.sources.readers import image, npy, reader_for, tiff
from atomid_live.sources.readers.opening import LockedError, open_shared
from atomid_live.sources.readers.raw import MAX_FRAME_BYTES, Contents, ReadOptions, ZeroTailError, grey, native

ALL = ReadOptions()


def every(key: tuple[str, int]) -> bool:
    return True


def scanned(reader: Any, data: bytes, options: ReadOptions = ALL) -> Contents:
    contents: Contents = reader.scan(io.BytesIO(data), options)
    return contents


def tiff_bytes(pixels: np.ndarray[Any, Any], **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **kwargs)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, ">u2", np.uint32, np.int16, np.float32, ">f4", np.float64, np.float16])
def test_tiff_pixels_come_back_native_and_equal(dtype: Any) -> None:
    pixels = (np.arange(24 * 40).reshape(24, 40) % 251 - (100 if np.dtype(dtype).kind != "u" else 0)).astype(dtype)
    raw = scanned(tiff, tiff_bytes(pixels, byteorder=">" if np.dtype(dtype).byteorder == ">" else "<")).load(("", 0))
    assert raw.pixels.dtype.isnative and raw.pixels.flags.c_contiguous
    assert raw.pixels.dtype.itemsize >= np.dtype(dtype).itemsize
    np.testing.assert_array_equal(raw.pixels, pixels.astype(raw.pixels.dtype))


def test_tiff_pages_are_frames_and_other_shapes_are_not(frames: Any) -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for seed in range(3):
            writer.write(frames(seed), contiguous=False)
        writer.write(frames(9, (8, 8)), contiguous=False)
    contents = scanned(tiff, buffer.getvalue())
    assert contents.keys == (("", 0), ("", 1), ("", 2))
    np.testing.assert_array_equal(contents.load(("", 2)).pixels, frames(2))


@pytest.mark.parametrize(("unit", "factor"), [("nm", 1.0), ("micron", 1e3), ("\\u00B5m", 1e3), ("pm", 1e-3)])
def test_imagej_scale_is_per_axis_and_in_nm(frames: Any, unit: str, factor: float) -> None:
    data = tiff_bytes(frames(1), imagej=True, resolution=(80 * factor, 40 * factor), metadata={"unit": unit})
    raw = scanned(tiff, data).load(("", 0))
    assert raw.pixel_size_yx_nm == pytest.approx((1 / 40, 1 / 80), rel=1e-3)
    assert raw.scale_source == "file"


def test_ome_scale_is_per_axis(frames: Any) -> None:
    said = {"PhysicalSizeX": 12.5, "PhysicalSizeXUnit": "pm", "PhysicalSizeY": 25.0, "PhysicalSizeYUnit": "pm"}
    raw = scanned(tiff, tiff_bytes(frames(1), ome=True, metadata=said)).load(("", 0))
    assert raw.pixel_size_yx_nm == pytest.approx((0.025, 0.0125))


def test_printing_resolution_and_unknown_tags_are_no_scale(frames: Any) -> None:
    extra = [(65009, "d", 1, 0.0293, True)]
    raw = scanned(tiff, tiff_bytes(frames(1), resolution=(72, 72), resolutionunit=2, extratags=extra)).load(("", 0))
    assert all(math.isnan(v) for v in raw.pixel_size_yx_nm)
    assert raw.scale_source == "unknown"


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_every_prefix_of_a_tiff_is_not_ready_and_none_reads(frames: Any, compression: str | None) -> None:
    data = tiff_bytes(frames(3), compression=compression)
    for length in range(0, len(data), 41):
        with pytest.raises(FileNotReadyError):
            contents = scanned(tiff, data[:length])
            contents.load(contents.keys[0])


@pytest.mark.parametrize("written", [0.0, 0.3, 0.6, 0.9])
def test_a_reserved_copy_with_a_zero_tail_is_held_back(written: float) -> None:
    pixels = np.random.default_rng(0).integers(1, 999, (256, 300)).astype(np.uint16)
    data = tiff_bytes(pixels)
    cut = int(len(data) * written)
    with pytest.raises(FileNotReadyError):
        contents = scanned(tiff, data[:cut] + bytes(len(data) - cut))
        contents.load(contents.keys[0])


def test_a_frame_whose_end_is_really_dark_is_taken_when_asked() -> None:
    pixels = np.ones((256, 300), np.uint16)
    pixels[200:] = 0
    data = tiff_bytes(pixels)
    with pytest.raises(ZeroTailError):
        scanned(tiff, data).load(("", 0))
    taken = scanned(tiff, data, ReadOptions(accept_zero_tail=True)).load(("", 0))
    np.testing.assert_array_equal(taken.pixels, pixels)


def test_declared_size_is_checked_before_anything_is_allocated() -> None:
    small = tiff_bytes(np.ones((16, 20), np.uint8))
    with tifffile.TiffFile(io.BytesIO(small)) as opened:
        places = {name: opened.pages[0].tags[name].valueoffset for name in ("ImageWidth", "ImageLength")}
    bomb = bytearray(small)
    for place in places.values():
        bomb[place : place + 4] = (1_000_000).to_bytes(4, "little")
    with pytest.raises(UnreadableFileError, match="limit"):
        scanned(tiff, bytes(bomb))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<u2", "fortran_order": False, "shape": (10**6, 10**6)})
    with pytest.raises(UnreadableFileError, match="limit"):
        scanned(npy, header.getvalue() + bytes(64))
    assert MAX_FRAME_BYTES == 1 << 30


def test_a_deflate_bomb_is_refused(frames: Any) -> None:
    data = tiff_bytes(frames(3), compression="zlib")
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        page = opened.pages[0]
        tags = {name: page.tags[name].valueoffset for name in ("StripOffsets", "StripByteCounts")}
    bomb = zlib.compress(bytes(20_000_000))
    grown = bytearray(data) + bomb
    grown[tags["StripOffsets"] : tags["StripOffsets"] + 4] = len(data).to_bytes(4, "little")
    grown[tags["StripByteCounts"] : tags["StripByteCounts"] + 4] = len(bomb).to_bytes(4, "little")
    with pytest.raises(UnreadableFileError, match="expand"):
        scanned(tiff, bytes(grown))


def test_colour_becomes_grey_only_as_said() -> None:
    one = np.random.default_rng(0).integers(1, 255, (20, 30)).astype(np.uint8)
    same = np.stack([one] * 3, axis=-1)
    pixels, note = grey(same)
    np.testing.assert_array_equal(pixels, one)
    assert note == ""
    mixed = same.copy()
    mixed[..., 2] = 7
    raw = scanned(tiff, tiff_bytes(mixed, photometric="rgb")).load(("", 0))
    np.testing.assert_allclose(raw.pixels, np.rint(0.587 * one + 0.299 * one + 0.114 * 7), atol=1)
    assert raw.display_scaled and "luminance" in raw.notes[0]


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_pictures_are_uncalibrated_and_display_scaled(kind: str, frames: Any) -> None:
    buffer = io.BytesIO()
    Image.fromarray(frames(4, dtype=np.uint8)).save(buffer, kind, dpi=(300, 300))
    raw = scanned(image, buffer.getvalue()).load(("", 0))
    np.testing.assert_array_equal(raw.pixels, frames(4, dtype=np.uint8))
    assert raw.display_scaled and math.isnan(raw.pixel_size_yx_nm[0])


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG"])
def test_every_prefix_of_a_picture_is_not_ready(kind: str, frames: Any) -> None:
    buffer = io.BytesIO()
    Image.fromarray(frames(4, dtype=np.uint8)).save(buffer, kind)
    data = buffer.getvalue()
    for length in range(0, len(data) - 1, 37):
        with pytest.raises((FileNotReadyError, UnreadableFileError)) as refusal:
            scanned(image, data[:length]).load(("", 0))
        assert length < 8 or refusal.type is FileNotReadyError


def test_sixteen_bit_png_keeps_its_counts(frames: Any) -> None:
    buffer = io.BytesIO()
    Image.fromarray(frames(4) * 200).save(buffer, "PNG")
    raw = scanned(image, buffer.getvalue()).load(("", 0))
    np.testing.assert_array_equal(raw.pixels, frames(4) * 200)
    assert not raw.display_scaled


def test_npy_series_and_fortran_order(tmp_path: Path, frames: Any) -> None:
    np.save(tmp_path / "series.npy", np.stack([frames(1), frames(2)]))
    read = list(read_frames(tmp_path / "series.npy", FrameSettings()))
    np.testing.assert_array_equal(read[1].pixels, frames(2))
    assert [frame.sequence for frame in read] == [0, 1]
    np.save(tmp_path / "f.npy", np.asfortranarray(frames(3)))
    np.testing.assert_array_equal(next(iter(read_frames(tmp_path / "f.npy", FrameSettings()))).pixels, frames(3))


def test_pickles_and_complex_numbers_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([[{}, {}]] * 9, object), allow_pickle=True)
    with pytest.raises(UnreadableFileError):
        list(read_frames(tmp_path / "objects.npy", FrameSettings()))
    np.save(tmp_path / "fft.npy", np.ones((20, 30), complex))
    with pytest.raises(NotAFrameError, match="complex"):
        list(read_frames(tmp_path / "fft.npy", FrameSettings()))


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [(np.ones((1, 400), np.uint8), "line scan"), (np.full((20, 30), np.nan), "finite"), (np.ones((4, 4), np.uint8), "icon")],
)
def test_what_is_no_frame_says_why(tmp_path: Path, pixels: Any, reason: str) -> None:
    np.save(tmp_path / "a.npy", pixels)
    (loaded,) = every_frame(tmp_path / "a.npy", ReadOptions(accept_zero_tail=True))
    assert loaded.raw is None and reason in loaded.reason


@pytest.mark.parametrize(
    "pixels", [np.zeros((20, 30), np.uint16), np.full((20, 30), 7.0), np.where(np.eye(20, 30) > 0, np.inf, 1.0)]
)
def test_poor_frames_are_frames_all_the_same(tmp_path: Path, pixels: Any) -> None:
    np.save(tmp_path / "a.npy", pixels)
    (frame,) = read_frames(tmp_path / "a.npy", FrameSettings())
    np.testing.assert_array_equal(frame.pixels, pixels)
    assert not frame.pixels.flags.writeable and math.isnan(frame.pixel_size_yx_nm[0])


def test_the_users_pixel_size_goes_over_the_files(tmp_path: Path, frames: Any) -> None:
    (tmp_path / "a.tif").write_bytes(tiff_bytes(frames(1), imagej=True, resolution=(80, 40), metadata={"unit": "nm"}))
    (frame,) = read_frames(tmp_path / "a.tif", FrameSettings(pixel_size_nm=(0.02, 0.03)))
    assert frame.pixel_size_yx_nm == (0.03, 0.02)
    assert frame.scale_source == "user"


def test_other_files_are_refused_with_what_is_read(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"DigitalMicrograph.*\.emd.*TIFF"):
        reader_for(tmp_path / "a.dm4")
    (tmp_path / "text.tif").write_text("this is not an image at all, whatever its name")
    (tmp_path / "text.png").write_text("this is not an image at all, whatever its name")
    (tmp_path / "text.npy").write_text("this is not an image at all, whatever its name" * 5)
    for name in ("text.tif", "text.png", "text.npy"):
        with pytest.raises(UnreadableFileError):
            read_batch(tmp_path / name, ALL, every, 1)


def test_empty_locked_and_vanished_files_are_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.emd", "a.tif", "a.png", "a.npy"):
        (tmp_path / name).touch()
        with pytest.raises(FileNotReadyError, match="empty"):
            read_batch(tmp_path / name, ALL, every, 1)
    with pytest.raises(FileNotReadyError, match="vanished"):
        read_batch(tmp_path / "none.tif", ALL, every, 1)

    def locked(*_: Any) -> Any:
        raise PermissionError(13, "sharing violation")

    monkeypatch.setattr("atomid_live.sources.readers.opening._open", locked)
    with pytest.raises(LockedError, match="open in another program"):
        read_batch(tmp_path / "a.tif", ALL, every, 1)


def test_a_file_that_changes_while_it_is_read_is_discarded(
    tmp_path: Path, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, frames(1))

    def slow(opened: Path) -> Any:
        handle = open_shared(opened)
        with path.open("ab") as writer:
            writer.write(b"more")
        return handle

    monkeypatch.setattr("atomid_live.sources.files.open_shared", slow)
    with pytest.raises(FileNotReadyError, match="changed"):
        read_batch(path, ALL, every, 1)


def test_native_keeps_values_and_makes_every_type_plain() -> None:
    np.testing.assert_array_equal(native(np.array([[True, False]])), [[1, 0]])
    assert native(np.ones((2, 3), ">f8")).dtype == np.dtype("=f8")
