"""Pixels and nm, rows and x."""

from __future__ import annotations

import math

import numpy as np
import pytest

from atomid_live import calibration as cal

SIZE = (0.02, 0.005)


def test_pairs_swap_and_swap_back() -> None:
    assert cal.xy((3.0, 7.0)) == (7.0, 3.0)
    assert cal.yx(cal.xy((3.0, 7.0))) == (3.0, 7.0)


def test_points_split_into_x_and_y() -> None:
    points = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    x, y = cal.xy_columns(points)
    np.testing.assert_array_equal(x, [10, 20, 30])
    np.testing.assert_array_equal(y, [1, 2, 3])
    np.testing.assert_array_equal(cal.yx_points(x, y), points)


def test_each_axis_has_its_own_pixel_size() -> None:
    assert cal.pair_nm((10.0, 10.0), SIZE) == pytest.approx((0.2, 0.05))
    np.testing.assert_allclose(cal.points_nm(np.array([[1.0, 2.0]]), SIZE), [[0.02, 0.01]])


def test_a_length_takes_the_side_of_the_equal_square() -> None:
    assert cal.mean_pixel_nm(SIZE) == pytest.approx(0.01)
    assert cal.length_nm(30, SIZE) == pytest.approx(0.3)
    assert cal.length_px(cal.length_nm(30, SIZE), SIZE) == pytest.approx(30)


@pytest.mark.parametrize("size", [(math.nan, math.nan), (0.01, math.nan), (0.01, 0.0), (-0.01, 0.01), (math.inf, 0.01)])
def test_without_both_sizes_everything_is_nan(size: tuple[float, float]) -> None:
    assert not cal.is_calibrated(size)
    assert all(math.isnan(value) for value in cal.pair_nm((1.0, 1.0), size))
    assert np.isnan(cal.points_nm(np.ones((2, 2)), size)).all()
    assert math.isnan(cal.length_nm(1, size)) and math.isnan(cal.length_px(1, size))
