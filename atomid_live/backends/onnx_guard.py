"""Refuse an ONNX file that asks for more than arithmetic: foreign operators, side files, local functions, sheer size.

Reads the protobuf wire format directly (onnx.proto3 field numbers), so that nothing of the file is executed or trusted and
no further package is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from atomid_live.errors import ModelError

MAX_BYTES = 64 * 1024 * 1024
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
_MAX_DEPTH = 8


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number runs over the end")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, integer or bytes) of one message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} does not occur in ONNX")
        if at + size > len(data):
            raise ValueError("a field runs over the end")
        yield number, data[at : at + size]
        at += size


def _parts(data: memoryview, wanted: int) -> Iterator[memoryview]:
    return (value for number, value in _fields(data) if number == wanted and isinstance(value, memoryview))


def _check_tensor(data: memoryview, path: Path) -> None:
    # TensorProto: 13 external_data, 14 data_location (1 = EXTERNAL)
    if any(number == 13 or (number == 14 and value == 1) for number, value in _fields(data)):
        raise ModelError(f"{path}: keeps weights in a second file; a model must be one file; export it with its data inside")


def _check_graph(data: memoryview, path: Path, depth: int) -> None:
    # GraphProto: 1 node, 5 initializer, 15 sparse_initializer; NodeProto: 5 attribute, 7 domain;
    # AttributeProto: 5 t, 6 g, 10 tensors, 11 graphs, 22 sparse_tensor, 23 sparse_tensors
    if depth > _MAX_DEPTH:
        raise ModelError(f"{path}: graphs nested more than {_MAX_DEPTH} deep; such a model is refused")
    for number, value in _fields(data):
        if not isinstance(value, memoryview):
            continue
        if number == 5:
            _check_tensor(value, path)
        elif number == 15:
            raise ModelError(f"{path}: holds sparse weights, which are refused; export it with dense ones")
        elif number == 1:
            _check_node(value, path, depth)


def _check_node(data: memoryview, path: Path, depth: int) -> None:
    for number, value in _fields(data):
        if number == 7 and isinstance(value, memoryview):
            _check_domain(value, path)
        if number != 5 or not isinstance(value, memoryview):
            continue
        for inner, part in _fields(value):
            if inner in (5, 10) and isinstance(part, memoryview):
                _check_tensor(part, path)
            elif inner in (6, 11) and isinstance(part, memoryview):
                _check_graph(part, path, depth + 1)
            elif inner in (22, 23):
                raise ModelError(f"{path}: holds sparse weights, which are refused; export it with dense ones")


def _check_domain(value: memoryview, path: Path) -> None:
    domain = bytes(value).decode("utf-8", "replace")
    if domain not in STANDARD_DOMAINS:
        raise ModelError(
            f"{path}: uses operators of the domain {domain!r}; only standard ONNX operators are allowed; export it without them"
        )


def check_onnx(path: Path, data: bytes) -> None:
    """Raise `ModelError` unless the file is a plain ONNX model in one piece.

    Parameters
    ----------
    path : Path
        For the message.
    data : bytes
        The file's content.
    """
    if len(data) > MAX_BYTES:
        raise ModelError(f"{path}: {len(data)} bytes; a model may have at most {MAX_BYTES}")
    graphs = 0
    try:
        # ModelProto: 7 graph, 8 opset_import (1 domain), 20 training_info, 25 functions
        for number, value in _fields(memoryview(data)):
            if not isinstance(value, memoryview):
                continue
            if number == 8:
                for domain in _parts(value, 1):
                    _check_domain(domain, path)
            elif number in (20, 25):
                raise ModelError(
                    f"{path}: defines functions or training steps of its own, which are refused; export plain inference"
                )
            elif number == 7:
                graphs += 1
                _check_graph(value, path, 0)
    except ValueError as error:
        raise ModelError(f"{path}: not a valid ONNX file ({error}); fetch or train the model again") from error
    if graphs != 1:
        raise ModelError(f"{path}: not a valid ONNX file ({graphs} graphs instead of one); fetch or train the model again")
