"""Numbers to CSV text and back, fast enough for 7000 columns in every frame.

Each column of the table has a fixed number of decimals. NaN is an empty cell, infinity is `inf`, there is no negative zero,
and a number too large for its decimals to mean anything is written in exponent form with nine digits.
"""

from __future__ import annotations

import threading

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atomid_live.lanes import beside
from atomid_live.types import FloatArray, IntArray

_CELL = 32
_scratch = threading.local()
_EXACT = 2.0**53
_SHORT = 1e8
_TEN = 10.0 ** np.arange(19)

_MINUS, _DOT, _COMMA, _LINE_FEED, _ZERO, _E, _PLUS = (ord(c) for c in "-.,\n0e+")


@njit(nogil=True, cache=True, error_model="numpy")
def _put_int(out: NDArray[np.uint8], at: int, value: np.uint64, least: int) -> int:
    """Write an integer with at least `least` digits; return the next position."""
    ten = np.uint64(10)
    digits = 1
    rest = value // ten
    while rest > 0:
        digits += 1
        rest //= ten
    digits = max(digits, least)
    for place in range(at + digits - 1, at - 1, -1):
        rest = value // ten
        out[place] = _ZERO + (value - rest * ten)
        value = rest
    return at + digits


@njit(nogil=True, cache=True, error_model="numpy")
def _put_fixed(out: NDArray[np.uint8], at: int, scaled: float, decimals: int, unit: float) -> int:
    """Write `scaled / unit`, where `scaled` is a whole number under 2**53 and `unit` is 10**decimals."""
    number = np.uint64(scaled)
    if decimals == 0:
        return int(_put_int(out, at, number, 1))
    divisor = np.uint64(unit)
    whole = number // divisor
    at = _put_int(out, at, whole, 1)
    out[at] = _DOT
    return int(_put_int(out, at + 1, number - whole * divisor, decimals))


@njit(nogil=True, cache=True, error_model="numpy")
def _eight_digits(number: np.uint64) -> np.uint64:
    """Return the digits of a number under 10**8 as eight bytes of text, the highest digit in the lowest byte.

    Halves, quarters and eighths of the register are divided at once by multiplying: no loop, no branch.
    """
    high = number // np.uint64(10000)
    x = high | ((number - high * np.uint64(10000)) << np.uint64(32))
    q = ((x * np.uint64(10486)) >> np.uint64(20)) & np.uint64(0x7F0000007F)
    x = q | ((x - q * np.uint64(100)) << np.uint64(16))
    q = ((x * np.uint64(103)) >> np.uint64(10)) & np.uint64(0x000F000F000F000F)
    return (q | ((x - q * np.uint64(10)) << np.uint64(8))) + np.uint64(0x3030303030303030)


@njit(nogil=True, cache=True, error_model="numpy")
def _put_eight(out: NDArray[np.uint8], at: np.uint64, text: np.uint64) -> None:
    for k in range(np.uint64(8)):
        out[at + k] = (text >> (np.uint64(8) * k)) & np.uint64(255)


@njit(nogil=True, cache=True, error_model="numpy")
def _put_short(out: NDArray[np.uint8], at: int, scaled: float, decimals: int) -> int:
    """Like `_put_fixed` for `scaled` under 10**8 and at most 7 decimals, of which a frame has a hundred thousand.

    Always eight bytes are written, too many; the next cell is written over the rest.
    """
    count = 1
    for limit in (1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7):
        count += int(scaled >= limit)
    count = max(count, decimals + 1)
    text = _eight_digits(np.uint64(scaled)) >> np.uint64(64 - 8 * count)
    _put_eight(out, np.uint64(at), text)
    if decimals == 0:
        return at + count
    whole = count - decimals
    out[np.uint64(at + whole)] = _DOT
    _put_eight(out, np.uint64(at + whole + 1), text >> np.uint64(8 * whole))
    return at + count + 1


