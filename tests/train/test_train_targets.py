"""Labels say what is visible, and maps hold them where the network's pixels lie."""

import numpy as np
import pytest

from atomid_live.train.targets import RESOLVED_SIGMAS, draw_maps, hidden, label_columns, mean_spacing

SIGMA = 2.0


def _noise_for(detectable: float, height: float) -> float:
    return height * np.sqrt(np.pi) * SIGMA / detectable


def _maximum_near_faint(ratio: float, apart: float) -> bool:
    x = np.linspace(-6, 12, 4000)
    profile = np.exp(-0.5 * x**2) + ratio * np.exp(-0.5 * (x - apart) ** 2)
    peaks = x[1:-1][(profile[1:-1] > profile[:-2]) & (profile[1:-1] >= profile[2:])]
    return bool((np.abs(peaks - apart) < 0.75).any() and len(peaks) == 2)


@pytest.mark.parametrize("ratio", [1.0, 0.6, 0.33, 0.1])
def test_hidden_agrees_with_the_profile_of_two_columns(ratio: float) -> None:
    for apart in (1.7, 2.2, 2.6, 2.9, 3.2, 3.6):
        found = not bool(hidden(np.array([ratio]), np.array([apart]))[0])
        near_the_limit = _maximum_near_faint(ratio, apart - 0.12) != _maximum_near_faint(ratio, apart + 0.12)
        assert near_the_limit or found == _maximum_near_faint(ratio, apart)


def test_bright_wanted_faint_ignored_invisible_background() -> None:
    yx = np.array([[10.0, 10.0], [10.0, 40.0], [40.0, 10.0], [40.0, 40.0]])
    height = np.array([100.0, 100.0, 25.0, 8.0])
    noise = np.full(4, _noise_for(8.0, 100.0))
    labels = label_columns(yx, height, noise, SIGMA)
    assert labels.wanted.tolist() == yx[:2].tolist()
    assert labels.ignored.tolist() == yx[2:3].tolist()  # d' 2.0; the last has 0.64


def test_a_lattice_is_asked_for_at_lower_dose_than_single_atoms() -> None:
    yx = np.stack(np.meshgrid(np.arange(5) * 20.0, np.arange(4) * 20.0), -1).reshape(-1, 2)
    height, noise = np.full(20, 10.0), np.full(20, _noise_for(2.1, 10.0))
    assert len(label_columns(yx, height, noise, SIGMA).wanted) == 20
    alone = label_columns(yx, height, noise, SIGMA, sparse=True)
    assert (len(alone.wanted), len(alone.ignored)) == (0, 20)


@pytest.mark.parametrize(("apart", "wanted", "ignored"), [(1.5, 1, 0), (0.5 * (1.9 + RESOLVED_SIGMAS), 0, 2), (3.0, 2, 0)])
def test_close_pairs_are_one_vague_or_two(apart: float, wanted: int, ignored: int) -> None:
    yx = np.array([[10.0, 10.0], [10.0, 10.0 + apart * SIGMA]])
    labels = label_columns(yx, np.full(2, 50.0), np.full(2, 1.0), SIGMA)
    assert (len(labels.wanted), len(labels.ignored)) == (wanted, ignored)
    if apart < 1.9:
        assert labels.wanted[0] == pytest.approx(yx.mean(0))


def test_map_pixels_lie_between_the_input_pixels() -> None:
    heat, weight = draw_maps(np.array([[20.5, 33.5]]), np.array([[50.5, 12.5]]), (32, 48), 2, 3.0)
    assert np.unravel_index(heat.argmax(), heat.shape) == (10, 16.5 // 1)
    assert heat[10, 16] == pytest.approx(heat[10, 17]) or heat[10, 16] == pytest.approx(np.exp(-0.5 * 1 / 4), abs=0.2)
    column = (heat * np.arange(48)).sum() / heat.sum()
    assert 2 * column + 0.5 == pytest.approx(33.5, abs=0.02)
    assert weight[25, 6] == 0 and weight[25, 12] == 1 and weight[10, 16] == 1


def test_mean_spacing_needs_company() -> None:
    grid = np.stack(np.meshgrid(np.arange(6) * 9.0, np.arange(5) * 12.0), -1).reshape(-1, 2)
    assert mean_spacing(grid) == pytest.approx(9.0)
    assert np.isnan(mean_spacing(grid[:5]))
