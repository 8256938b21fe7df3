"""Thermo Fisher Velox .emd: the recorded images of one detector, frame by frame, each only when it is whole.

Layout (versions 4 to 13 are alike in what is read here): ``/Data/Image/<uuid>/Data`` (rows, cols, frames) in chunks of one
frame, and ``Metadata`` (bytes, frames) with one JSON text per frame. Chunks that are not allocated read as zeros without
an error, so a frame counts only when its chunk lies inside the file and its own metadata can be read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from atomid_live.errors import AtomidError, FileNotReadyError, NotAFrameError, UnreadableFileError
from atomid_live.sources.readers import velox_metadata as velox
from atomid_live.sources.readers.hdf5 import LIBRARIES, PARSE_ERRORS, Dataset, Tree, as_json, check_superblock
from atomid_live.sources.readers.raw import (
    Contents,
    Key,
    RawFrame,
    ReadOptions,
    check_declared,
    check_tail,
    native,
    size_of,
)

log = logging.getLogger(__name__)

_IMAGES = "Data/Image"
_NEWEST_KNOWN = 13
_MAX_METADATA_BYTES = 16 << 20


@dataclass(slots=True, eq=False)
class _Image:
    uuid: str
    data: Dataset
    metadata: Dataset
    first: Mapping[str, Any]
    names: tuple[str, ...]


def scan(handle: BinaryIO, options: ReadOptions) -> Contents:
    """Find the frames of the wanted detector in an open Velox file."""
    size = size_of(handle)
    check_superblock(handle, size)
    reasons = []
    for library in LIBRARIES:
        try:
            return _scan_tree(library(handle), options)
        except AtomidError:
            raise
        except PARSE_ERRORS as error:
            reasons.append(f"{type(error).__name__}: {str(error)[:120]}")
    raise FileNotReadyError(f"not whole, or damaged ({'; '.join(reasons)})")


def _scan_tree(tree: Tree, options: ReadOptions) -> Contents:
    software = _check_velox(tree)
    images = _images(tree, options)
    chosen = _choose(images, options.detector)
    order = sorted(chosen, key=lambda image: (_sortable(velox.start_s(image.first)), image.uuid))
    keys: list[Key] = []
    waiting = ""
    for image in order:
        frames = image.data.shape[2]
        whole = next((k for k in range(frames) if not _is_whole(image, k)), frames)
        keys += [(image.uuid, k) for k in range(whole)]
        if whole < frames:
            waiting = waiting or f"frame {whole + 1} of {frames} is not written yet"
    if not keys:
        raise FileNotReadyError(waiting or "holds no frame yet")
    by_uuid = {image.uuid: image for image in order}
    return Contents(
        tuple(keys),
        lambda key: _load(by_uuid[key[0]], key[1], software, options),
        time_s=velox.start_s(order[0].first),
        waiting=waiting,
    )


def _sortable(time_s: float) -> float:
    return time_s if math.isfinite(time_s) else math.inf


def _check_velox(tree: Tree) -> str:
    """Return the name of the program that wrote the file, or refuse it."""
    version = as_json(tree.text("Version"))
    kind, release = str(version.get("format", "")), str(version.get("version", ""))
    top = tree.children("/")
    if kind not in ("Velox", "DevelopersKit") and "Data" not in top:
        if not top:
            raise FileNotReadyError("holds nothing yet")
        raise UnreadableFileError("an EMD file, but not from Velox (Berkeley EMD is not read); export the image as TIFF")
    if release.isdigit() and int(release) > _NEWEST_KNOWN:
        log.warning("Velox file format %s is newer than the newest known (%d); read as well as can be", release, _NEWEST_KNOWN)
    application = velox.word(as_json(tree.text("Info")), "applicationVersion")
    return f"Velox {application}".strip()


def _images(tree: Tree, options: ReadOptions) -> list[_Image]:
    uuids = tree.children(_IMAGES)
    if not uuids:
        held = ", ".join(tree.children("Data")) or "nothing"
        raise NotAFrameError(f"holds no image (only {held})")
    computed, labels = _roles(tree)
    images, reasons = [], []
    for uuid in sorted(uuids):
        if uuid in computed:
            reasons.append(f"{computed[uuid]} is computed, not recorded")
            continue
        data, metadata = tree.dataset(f"{_IMAGES}/{uuid}/Data"), tree.dataset(f"{_IMAGES}/{uuid}/Metadata")
        if data is None or metadata is None:
            reasons.append("an image without data or metadata yet")
            continue
        reason = _unfit(data, metadata, options)
        first = _metadata(metadata, 0) if not reason else {}
        if reason or velox.is_reciprocal(first):
            reasons.append(reason or "a diffraction pattern")
            continue
        names = tuple(n for n in (velox.word(first, "BinaryResult/Detector"), *labels.get(uuid, ())) if n)
        images.append(_Image(uuid, data, metadata, first, names))
    if not images:
        if all("yet" in reason for reason in reasons):
            raise FileNotReadyError("; ".join(sorted(set(reasons))))
        raise NotAFrameError(f"holds no recorded image: {'; '.join(sorted(set(reasons)))}")
    return images


def _unfit(data: Dataset, metadata: Dataset, options: ReadOptions) -> str:
    """Say why a data set is no image, or "" when it is one; sizes over the limits raise."""
    if data.dtype.names is not None or data.dtype.kind == "c":
        return "complex numbers (an FFT or a DPC vector map)"
    if data.dtype.kind not in "iuf" or len(data.shape) != 3:
        return f"an array of shape {data.shape} and type {data.dtype}"
    if len(metadata.shape) != 2 or metadata.dtype.itemsize != 1:
        return "an image whose metadata are not text"
    if data.shape[2] == 0 or metadata.shape[1] == 0:
        return "an image without a frame yet"
    check_declared(data.shape[0], data.shape[1], data.dtype.itemsize, options)
    if metadata.shape[0] > _MAX_METADATA_BYTES:
        raise UnreadableFileError(
            f"declares metadata of {metadata.shape[0]} bytes per frame; the limit is {_MAX_METADATA_BYTES}"
        )
    return ""


def _roles(tree: Tree) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Which images a processing step made (uuid to its name), and the names the operator saw for each image."""
    computed: dict[str, str] = {}
    labels: dict[str, tuple[str, ...]] = {}
    for step in tree.children("Operations"):
        for name in tree.children(f"Operations/{step}"):
            said = as_json(tree.text(f"Operations/{step}/{name}"))
            for path in (said.get("dataPath"), said.get("unfilteredDataPath")):
                uuid = str(path or "").rpartition("/")[2]
                if uuid and step.endswith("InputOperation"):
                    labels[uuid] = (*labels.get(uuid, ()), velox.word(said, "detector"))
                elif uuid:
                    computed[uuid] = step.removesuffix("Operation")
    for name in tree.children("Displays/ImageDisplay"):
        said = as_json(tree.text(f"Displays/ImageDisplay/{name}"))
        reference = as_json(tree.text(str(said.get("data", "")).strip("/"))) if said.get("data") else {}
        uuid, title = str(reference.get("dataPath", "")).rpartition("/")[2], velox.word(said, "title")
        if "dcfi" in title.lower():
            computed[uuid] = title
        elif uuid:
            labels[uuid] = (*labels.get(uuid, ()), title)
    return computed, labels