@njit(nogil=True, cache=True, error_model="numpy")
def _put_large(out: NDArray[np.uint8], at: int, value: float) -> int:
    """Write a positive number in exponent form with nine digits."""
    exponent = int(np.floor(np.log10(value)))
    mantissa = np.rint(value / 10.0**exponent * 1e8)
    if mantissa >= 1e9:
        mantissa /= 10
        exponent += 1
    at = _put_fixed(out, at, np.rint(mantissa), 8, 1e8)
    out[at] = _E
    out[at + 1] = _PLUS
    return int(_put_int(out, at + 2, np.uint64(exponent), 2))


@njit(nogil=True, cache=True, error_model="numpy")
def _put_cell(out: NDArray[np.uint8], at: int, value: float, decimals: int, unit: float) -> int:
    if np.isnan(value):
        return at
    size = abs(value)
    scaled = np.rint(size * unit)
    if value < 0 and scaled > 0:
        out[at] = _MINUS
        at += 1
    if np.isinf(size):
        out[at], out[at + 1], out[at + 2] = 105, 110, 102  # i n f
        return at + 3
    if scaled < _SHORT and decimals < 8:
        return int(_put_short(out, at, scaled, decimals))
    if scaled < _EXACT:
        return int(_put_fixed(out, at, scaled, decimals, unit))
    return int(_put_large(out, at, size))


@njit(nogil=True, cache=True, error_model="numpy")
def _put_table(out: NDArray[np.uint8], table: FloatArray, decimals: IntArray, units: FloatArray) -> int:
    at = 0
    last = table.shape[1] - 1
    for row in range(table.shape[0]):
        for column in range(last + 1):
            at = _put_cell(out, at, table[row, column], decimals[column], units[column])
            out[at] = _LINE_FEED if column == last else _COMMA
            at += 1
    return at


def format_table(table: FloatArray, decimals: IntArray) -> memoryview:
    """Return the rows of `table` as CSV text in ASCII.

    Parameters
    ----------
    table : ndarray, shape (rows, columns), float64
    decimals : ndarray, shape (columns,), int64
        Digits after the point, 0 to 15; 0 writes whole numbers without a point.

    Returns
    -------
    memoryview
        Rows that end in a line feed, good until the next call in this thread. Rounding is to the nearest; a value within one
        unit in the last place of half way may go either way.
    """
    table = np.ascontiguousarray(table, dtype=np.float64)
    digits = np.ascontiguousarray(decimals, dtype=np.int64)
    units, half = _TEN[digits], len(table) // 2
    split = half * table.shape[1] * _CELL
    out = _space(table.size * _CELL + 1)
    with beside(lambda: _put_table(out[split:], table[half:], digits, units)) as second:
        first = _put_table(out, table[:half], digits, units)
        length = first + second.result()
    out[first:length] = out[split : split + length - first]
    return out[:length].data


def _space(size: int) -> NDArray[np.uint8]:
    """Memory to write into, the same at each call in this thread: fresh pages cost a millisecond."""
    kept: NDArray[np.uint8] | None = getattr(_scratch, "kept", None)
    if kept is None or len(kept) < size:
        kept = _scratch.kept = np.empty(size, np.uint8)
    return kept


def parse_table(text: bytes) -> FloatArray:
    """Return the numbers of CSV text, shape (rows, columns) float64; empty cells are NaN.

    Raises
    ------
    ValueError
        A cell is not a number, or rows differ in length.
    """
    rows = text.replace(b"\r", b"").strip(b"\n").split(b"\n")
    if rows == [b""]:
        return np.empty((0, 0))
    cells = b",".join(rows).split(b",")
    if len(cells) % len(rows) or any(row.count(b",") != rows[0].count(b",") for row in rows):
        raise ValueError("rows of different length")
    return np.array([cell or b"nan" for cell in cells]).astype(np.float64).reshape(len(rows), -1)
