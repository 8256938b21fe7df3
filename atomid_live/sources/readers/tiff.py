"""TIFF: every page a frame; calibration from ImageJ, OME or Thermo Fisher tags where they are explicit."""

from __future__ import annotations

import math
import re
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np

from atomid_live.errors import FileNotReadyError, NotAFrameError, UnreadableFileError
from atomid_live.sources.readers.raw import (
    MAX_RATIO,
    Contents,
    Key,
    RawFrame,
    ReadOptions,
    check_declared,
    check_dtype,
    check_tail,
    grey,
    native,
    size_of,
)
from atomid_live.types import NAN, UNCALIBRATED, FrameMeta

_NM = {
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometers": 1.0,
    "pm": 1e-3,
    "picometer": 1e-3,
    "å": 0.1,
    "a": 0.1,
    "angstrom": 0.1,
    "um": 1e3,
    "µm": 1e3,
    "μm": 1e3,
    "\\u00b5m": 1e3,
    "micron": 1e3,
    "microns": 1e3,
    "mm": 1e6,
    "m": 1e9,
}
_DEFLATE = (8, 32946)
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def scan(handle: BinaryIO, options: ReadOptions) -> Contents:
    """Find the frames of an open TIFF file: every page of the first page's shape that is whole."""
    import tifffile

    size = size_of(handle)
    magic = handle.read(16)
    handle.seek(0)
    if not any(magic) or len(magic) < 8:
        raise FileNotReadyError("begins with zeros or ends in its header: still being written")
    if magic[:4] not in _MAGIC:
        raise UnreadableFileError("is no TIFF file, in spite of its name")
    try:
        tiff = tifffile.TiffFile(handle)
        pages = [tiff.pages[k] for k in range(len(tiff.pages))]
    except (ValueError, OSError, struct.error, IndexError, tifffile.TiffFileError) as error:
        raise FileNotReadyError(f"not whole: its directory cannot be read ({error})") from error
    return _contents(tiff, pages, handle, size, options)


def _contents(tiff: Any, pages: list[Any], handle: BinaryIO, size: int, options: ReadOptions) -> Contents:
    if not pages:
        raise FileNotReadyError("holds no page yet")
    first = pages[0]
    _check_page(first, handle, size, options)
    chosen = {("", k): page for k, page in enumerate(pages) if page.shape == first.shape and page.dtype == first.dtype}
    images = int((tiff.imagej_metadata or {}).get("images", 1)) if tiff.is_imagej else 1
    if images > len(pages):
        raise UnreadableFileError(f"an ImageJ stack of {images} images without their directory; save it as an image sequence")
    scale = _pixel_size(tiff, first)
    meta = _fei_meta(tiff)

    def load(key: Key) -> RawFrame:
        page = chosen[key]
        _check_page(page, handle, size, options)
        pixels = _pixels(page)
        check_tail(pixels, options)
        shown = False
        notes: tuple[str, ...] = ()
        if pixels.ndim == 3:
            shown = pixels.dtype.itemsize == 1
            pixels, note = grey(pixels)
            notes = (note,) if note else ()
        known = all(map(math.isfinite, scale))
        return RawFrame(
            native(pixels),
            item_index=key[1],
            pixel_size_yx_nm=scale,
            scale_source="file" if known else "unknown",
            display_scaled=shown,
            meta=meta,
            notes=notes,
        )

    return Contents(tuple(chosen), load)


def _check_page(page: Any, handle: BinaryIO, size: int, options: ReadOptions) -> None:
    rows, cols, samples = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    if page.dtype is None:
        raise UnreadableFileError(f"pixels of {page.bitspersample} bits are not read; export 8, 16 or 32 bits")
    check_dtype(page.dtype)
    if page.imagedepth != 1 or samples > 4:
        raise NotAFrameError(f"a page of {samples} samples and depth {page.imagedepth}; a frame has one value for each pixel")
    check_declared(rows, cols, page.dtype.itemsize, options, samples)
    stored = sum(page.databytecounts)
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if not ends or len(page.dataoffsets) != len(page.databytecounts) or 0 in page.dataoffsets:
        raise FileNotReadyError("the places of the pixels are not written yet")
    if max(ends) > size:
        raise FileNotReadyError(f"truncated: {size} of {max(ends)} bytes")
    declared = rows * cols * samples * page.dtype.itemsize
    if page.compression == 1:
        if stored < declared and page.bitspersample >= 8:
            raise UnreadableFileError(f"{stored} bytes of pixels where {declared} are declared")
    elif declared > MAX_RATIO * stored:
        raise UnreadableFileError(f"{stored} bytes that expand more than {MAX_RATIO} times are refused")
    elif page.compression in _DEFLATE:
        _check_deflate(page, handle, declared)