def _choose(images: list[_Image], detector: str) -> list[_Image]:
    wanted = detector.strip().lower()
    chosen = [image for image in images if wanted in (name.lower() for name in image.names)]
    if chosen:
        return chosen
    if len(images) == 1 and not images[0].names:
        log.warning("the file does not name the detector of its only image; taken as %s", detector)
        return images
    held = sorted({image.names[0] if image.names else "unnamed" for image in images})
    raise NotAFrameError(f"holds images of {', '.join(held)}, none of {detector}; choose one with --detector")


def _metadata(metadata: Dataset, index: int) -> Mapping[str, Any]:
    """Metadata of one frame; empty where they are not written or cannot be read."""
    if index >= metadata.shape[1]:
        return {}
    column = metadata.last_axis(index)
    return {} if column is None else as_json(bytes(column).split(b"\0", 1)[0].decode("utf-8", "replace"))


def _is_whole(image: _Image, index: int) -> bool:
    """Whether pixels and metadata of a frame are allocated inside the file; the text itself is parsed when it is loaded."""
    return index < image.metadata.shape[1] and image.metadata.has(index) and image.data.has(index)


def _load(image: _Image, index: int, software: str, options: ReadOptions) -> RawFrame:
    try:
        pixels = image.data.last_axis(index)
    except PARSE_ERRORS as error:
        raise FileNotReadyError(f"frame {index + 1} cannot be read ({type(error).__name__}: {error})") from error
    if pixels is None:
        raise FileNotReadyError(f"frame {index + 1} is not written yet")
    pixels = np.ascontiguousarray(pixels)
    check_tail(pixels, options)
    tree = _metadata(image.metadata, index)
    if not tree:
        raise FileNotReadyError(f"the metadata of frame {index + 1} are not written yet")
    counted = velox.frame_number(tree)
    time_s = velox.middle_s(tree, index)
    scale = velox.pixel_size_yx_nm(tree)
    return RawFrame(
        native(pixels),
        item=image.uuid,
        item_index=index,
        pixel_size_yx_nm=scale,
        scale_source="file" if math.isfinite(scale[0]) else "unknown",
        time_s=time_s,
        time_source="estimated" if math.isfinite(time_s) else "arrival",
        time_sigma_s=velox.START_SIGMA_S if math.isfinite(time_s) else math.nan,
        index=counted if counted is not None else index,
        meta=velox.describe(tree, software),
    )
