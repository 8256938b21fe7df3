"""Files in the layout of Velox 3.17 (EMD version 11) as a Spectra writes them, whole or growing frame by frame.

Frames are the last axis; each frame has a NUL-padded JSON text of its own in which every value is a string. The HDF5 file is of
the oldest format (superblock 0), which has no mark for "open for writing": a reader must judge by what is there.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

METADATA_BYTES = 60000
DPC_DTYPE = np.dtype([("realFloat", "<f4"), ("imagFloat", "<f4")])
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Signal:
    """One image of a file: the detector's name, its number in the metadata, and the type of its pixels."""

    detector: str
    detector_index: int = 5
    dtype: DTypeLike = np.uint16

    def key(self, salt: str) -> str:
        """Return the data set's 32-digit name: random to look at, the same for the same file and detector."""
        return uuid.uuid5(uuid.NAMESPACE_URL, f"{salt}/{self.detector}").hex


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """What the metadata of a frame says.

    Attributes
    ----------
    shape, pixel_size_yx_nm : (int, int), (float, float)
        Rows and columns; NaN leaves the pixel size out, as Velox does where it knows none.
    dwell_s, line_time_s, frame_time_s, start_s : float
        Scan times, and the start of the series in seconds since 1970 UTC (written in whole seconds, as Velox does).
    number : int
        Of the frame in its series, from 1.
    stage_xyz_m : (float, float, float)
        Where the stage says it is.
    """

    shape: tuple[int, int]
    pixel_size_yx_nm: tuple[float, float]
    dwell_s: float
    line_time_s: float
    frame_time_s: float
    start_s: float
    number: int = 1
    current_pa: float = 15.0
    stage_xyz_m: tuple[float, float, float] = (0.0, 0.0, 0.0)


def _strings(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _strings(value) for key, value in tree.items()}
    if isinstance(tree, bool):
        return "true" if tree else "false"
    return tree if isinstance(tree, str) else f"{tree:.17g}" if isinstance(tree, float) else str(tree)


def _detectors() -> Json:
    def scanning(name: str, begin: float, end: float, inserted: bool) -> Json:
        angles = {"begin": begin, "end": end}
        common = {"DetectorType": "ScanningDetector", "Inserted": inserted, "Enabled": True, "Gain": 45.6, "Offset": -1.752}
        return {"DetectorName": name, **common, "CollectionAngleRange": angles}

    return {
        "Detector-0": scanning("BF-S", 0.0, 0.012, True),
        "Detector-1": {"DetectorName": "BM-Ceta", "DetectorType": "ImagingDetector", "ExposureTime": 0.2},
        "Detector-2": scanning("DF-S", 0.012, 0.045, False),
        "Detector-3": scanning("DF4", 0.012, 0.045, True),
        "Detector-5": scanning("HAADF", 0.045, 0.18, True),
    }


def metadata(facts: ScanFacts, signal: Signal) -> Json:
    """Metadata of one frame with the keys and the all-strings style of a real file."""
    height, width = facts.shape
    size_y, size_x = (size * 1e-9 for size in facts.pixel_size_yx_nm)
    calibrated = bool(np.isfinite(size_x) and np.isfinite(size_y))
    field_m = size_x * width if calibrated else 1e-8
    result: Json = {"AcquisitionUnit": "", "CompositionType": "", "DetectorIndex": signal.detector_index}
    result["Detector"] = signal.detector
    if calibrated:
        result |= {"PixelSize": {"width": size_x, "height": size_y}, "PixelUnitX": "m", "PixelUnitY": "m"}
    result |= {"Offset": {"x": 0, "y": 0}, "Encoding": ""}
    tree = {
        "Core": {
            "MetadataDefinitionVersion": "7.9",
            "MetadataSchemaVersion": "v1/2013/07",
            "guid": "0" * 32,
            "UserId": "atomid-live-simulate",
        },
        "Instrument": {
            "ControlSoftwareVersion": "3.21.1",
            "Manufacturer": "FEI Company",
            "InstrumentId": "0",
            "InstrumentClass": "Titan",
            "InstrumentModel": "Spectra",
            "ComputerName": "SIMULATED",
        },
        "Acquisition": {
            "AcquisitionStartDatetime": {"DateTime": int(facts.start_s)},
            "AcquisitionDatetime": {"DateTime": 0},
            "BeamType": "",
            "SourceType": "XFEG",
        },
        "Optics": {
            "AccelerationVoltage": 300000,
            "SpotIndex": 9,
            "BeamConvergence": 0.021,
            "ScreenCurrent": facts.current_pa * 1e-12,
            "LastMeasuredScreenCurrent": facts.current_pa * 1e-12,
            "FullScanFieldOfView": {"x": field_m, "y": size_y * height if calibrated else field_m},
            "Defocus": 0.0,
            "OperatingMode": 2,
            "ProjectorMode": 1,
            "EFTEMOn": False,
            "IlluminationMode": "Probe",
            "ProbeMode": 1,
            "CameraLength": 0.115,
        },
        "EnergyFilter": {"EntranceApertureType": ""},
        "Stage": {
            "Position": dict(zip("xyz", facts.stage_xyz_m, strict=True)),
            "AlphaTilt": 0.0,
            "BetaTilt": 0.0,
            "HolderType": "FEI Double Tilt",
        },
        "Scan": {
            "ScanSize": {"width": width, "height": height},
            "DwellTime": facts.dwell_s,
            "ScanArea": {"left": 0, "top": 0, "right": 1, "bottom": 1},
            "MainsLockOn": False,
            "LineTime": facts.line_time_s,
            "LineIntegrationCount": 1,
            "LineInterlacing": 1,
            "FrameTime": facts.frame_time_s,
            "ScanRotation": 0.0,
        },
        "Vacuum": {"VacuumMode": "Ready"},
        "Detectors": _detectors(),
        "BinaryResult": result,
        "Sample": "",
        "GasInjectionSystems": "",
        "CustomProperties": {
            "MaxPossiblePixelValue": {"type": "double", "value": 65535},
            "Velox.Series.FrameNumber": {"type": "long", "value": facts.number},
        },
    }
    return dict(_strings(tree))