def _check_deflate(page: Any, handle: BinaryIO, declared: int) -> None:
    """Refuse a segment that inflates beyond the image: the decoder itself knows no limit."""
    segment = math.prod(page.chunks) * page.dtype.itemsize if page.is_tiled or page.rowsperstrip else declared
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        handle.seek(offset)
        inflate = zlib.decompressobj()
        try:
            inflate.decompress(handle.read(count), max(segment, 1))
        except zlib.error as error:
            raise FileNotReadyError(f"not whole: compressed pixels cannot be read ({error})") from error
        if inflate.unconsumed_tail and inflate.decompress(inflate.unconsumed_tail, 1):
            raise UnreadableFileError("compressed pixels expand beyond the declared size and are refused")


def _pixels(page: Any) -> np.ndarray[Any, Any]:
    try:
        pixels = np.asarray(page.asarray())
    except (zlib.error, struct.error, IndexError, OSError) as error:
        raise FileNotReadyError(f"not whole: pixels cannot be read ({error})") from error
    except (ValueError, KeyError, TypeError) as error:
        if "imagecodecs" in str(error):
            raise UnreadableFileError(f"{error}; export the image uncompressed") from error
        raise FileNotReadyError(f"not whole: pixels cannot be read ({error})") from error
    if pixels.ndim == 3 and int(page.planarconfig) == 2:
        pixels = np.moveaxis(pixels, 0, -1)
    return pixels


def _pixel_size(tiff: Any, page: Any) -> tuple[float, float]:
    """Pixel size from the first tag that states a unit of length; dots per inch are a printer's matter."""
    for found in (_from_fei(tiff), _from_ome(tiff), _from_imagej(tiff, page)):
        if all(math.isfinite(v) and 1e-4 <= v <= 1e3 for v in found):
            return found
    return UNCALIBRATED


def _from_fei(tiff: Any) -> tuple[float, float]:
    scan_part = (tiff.fei_metadata or {}).get("Scan", {})
    try:
        return float(scan_part["PixelHeight"]) * 1e9, float(scan_part["PixelWidth"]) * 1e9
    except (KeyError, TypeError, ValueError):
        return UNCALIBRATED


def _fei_meta(tiff: Any) -> FrameMeta:
    known = tiff.fei_metadata or {}

    def number(part: str, name: str) -> float:
        try:
            return float(known[part][name])
        except (KeyError, TypeError, ValueError):
            return NAN

    return FrameMeta(
        detector=str(known.get("Detectors", {}).get("Name", "")),
        dwell_s=number("Scan", "Dwelltime"),
        frame_time_s=number("Scan", "FrameTime"),
        beam_energy_ev=number("Beam", "HV"),
        software=str(known.get("System", {}).get("Software", "")),
    )


def _from_ome(tiff: Any) -> tuple[float, float]:
    text = tiff.ome_metadata or ""
    sizes = []
    for axis in "YX":
        value = re.search(rf'\bPhysicalSize{axis}="([^"]+)"', text)
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]+)"', text)
        try:
            sizes.append(float(value[1]) * _NM[(unit[1] if unit else "µm").strip().lower()] if value else NAN)
        except (KeyError, ValueError):
            sizes.append(NAN)
    return sizes[0], sizes[1]


def _from_imagej(tiff: Any, page: Any) -> tuple[float, float]:
    factor = _NM.get(str((tiff.imagej_metadata or {}).get("unit", "")).strip().lower()) if tiff.is_imagej else None
    if factor is None:
        return UNCALIBRATED
    sizes = []
    for name in ("YResolution", "XResolution"):
        tag = page.tags.get(name)
        top, bottom = tag.value if tag is not None and isinstance(tag.value, tuple) else (0, 1)
        sizes.append(factor * bottom / top if top else NAN)
    return sizes[0], sizes[1]
