"""Writes files in the layout of Velox, frame by frame, as the instrument might."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

UUID = "399a333e3613479ca1182f287901a315"


def metadata(detector: str = "HAADF", frame: int = 1, **over: Any) -> dict[str, Any]:
    """Metadata of one frame as Velox writes them: every number a string."""
    return {
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1726606300"}, "AcquisitionDatetime": {"DateTime": "0"}},
        "BinaryResult": {
            "Detector": detector,
            "PixelSize": {"width": "8.0e-12", "height": "9.0e-12"},
            "PixelUnitX": "m",
            "PixelUnitY": "m",
        },
        "Scan": {"DwellTime": "2e-06", "FrameTime": "2.5", "LineTime": "0.02", "ScanRotation": "0.5"},
        "Optics": {"AccelerationVoltage": "200000"},
        "CustomProperties": {"Velox.Series.FrameNumber": {"type": "long", "value": str(frame)}},
    } | over


class VeloxFile:
    """A Velox file that can be written in steps."""

    def __init__(self, path: Path, version: str = "11", columns: int = 4000) -> None:
        self.columns = columns
        self.file = h5py.File(path, "w", libver="earliest", locking=False)
        text = h5py.string_dtype()
        self.file.create_dataset("Version", (1,), text, [json.dumps({"version": version, "format": "Velox"})])
        self.file.create_dataset("Info", (1,), text, [json.dumps({"applicationVersion": "3.14.0"})])
        self.file.create_group("Data/Image")

    def image(self, uuid: str, shape: tuple[int, int], dtype: Any) -> None:
        """Begin an image without a frame."""
        group = self.file.create_group(f"Data/Image/{uuid}")
        group.create_dataset("Data", (*shape, 0), dtype, maxshape=(*shape, None), chunks=(*shape, 1))
        group.create_dataset("Metadata", (self.columns, 0), np.uint8, maxshape=(self.columns, None), chunks=(self.columns, 1))

    def extend(self, uuid: str, frames: int) -> None:
        """Make room for frames without writing them."""
        group = self.file[f"Data/Image/{uuid}"]
        group["Data"].resize(frames, axis=2)
        group["Metadata"].resize(frames, axis=1)

    def write(self, uuid: str, index: int, pixels: np.ndarray[Any, Any], said: dict[str, Any] | None = None) -> None:
        """Write one frame and its metadata into room made for it."""
        group = self.file[f"Data/Image/{uuid}"]
        group["Data"][..., index] = pixels
        text = json.dumps(said or metadata(frame=index + 1)).encode()
        group["Metadata"][:, index] = np.frombuffer(text.ljust(self.columns, b"\0"), np.uint8)

    def text(self, path: str, said: dict[str, Any]) -> None:
        """Write one of the JSON texts beside the data."""
        self.file.create_dataset(path, (1,), h5py.string_dtype(), [json.dumps(said)])

    def __enter__(self) -> VeloxFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
