"""Stream messages: array-1.0 frames in, `atomid.result-1.0` messages out; encode, decode and the limits on both.

Two parts, JSON header and raw pixels, optionally after a topic part (htype array-1.0 as areaDetector's ADZMQ sends it).
Everything about microscopy sits under the header's `x-atomid`, so that other readers of array-1.0 ignore it.
Nothing here opens a socket. Nothing here unpickles.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomid_live import __version__, flags
from atomid_live.errors import WireError
from atomid_live.flags import Flag
from atomid_live.types import NAN, UNCALIBRATED, Frame, FrameMeta, Result, frozen

MAX_HEADER_BYTES = 64 * 1024
MAX_PARTS = 16
MAX_SIDE = 16384
MAX_MESSAGE_BYTES = 1 << 30

_TYPES = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
_META_KEYS = (
    "dwell_s",
    "line_time_s",
    "frame_time_s",
    "scan_rotation_rad",
    "beam_energy_ev",
    "beam_current_a",
    "field_of_view_m",
)


@dataclass(frozen=True, slots=True, eq=False)
class WireFrame:
    """A decoded frame message, before it is numbered.

    `pixels` has shape (rows, cols) and is read-only; `session` is the sender's, "" when it gave none; NaN where unknown.
    """

    pixels: NDArray[Any]
    index: int | None
    sender_time_s: float
    session: str
    pixel_size_yx_nm: tuple[float, float]
    meta: FrameMeta


def _refuse_constant(word: str) -> float:
    raise WireError(f"header holds {word}, which is not JSON; leave the key out instead")


def _no_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise WireError("header names a key twice; each key may stand once")
    return found


def _header(part: bytes) -> dict[str, Any]:
    if len(part) > MAX_HEADER_BYTES:
        raise WireError(f"header of {len(part)} bytes; the limit is {MAX_HEADER_BYTES}")
    try:
        header = json.loads(part, parse_constant=_refuse_constant, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise WireError(f"header is not JSON ({error}); send a JSON object as part 1 and the pixels as part 2") from None
    if not isinstance(header, dict):
        raise WireError(f"header is a JSON {type(header).__name__}; it must be an object")
    return header


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return NAN
    return float(value) if abs(value) < 1e300 else NAN


def _shape(header: Mapping[str, Any]) -> tuple[int, int]:
    shape = header.get("shape")
    if not isinstance(shape, list) or not all(isinstance(n, int) and not isinstance(n, bool) for n in shape):
        raise WireError(f"shape is {shape!r}; it must be a list [rows, columns]")
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2 or not all(1 <= n <= MAX_SIDE for n in shape):
        raise WireError(f"shape is {shape!r}; one image [rows, columns] with sides from 1 to {MAX_SIDE} is expected")
    return shape[0], shape[1]


def _pixels(header: Mapping[str, Any], shape: tuple[int, int], raw: bytes | memoryview) -> NDArray[Any]:
    kind = header.get("type", header.get("dtype"))
    if kind not in _TYPES:
        raise WireError(f"type is {kind!r}; known are {', '.join(_TYPES)}")
    if header.get("encoding") not in (None, ""):
        raise WireError(f'encoding is {header["encoding"]!r}; send raw pixels (encoding "")')
    order = header.get("endianness", header.get("endianess", "little"))
    if order not in ("little", "big"):
        raise WireError(f"endianness is {order!r}; it is little or big")
    stored = np.dtype(kind).newbyteorder("<" if order == "little" else ">")
    expected = shape[0] * shape[1] * stored.itemsize
    size = raw.nbytes if isinstance(raw, memoryview) else len(raw)
    if size != expected:
        raise WireError(f"pixel part holds {size} bytes; shape {list(shape)} of {kind} needs {expected}")
    pixels = np.frombuffer(raw, stored).reshape(shape)
    if not (stored.isnative and pixels.flags.aligned):  # a message's buffer begins where it likes; compiled code does not
        pixels = pixels.astype(stored.newbyteorder("="))
    return frozen(pixels)


def _pixel_size(extra: Mapping[str, Any]) -> tuple[float, float]:
    value = extra.get("pixel_size_m")
    if value is None:
        return UNCALIBRATED
    pair = value if isinstance(value, list) else [value, value]
    sizes = [_number(v) * 1e9 for v in pair]
    if len(sizes) != 2 or not all(1e-4 <= s <= 1e3 for s in sizes):
        raise WireError(f"x-atomid.pixel_size_m is {value!r}; give [y, x] in metres, e.g. [1.24e-11, 1.24e-11]")
    return sizes[0], sizes[1]


def _meta(header: Mapping[str, Any], extra: Mapping[str, Any]) -> FrameMeta:
    stage = extra.get("stage") if isinstance(extra.get("stage"), dict) else {}
    assert isinstance(stage, dict)
    return FrameMeta(
        detector=str(header.get("source", ""))[:64],
        software=str(extra.get("software", ""))[:64],
        stage_xyz_m=(_number(stage.get("x")), _number(stage.get("y")), _number(stage.get("z"))),
        **{key: _number(extra.get(key)) for key in _META_KEYS},
    )


def decode_frame(parts: Sequence[bytes | memoryview]) -> WireFrame:
    """Decode a frame message.

    Parameters
    ----------
    parts : sequence of bytes
        [header, pixels] or [topic, header, pixels]; imagezmq's ``{msg, dtype, shape}`` header is understood too.

    Raises
    ------
    WireError
        A rule is broken; the message says which, before anything is allocated.
    """
    if len(parts) > MAX_PARTS or len(parts) < 2:
        raise WireError(f"message has {len(parts)} parts; a frame has 2 (header, pixels), or 3 with a topic first")
    header = _header(bytes(parts[-2]))
    kind = header.get("htype", "array-1.0" if "dtype" in header else None)
    if kind != "array-1.0":
        raise WireError(f"htype is {kind!r}; frames are array-1.0")
    shape = _shape(header)
    pixels = _pixels(header, shape, parts[-1])
    extra = header.get("x-atomid")
    extra = extra if isinstance(extra, dict) else {}
    index = header.get("frame")
    return WireFrame(
        pixels,
        index if isinstance(index, int) and not isinstance(index, bool) else None,
        _number(header.get("timeStamp")),
        str(header.get("session", ""))[:64],
        _pixel_size(extra),
        _meta(header, extra),
    )


def encode_frame(frame: Frame, session: str = "") -> list[bytes]:
    """Encode a frame as two array-1.0 parts; the inverse of `decode_frame`."""
    extra: dict[str, Any] = {key: value for key in _META_KEYS if math.isfinite(value := getattr(frame.meta, key))}
    if all(map(math.isfinite, frame.pixel_size_yx_nm)):
        extra["pixel_size_m"] = [size * 1e-9 for size in frame.pixel_size_yx_nm]
    if all(map(math.isfinite, frame.meta.stage_xyz_m)):
        extra["stage"] = dict(zip("xyz", frame.meta.stage_xyz_m, strict=True))
    if frame.meta.software:
        extra["software"] = frame.meta.software
    little = frame.pixels.astype(frame.pixels.dtype.newbyteorder("<"), copy=False)
    header = {
        "htype": "array-1.0",
        "type": frame.pixels.dtype.name,
        "shape": list(frame.shape),
        "frame": frame.sequence if frame.index is None else frame.index,
        "timeStamp": frame.time_s,
        "endianness": "little",
        "encoding": "",
        "session": session,
        "source": frame.meta.detector,
        "x-atomid": extra,
    }
    return [json.dumps(header, allow_nan=False).encode(), np.ascontiguousarray(little).tobytes()]


def _clean(value: Any) -> Any:
    """JSON has no NaN: unknown numbers become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    return value


