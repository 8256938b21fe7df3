"""Resampling and local contrast: all versions against the reference, and the reference against what must hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atomid_live.kernels import reference

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def picture(shape: tuple[int, int], seed: int) -> Any:
    return np.random.default_rng(seed).gamma(2.0, 50.0, shape).astype(np.float32)


@FEW
@given(rows=st.integers(3, 40), cols=st.integers(3, 40), part=st.floats(0.3, 1.0), seed=st.integers(0, 99))
def test_area_means(version: Any, rows: int, cols: int, part: float, seed: int) -> None:
    """OpenCV leaves out slivers under a thousandth of a pixel, hence the tolerance."""
    image = picture((rows, cols), seed)
    shape = max(1, round(rows * part)), max(1, round(cols * part))
    expected = reference.area_resample(image, shape)
    np.testing.assert_allclose(version.resample(image, shape), expected, atol=2e-3 * image.max())


def test_area_means_keep_the_mean_and_reach_every_border(version: Any) -> None:
    image = np.zeros((31, 45), np.float32)
    image[0, 0] = image[-1, -1] = image[0, -1] = 1000.0
    small = version.resample(image, (20, 29))
    assert small.mean() == pytest.approx(image.mean(), rel=3e-3)
    assert small[0, 0] > 400.0
    assert small[-1, -1] > 400.0
    assert small[0, -1] > 400.0


@FEW
@given(rows=st.integers(1, 70), cols=st.integers(1, 70), seed=st.integers(0, 99))
def test_local_contrast(version: Any, rows: int, cols: int, seed: int) -> None:
    image = picture((rows, cols), seed)
    if rows * cols < 64:
        return  # so few pixels may share one value, where float32 and float64 disagree on what is constant
    np.testing.assert_allclose(version.contrast(image), reference.local_contrast(image), atol=3e-3)


def test_local_contrast_of_a_constant_is_nought(version: Any) -> None:
    assert not np.any(version.contrast(np.full((37, 52), 7.0, np.float32)))


def test_local_contrast_does_not_see_brightness_and_gain(version: Any) -> None:
    image = picture((48, 72), 5)
    np.testing.assert_allclose(version.contrast(3.0 * image + 500.0), version.contrast(image), atol=3e-3)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("turned", [False, True])
def test_raw_pixels_of_every_type(dtype: str, turned: bool) -> None:
    """CUDA source on the processor and torch give the same floats as the reference, and as the detectors' own preparation."""
    torch = pytest.importorskip("torch")
    from host_kernels import HostLauncher

    from atomid_live.detect.normalise import prepare
    from atomid_live.kernels import stages, torch_ops
    from atomid_live.kernels.frame_params import MapRule, fill

    pixels = np.random.default_rng(1).integers(-100 if dtype[0] != "u" else 0, 120, (19, 26)).astype(dtype)
    if dtype.endswith("32") or dtype == "float64":
        pixels = pixels * np.array(16_000_000 if "int" in dtype else 1e5 / 3).astype(dtype)
    prepared = prepare(pixels)
    top = float(prepared.image.max()) if turned else None
    expected = prepared.image if top is None else np.float32(top) - prepared.image
    np.testing.assert_array_equal(reference.to_image(pixels, prepared.offset, top), expected)
    b = stages.allocate(pixels.shape, (24, 32), 400, "cpu")
    b.param.copy_(torch.from_numpy(fill(prepared, 2.0, pixels.shape, (24, 32), MapRule(), inverted=turned)))
    stages.normalise(HostLauncher(), b, torch.from_numpy(pixels))
    np.testing.assert_array_equal(b.image.numpy(), expected)
    if dtype not in ("uint16", "uint32"):
        np.testing.assert_array_equal(torch_ops.to_image(torch.from_numpy(pixels), prepared.offset, top).numpy(), expected)
