"""The numba formatter against Python's own formatting."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomid_live import lanes
from atomid_live.session_file.fastcsv import format_table, parse_table


def one(value: float, decimals: int) -> str:
    return bytes(format_table(np.array([[value]]), np.array([decimals]))).decode().rstrip("\n")


@pytest.mark.parametrize("decimals", [0, 1, 4, 6, 9])
def test_ordinary_numbers_are_written_as_python_writes_them(decimals: int) -> None:
    values = np.random.default_rng(decimals).normal(0, 300, 2000)
    table = bytes(format_table(values[:, None], np.array([decimals]))).decode().split()
    assert table == [f"{v:.{decimals}f}" if float(f"{v:.{decimals}f}") else f"{0:.{decimals}f}" for v in values]


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (math.nan, 4, ""), (math.inf, 4, "inf"), (-math.inf, 4, "-inf"), (0.0, 4, "0.0000"), (-0.0, 4, "0.0000"),
        (-0.00004, 4, "0.0000"), (-0.00006, 4, "-0.0001"), (0.99996, 4, "1.0000"), (9.99996, 4, "10.0000"), (-7.0, 0, "-7"),
        (2.5, 0, "2"), (3.5, 0, "4"), (268435456.0, 0, "268435456"), (1e300, 4, "1.00000000e+300"),
        (-9.99999999999e20, 2, "-1.00000000e+21"),
    ],
)  # fmt: skip
def test_awkward_numbers(value: float, decimals: int, text: str) -> None:
    assert one(value, decimals) == text


@settings(deadline=None, max_examples=300)
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 12))
def test_any_number_is_within_half_a_unit_or_nine_digits(value: float, decimals: int) -> None:
    text = one(value, decimals)
    error = abs(Decimal(text) - Decimal(value))
    half_unit = Decimal("0.5000001") * Decimal(10) ** -decimals
    # the scaled value itself is rounded once, by one part in 2**53
    assert error <= half_unit + abs(Decimal(value)) * Decimal(2) ** -52 or error <= abs(Decimal(value)) * Decimal("1e-8")
    assert len(text) <= 31


def test_rows_keep_their_shape_and_come_back() -> None:
    table = np.array([[1.0, math.nan, -2.25], [math.nan, 3.5, math.nan]])
    text = bytes(format_table(table, np.array([0, 2, 2])))
    assert text == b"1,,-2.25\n,3.50,\n"
    np.testing.assert_array_equal(parse_table(text), table)
    assert parse_table(b"").size == 0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 1001])
def test_text_is_row_after_row_whatever_the_lanes(rows: int, threads: int) -> None:
    """The two halves meet without a gap, also when a long table was written before."""
    format_table(np.full((1500, 3), 123456.789), np.array([0, 2, 4]))
    table = np.random.default_rng(rows).normal(0, 50, (rows, 3))
    expected = "".join(f"{a:.0f},{b:.2f},{c:.4f}\n" for a, b, c in table).replace("-0,", "0,").encode()
    lanes.use(threads)
    assert bytes(format_table(table, np.array([0, 2, 4]))) == expected
    lanes.use(1)


def test_ragged_text_is_refused() -> None:
    with pytest.raises(ValueError, match="different length"):
        parse_table(b"1,2\n3\n")
    with pytest.raises(ValueError, match="different length"):
        parse_table(b"1,2,3\n4\n")
    with pytest.raises(ValueError, match="convert"):
        parse_table(b"1,x\n")