def _xy(pair: tuple[float, float]) -> list[float]:
    return [pair[1], pair[0]]


def encode_result(result: Result, session: str = "") -> list[bytes]:
    """Encode a result as topic, JSON header, and one raw little-endian float64 part per array (x before y)."""
    found = result.detections
    arrays = {
        "xy_px": found.yx_px[:, ::-1],
        "score": found.score,
        "exx": result.strain.exx,
        "eyy": result.strain.eyy,
        "exy": result.strain.exy,
    }
    header = {
        "htype": "atomid.result-1.0",
        "schema": 1,
        "version": __version__,
        "session": session,
        "sequence": result.sequence,
        "index": result.index,
        "segment": result.segment,
        "time_s": result.time_s,
        "time_source": result.time_source,
        "shape_xy": [result.shape[1], result.shape[0]],
        "pixel_size_xy_nm": _xy(result.pixel_size_yx_nm),
        "columns": len(found),
        "spacing_px": found.spacing_px,
        "drift": {
            "total_xy_px": _xy(result.drift.total_yx_px),
            "sigma_xy_px": _xy(result.drift.sigma_yx_px),
            "velocity_xy_nm_min": _xy(result.drift.velocity_yx_nm_min),
            "sigma_velocity_nm_min": result.drift.sigma_velocity_nm_min,
            "quality": result.drift.quality,
            "settling_s": result.drift.settling_s,
            "sigma_settling_s": result.drift.sigma_settling_s,
            "leaving_s": result.drift.leaving_s,
            "sigma_leaving_s": result.drift.sigma_leaving_s,
        },
        "strain": {
            "valid": result.reading.valid,
            "reason": result.reading.reason,
            "reference": result.reading.reference,
            **{name: [s.mean, s.std, s.sem] for name, s in result.reading.strain.items()},
        },
        "alarm": result.reading.alarm,
        "flags": flags.names(result.flags),
        "timings_ms": dict(result.timings_ms),
        "arrays": [{"name": name, "type": "float64", "shape": list(array.shape)} for name, array in arrays.items()],
    }
    parts = [f"atomid.result.{result.meta.detector or 'frame'}".encode(), json.dumps(_clean(header), allow_nan=False).encode()]
    return parts + [np.ascontiguousarray(array, "<f8").tobytes() for array in arrays.values()]