def _json(tree: Any) -> str:
    return json.dumps(tree, indent=4).replace("/", "\\/") + "\n"


class VeloxFile:
    """A Velox-layout file open for writing; one data set per signal, frames appended to all of them together.

    Parameters
    ----------
    path : Path
        File to create; it must not exist.
    shape : (int, int)
        Rows and columns.
    signals : sequence of Signal
        Images of the file, e.g. HAADF alone, or HAADF with BF-S and DPC.
    salt : str
        Enters the data sets' names.
    """

    def __init__(self, path: Path, shape: tuple[int, int], signals: Sequence[Signal], salt: str = "") -> None:
        import h5py

        self._signals = {signal.detector: (signal, signal.key(salt or path.name)) for signal in signals}
        self._shape = shape
        self._h5 = h5py.File(path, "x", libver="earliest")
        self._text = h5py.string_dtype("ascii")
        self.count = 0
        self._say("Version", {"version": "11", "format": "Velox"})
        self._say("Info", {"applicationVersion": "3.17.0.967-simulated"})
        for signal, key in self._signals.values():
            group = f"Data/Image/{key}"
            self._unlimited(f"{group}/Data", shape, signal.dtype)
            self._unlimited(f"{group}/FrameLookupTable", (), np.uint32)
            self._unlimited(f"{group}/Metadata", (METADATA_BYTES,), np.uint8)
        self._describe()

    def _say(self, name: str, tree: Any) -> None:
        self._h5.create_dataset(name, data=[_json(tree)], dtype=self._text, maxshape=(1,), chunks=(1,))

    def _unlimited(self, name: str, head: tuple[int, ...], dtype: DTypeLike) -> None:
        self._h5.create_dataset(name, shape=(*head, 0), maxshape=(*head, None), chunks=(*head, 1), dtype=dtype)

    def _describe(self) -> None:
        features = []
        for detector, (signal, key) in self._signals.items():
            dpc = np.dtype(signal.dtype).kind == "V"
            kind = "DpcOperation" if dpc else "StemInputOperation"
            operation = f"/Operations/{kind}/{uuid.uuid5(uuid.NAMESPACE_URL, key + 'operation').hex}"
            display = f"/Presentation/Displays/ImageDisplay/{uuid.uuid5(uuid.NAMESPACE_URL, key + 'display').hex}"
            image = f"/Data/Image/{key}"
            area = ["0.000000", "0.000000", "1.000000", "1.000000"]
            output = [{"outputIndex": "0", "operation": display, "inputIndex": "0"}]
            self._say(operation, {"dataPath": image, "detector": detector, "outputs": output, "scanArea": area})
            label = {"id": detector, "label": detector, "overlays": "", "priority": "1000", "visible": "true"}
            self._say(display, {"display": label, "dataPath": image, "seriesIndex": "0", "colorLut": "Grayscale"})
            features.append(operation)
        self._say("Features/Features", {"features": [{"STEMFeature": path} for path in features]})

    def append(self, images: Mapping[str, NDArray[Any]], facts: ScanFacts) -> None:
        """Add one frame: an image of shape (rows, cols) for each detector name, and what the metadata says of it."""
        k = self.count
        for detector, (signal, key) in self._signals.items():
            group = self._h5[f"Data/Image/{key}"]
            text = np.zeros(METADATA_BYTES, np.uint8)
            raw = _json(metadata(facts, signal)).encode()
            text[: len(raw)] = np.frombuffer(raw, np.uint8)
            for name, value in (("Data", images[detector]), ("Metadata", text), ("FrameLookupTable", np.uint32(k))):
                dataset = group[name]
                dataset.resize(k + 1, axis=dataset.ndim - 1)
                dataset[..., k] = value
        self.count += 1

    def flush(self) -> None:
        """Hand everything to the operating system, so that another process sees whole frames."""
        self._h5.flush()

    def close(self) -> None:
        """Finish the file; may be called twice."""
        if self._h5:
            self._h5.close()

    def __enter__(self) -> Self:
        """Own the open file."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Finish the file."""
        self.close()
