"""Overlapping local maximum and radius suppression: all versions against the reference, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from atomid_live.gpu_check.versions import NumpyVersion
from atomid_live.kernels import reference

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLATEAUS = st.sampled_from([-1.0, 0.0, 0.25, 1.0, 1.0, 2.0, np.nan, np.inf])


def same(version: Any, image: Any, floor: float, radius: float) -> Any:
    expected, heights = NumpyVersion().peaks(image, floor, radius)
    yx, height = version.peaks(image, floor, radius)
    np.testing.assert_array_equal(yx, expected)
    np.testing.assert_array_equal(height, heights)
    return expected


@FEW
@given(
    image=arrays(np.float32, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24), elements=PLATEAUS),
    floor=st.sampled_from([-2.0, 0.0, 0.5]),
    radius=st.sampled_from([0.0, 1.0, 1.2, 2.0, 3.8, 9.0]),
)
def test_plateaus_nan_and_borders(version: Any, image: Any, floor: float, radius: float) -> None:
    """Ties, NaN, infinities and every border, at every radius."""
    same(version, image, floor, radius)


@pytest.mark.parametrize("radius", [1.5, 3.8])
def test_a_plateau_has_one_peak_and_it_is_the_first_in_raster_order(version: Any, radius: float) -> None:
    image = np.zeros((17, 23), np.float32)
    image[4:7, 9:12] = 5.0
    assert same(version, image, 1.0, radius).tolist() == [[4, 9]]


def test_nan_is_no_peak_and_hides_none(version: Any) -> None:
    image = np.zeros((16, 20), np.float32)
    image[8, 9], image[8, 10], image[0, 0] = 3.0, np.nan, np.nan
    assert same(version, image, 1.0, 3.0).tolist() == [[8, 9]]


@pytest.mark.parametrize("image", [np.zeros((16, 24)), np.full((5, 3), np.nan), np.full((1, 1), -1.0)])
def test_nothing_found_is_an_empty_table(version: Any, image: Any) -> None:
    assert same(version, image.astype(np.float32), 0.5, 2.0).shape == (0, 2)


def test_a_long_chain_of_decisions_ends_as_the_greedy_rule_does(version: Any) -> None:
    """Each peak waits for the next better one: twenty in a row, far more than the rounds of a launch."""
    image = np.zeros((9, 60), np.float32)
    image[4, 2::3] = np.arange(20) + 1.0
    assert len(same(version, image, 0.5, 3.5)) == 10


def test_crowded_map_keeps_its_distance(version: Any) -> None:
    image = np.random.default_rng(3).random((40, 64)).astype(np.float32)
    found = same(version, image, 0.0, 3.2)
    gaps = np.linalg.norm(found[:, None] - found[None], axis=2)
    assert gaps[gaps > 0].min() >= 3.2
    assert len(found) > 60


def test_the_reference_is_the_greedy_rule() -> None:
    """Brute force over the definition, without the sorting trick of the reference."""
    rng = np.random.default_rng(8)
    yx = np.unique(rng.integers(0, 30, (80, 2)), axis=0)
    height = rng.integers(0, 6, len(yx)).astype(np.float64)
    left, kept = set(range(len(yx))), set()
    while left:
        best = min(left, key=lambda k: (-height[k], yx[k][0], yx[k][1]))
        kept.add(best)
        left = {k for k in left if np.sum((yx[k] - yx[best]) ** 2) >= 4.5**2}
    assert set(np.flatnonzero(reference.suppress(yx, height, 4.5))) == kept


@pytest.mark.torch
@pytest.mark.slow
def test_a_hundred_thousand_peaks_in_order() -> None:
    """As many as a table has room for, listed as the processor lists them."""
    pytest.importorskip("torch")
    from host_kernels import HostLauncher

    from atomid_live.gpu_check.versions import CudaVersion, ProcessorVersion

    image = np.random.default_rng(4).random((1000, 1004)).astype(np.float32)
    yx, height = CudaVersion(HostLauncher(7919), 1 << 17).peaks(image, 0.2, 1.5)
    expected, heights = ProcessorVersion().peaks(image, 0.2, 1.5)
    assert len(expected) > 100_000
    np.testing.assert_array_equal(yx, expected)
    np.testing.assert_array_equal(height, heights)
