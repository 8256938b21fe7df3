"""Labels that follow the pixels allow everything, labels that do not allow little, and the numbers tell which."""

import numpy as np
import pytest

from atomid_live.evaluate.label_limits import filtered_peaks, limits
from atomid_live.evaluate.real_frames import truth_from
from atomid_live.evaluate.scenes.truth import SceneImage
from atomid_live.evaluate.tables import label_limits
from atomid_live.simulate.imaging import render

SHAPE, SIGMA = (240, 280), 2.4


def _frame(labels: np.ndarray[tuple[int, int], np.dtype[np.float64]], seed: int = 0, periodic: bool = False) -> SceneImage:
    rng = np.random.default_rng(seed)
    expected = render(_atoms(), np.full(len(_atoms()), 2500.0), SIGMA, SHAPE) + 20.0
    pixels = rng.poisson(expected).astype(np.float32)
    return SceneImage("atoms", "made", seed, pixels, 0.03, SIGMA, truth_from(labels, periodic))


def _atoms() -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    y, x = np.mgrid[20:220:40, 20:260:40].astype(np.float64)
    return np.stack([y.ravel(), x.ravel()], 1) + np.random.default_rng(9).uniform(-6, 6, (y.size, 2))


def test_labels_that_follow_the_pixels_allow_everything() -> None:
    told = limits([_frame(_atoms(), seed) for seed in range(3)])
    assert len(told) == 1 and told[0].frames == 3 and told[0].labels == 3 * len(_atoms())
    assert told[0].without_peak == told[0].unclear == told[0].as_clear_unlabelled == 0.0
    assert told[0].best_f1 > 0.99


def test_half_the_labels_forgotten_and_some_invented() -> None:
    half = limits([_frame(_atoms()[::2])])[0]
    assert half.best_f1 == pytest.approx(2 / 3, abs=0.08) and half.as_clear_unlabelled > 0.2
    invented = np.concatenate([_atoms(), np.random.default_rng(1).uniform(20, 200, (15, 2))])
    some = limits([_frame(invented)])[0]
    assert some.without_peak + some.unclear > 0.2 and some.best_f1 < 0.9


def test_peaks_of_the_filter_lie_on_the_atoms_and_lattices_are_left_out() -> None:
    yx, z = filtered_peaks(_frame(_atoms()))
    clear = yx[z > 8]
    assert len(clear) == len(_atoms())
    assert np.hypot(*(clear[:, None] - _atoms()).transpose(2, 0, 1)).min(1).max() < 2.0
    assert limits([_frame(_atoms(), periodic=True)]) == []
    assert len(label_limits(limits([_frame(_atoms())]))) == 4
