"""array-1.0 frames and result messages: round trips, and every rule broken once."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomid_live.errors import WireError
from atomid_live.flags import Flag
from atomid_live.types import Detections, DriftEstimate, Frame, FrameMeta, Origin, Result
from atomid_live.wire import MAX_HEADER_BYTES, decode_frame, encode_advice, encode_frame, encode_result

ROWS, COLS = 5, 7


def message(**changes: Any) -> list[bytes]:
    """Two good parts of a 5 x 7 uint16 frame, with header keys changed or (None) removed."""
    header: dict[str, Any] = {"htype": "array-1.0", "type": "uint16", "shape": [ROWS, COLS], "frame": 3}
    header |= changes
    pixels = np.arange(ROWS * COLS, dtype="<u2").tobytes()
    return [json.dumps({k: v for k, v in header.items() if v is not None}).encode(), pixels]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_frame_survives_the_wire(dtype: str) -> None:
    """Pixels, size, index and metadata come back as sent."""
    pixels = np.arange(ROWS * COLS).reshape(ROWS, COLS).astype(dtype)
    meta = FrameMeta(detector="HAADF", dwell_s=1e-5, frame_time_s=12.5, stage_xyz_m=(1e-6, 2e-6, 3e-6))
    sent = Frame(9, pixels, 1234.5, Origin("x"), index=41, pixel_size_yx_nm=(0.012, 0.013), meta=meta)
    got = decode_frame(encode_frame(sent, "abc"))
    assert np.array_equal(got.pixels, pixels) and got.pixels.dtype == pixels.dtype
    assert (got.index, got.sender_time_s, got.session) == (41, 1234.5, "abc")
    assert got.pixel_size_yx_nm == pytest.approx((0.012, 0.013))
    assert got.meta == meta


def test_uncalibrated_frame_stays_uncalibrated() -> None:
    """A missing pixel size is NaN, never 1.0."""
    got = decode_frame(encode_frame(Frame(0, np.zeros((ROWS, COLS), np.uint8), 0.0, Origin("x"))))
    assert np.isnan(got.pixel_size_yx_nm).all()


def test_a_topic_part_may_come_first_and_big_endian_is_turned() -> None:
    """ADZMQ sends a topic; another sender may be big-endian, and spell the key as the specification's own example does."""
    parts = message(endianess="big")
    got = decode_frame([b"camera", *parts])
    assert np.array_equal(got.pixels, np.arange(ROWS * COLS, dtype="<u2").byteswap().reshape(ROWS, COLS))
    assert got.pixels.dtype.isnative


def test_imagezmq_header_is_understood() -> None:
    """`{msg, dtype, shape}` and raw pixels."""
    header = json.dumps({"msg": "hello", "dtype": "uint8", "shape": [ROWS, COLS]}).encode()
    assert decode_frame([header, bytes(ROWS * COLS)]).pixels.shape == (ROWS, COLS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"htype": "image-2.0"}, "htype"),
        ({"htype": None}, "htype"),
        ({"type": "datetime64"}, "type is"),
        ({"type": None}, "type is"),
        ({"shape": [ROWS]}, "shape"),
        ({"shape": [ROWS, 0]}, "shape"),
        ({"shape": [ROWS, 1 << 20]}, "shape"),
        ({"shape": [True, COLS]}, "shape"),
        ({"shape": [ROWS + 1, COLS]}, "needs"),
        ({"encoding": "bslz4"}, "encoding"),
        ({"endianness": "middle"}, "endianness"),
        ({"x-atomid": {"pixel_size_m": [1.0, 1.0]}}, "pixel_size_m"),
    ],
)
def test_a_broken_rule_is_named(changes: dict[str, Any], words: str) -> None:
    """Each refusal says which key is wrong."""
    with pytest.raises(WireError, match=words):
        decode_frame(message(**changes))


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "limit"),
        (b"[" * 30_000 + b"]" * 30_000, "not JSON|JSON list"),
        (b"[1]", "must be an object"),
        (b'{"htype": "array-1.0", "htype": "x"}', "twice"),
        (b'{"frame": NaN}', "NaN"),
        (b"x" * (MAX_HEADER_BYTES + 1), "limit"),
    ],
)
def test_a_hostile_header_is_refused(header: bytes, words: str) -> None:
    """Size, nesting, duplicates and non-numbers are caught before anything is allocated."""
    with pytest.raises(WireError, match=words):
        decode_frame([header, b""])


@pytest.mark.parametrize("count", [0, 1, 17])
def test_number_of_parts_is_checked(count: int) -> None:
    """Neither a lone header nor a flood of parts is a frame."""
    with pytest.raises(WireError, match="parts"):
        decode_frame([b"{}"] * count)


@given(st.lists(st.binary(max_size=200), min_size=2, max_size=4))
def test_random_bytes_only_ever_raise_wire_errors(parts: list[bytes]) -> None:
    """Whatever arrives, the session sees a `WireError` or a frame."""
    with contextlib.suppress(WireError):
        decode_frame(parts)


def test_result_message_has_x_before_y_and_no_nan() -> None:
    """Arrays follow in the order of the header; unknown numbers are null."""
    found = Detections(
        np.array([[1.0, 2.0], [3.0, 4.0]]), np.ones(2), np.ones((2, 2)), np.ones(2), np.zeros(2, np.int64), 2.8, 1.0, 0
    )
    parts = encode_result(Result(7, (ROWS, COLS), 1.0, "arrival", Origin("x"), found), "s")
    header = json.loads(parts[1])
    assert parts[0].startswith(b"atomid.result.")
    assert header["columns"] == 2 and header["drift"]["total_xy_px"] == [None, None]
    assert header["shape_xy"] == [COLS, ROWS]
    first = header["arrays"][0]
    assert first["name"] == "xy_px"
    assert np.array_equal(np.frombuffer(parts[2], "<f8").reshape(first["shape"]), [[2.0, 1.0], [4.0, 3.0]])
    assert len(parts) == 2 + len(header["arrays"])


def test_advice_says_where_to_and_keeps_still_when_unsure() -> None:
    drift = DriftEstimate(total_yx_px=(3.0, -4.0), sigma_yx_px=(0.1, 0.2))
    result = Result(
        7, (ROWS, COLS), 1.0, "arrival", Origin("x"), Detections.empty(), pixel_size_yx_nm=(0.02, 0.01), drift=drift
    )
    topic, header = encode_advice(result, "s")
    told = json.loads(header)
    assert topic == b"atomid.advice"
    assert told["shift_scan_xy_px"] == [-4.0, 3.0]
    assert told["shift_scan_xy_nm"] == pytest.approx([-0.04, 0.06])
    assert told["reason"] == ""
    unsure = replace(result, drift=replace(drift, flags=int(Flag.MODULO_LATTICE)))
    told = json.loads(encode_advice(unsure, "s")[1])
    assert told["shift_scan_xy_px"] == [None, None]
    assert told["reason"] == "modulo_lattice"