_NOT_TO_FOLLOW = Flag.MODULO_LATTICE | Flag.DRIFT_POOR | Flag.DRIFT_LOST | Flag.DRIFT_JUMP | Flag.CLOCK_STEP


def encode_advice(result: Result, session: str = "") -> list[bytes]:
    """Encode by how much the scan would have to follow the specimen: topic and JSON header, no arrays.

    The program never moves anything; what is done with the advice is the receiver's affair. Where the drift is not sure the
    shift is null and `reason` says why.
    """
    drift = result.drift
    unsure = flags.names(drift.flags & _NOT_TO_FOLLOW)
    known = not unsure and all(map(math.isfinite, drift.total_yx_px))
    total = drift.total_yx_px if known else UNCALIBRATED
    size = result.pixel_size_yx_nm
    header = {
        "htype": "atomid.advice-1.0",
        "schema": 1,
        "version": __version__,
        "session": session,
        "sequence": result.sequence,
        "index": result.index,
        "segment": result.segment,
        "time_s": result.time_s,
        "shift_scan_xy_px": _xy(total),
        "sigma_xy_px": _xy(drift.sigma_yx_px),
        "shift_scan_xy_nm": _xy((total[0] * size[0], total[1] * size[1])),
        "velocity_xy_px_s": _xy(drift.velocity_yx_px_s),
        "scan_rotation_rad": result.meta.scan_rotation_rad,
        "reason": "" if known else ", ".join(unsure) or "no total",
    }
    return [b"atomid.advice", json.dumps(_clean(header), allow_nan=False).encode()]
