"""Sub-pixel refinement: all versions against the reference, and all against known truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atomid_live.gpu_check.bandpass import jittered_scene
from atomid_live.kernels import reference
from atomid_live.kernels.layout import Column

FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def compare(version: Any, image: Any, start: Any, sigma: float) -> Any:
    expected, wide, _ = reference.refine(image, start, sigma)
    table, wider = version.refine(image, start, sigma)
    assert wider == pytest.approx(wide, rel=1e-4)
    fitted = expected[:, Column.OK] > 0
    np.testing.assert_array_equal(np.sign(table[:, Column.OK]), np.sign(expected[:, Column.OK]))
    np.testing.assert_array_equal(table[:, Column.EDGE] > 0, expected[:, Column.EDGE] > 0)
    # a pixel on the very rim of the round window may be in for one version and out for the other
    np.testing.assert_allclose(table[:, :2], expected[:, :2], atol=1e-2)
    names = [Column.AMPLITUDE, Column.BACKGROUND, Column.NOISE]
    if np.isfinite(table[:, Column.VAR_Y]).all():  # the processor's version gives its errors with all corrections made
        names += [Column.VAR_Y, Column.VAR_X]
    np.testing.assert_allclose(table[fitted][:, names], expected[fitted][:, names], rtol=2e-2, atol=1e-3)
    return table


@FEW
@given(seed=st.integers(0, 999), sigma=st.floats(1.2, 4.0), part=st.floats(2.6, 7.0), off=st.floats(0.0, 0.4))
def test_versions_agree_on_lattices(version: Any, seed: int, sigma: float, part: float, off: float) -> None:
    image, truth = jittered_scene((56, 72), part * sigma, sigma, seed)
    start = truth + np.random.default_rng(seed).uniform(-off, off, truth.shape) * sigma
    compare(version, image, start, sigma)


def test_truth_is_found_to_a_twentieth_of_a_pixel_and_the_errors_are_honest(version: Any) -> None:
    image, truth = jittered_scene((90, 120), 9.0, 1.9, 4, noise=1.0)
    table = compare(version, image, np.rint(truth), 1.9)
    good = (table[:, Column.OK] > 0) & (table[:, Column.EDGE] == 0)
    off = table[good, :2] - truth[good]
    assert np.sqrt(np.mean(off**2)) < 0.05
    raw = reference.refine(image, np.rint(truth), 1.9)[0][good]
    pulls = off / np.sqrt(raw[:, [Column.VAR_Y, Column.VAR_X]])
    assert 0.6 < np.sqrt(np.mean(np.minimum(np.abs(pulls), 5.0) ** 2)) < 1.7


def test_a_narrower_column_than_told_is_noticed(version: Any) -> None:
    image, truth = jittered_scene((90, 120), 11.0, 2.0, 5, noise=1.0)
    _, wider = version.refine(image, truth, 2.15)
    assert 1.95 < wider < 2.1


def test_no_columns(version: Any) -> None:
    table, wider = version.refine(np.zeros((32, 40), np.float32), np.empty((0, 2)), 2.0)
    assert table.shape == (0, len(Column))
    assert wider == 2.0


def test_starts_in_a_hollow_on_the_border_and_on_top_of_each_other(version: Any) -> None:
    """Failures stay by their start and say so; nothing is lost."""
    image, truth = jittered_scene((48, 64), 12.0, 2.0, 6)
    odd = np.array([[0.0, 0.0], [47.0, 63.0], [24.0, 0.4], truth[7], truth[7] + 0.01, truth[8] + 5.9])
    start = np.concatenate([truth, odd])
    table, _ = version.refine(image, start, 2.0)
    failed = table[:, Column.OK] == 0
    assert failed.any()
    assert np.hypot(*(table[:, :2] - start).T).max() <= 3.0
    assert np.isfinite(table[:, :5]).all()
    assert table[len(truth), Column.EDGE] > 0


@pytest.mark.torch
def test_what_residuals_have_in_common_is_summed_as_in_the_reference() -> None:
    """Jittered rows: the sums that widen the errors are those of the reference, on every k-th of many columns."""
    pytest.importorskip("torch")
    from host_kernels import HostLauncher

    from atomid_live.gpu_check.versions import CudaVersion

    image, truth = jittered_scene((230, 300), 8.5, 1.6, 11)
    image += np.random.default_rng(2).normal(0, 4, (230, 1)).astype(np.float32)
    assert len(truth) > 800
    expected = reference.refine(image, truth, 1.6)[2]
    np.testing.assert_allclose(CudaVersion(HostLauncher()).pool(image, truth, 1.6), expected, rtol=2e-3)
    assert expected[1] / expected[0] > 1.2


@pytest.mark.torch
def test_many_columns_give_the_same_bits_in_any_order_of_threads() -> None:
    """No sum depends on which thread came first, so an answer is the same on every run."""
    pytest.importorskip("torch")
    from host_kernels import HostLauncher

    from atomid_live.gpu_check.versions import CudaVersion

    image, truth = jittered_scene((200, 260), 5.0, 1.5, 9)
    assert len(truth) > 1500
    one, first = CudaVersion(HostLauncher(1)).refine(image, truth, 1.5)
    two, second = CudaVersion(HostLauncher(104_729)).refine(image, truth, 1.5)
    assert first == second
    np.testing.assert_array_equal(one, two)


@pytest.mark.torch
@pytest.mark.slow
def test_a_hundred_thousand_columns_as_on_the_processor() -> None:
    """A frame of 1600 x 1620 pixels full of columns 5 px apart, laid out of 25 tiles."""
    pytest.importorskip("torch")
    from host_kernels import HostLauncher

    from atomid_live.gpu_check.versions import CudaVersion, ProcessorVersion

    tile, inside = jittered_scene((320, 324), 5.0, 1.5, 4)
    # noise of its own for each, lest equal heights leave the choice of the strongest open
    image = np.tile(tile, (5, 5)) + np.random.default_rng(1).normal(0, 1, (1600, 1620)).astype(np.float32)
    truth = np.concatenate([inside + np.array([320 * row, 324 * col]) for row in range(5) for col in range(5)])
    assert len(truth) > 100_000
    table, wide = CudaVersion(HostLauncher(), 1 << 17).refine(image, truth, 1.5)
    expected, wider = ProcessorVersion().refine(image, truth, 1.5)
    assert wide == pytest.approx(wider, rel=1e-4)
    np.testing.assert_array_equal(np.sign(table[:, Column.OK]), np.sign(expected[:, Column.OK]))
    np.testing.assert_allclose(table[:, :2], expected[:, :2], atol=2e-2)
