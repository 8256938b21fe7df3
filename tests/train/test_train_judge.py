"""The judge learns what it is shown: peaks that stand on columns, from crops no network was trained on."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from atomid_live.backends import open_network  # noqa: E402
from atomid_live.backends.engine import find_engine, load_engine  # noqa: E402
from atomid_live.detect.judge import FEATURES, Judge  # noqa: E402
from atomid_live.train.dataset import Example, Recipe  # noqa: E402
from atomid_live.train.judge import Cases, fit_judge, gather, verdicts, write_judge  # noqa: E402
from atomid_live.train.targets import Labels  # noqa: E402


def test_a_column_takes_one_peak_and_doubtful_ones_teach_nothing() -> None:
    labels = Labels(np.array([[20.0, 20.0], [40.0, 40.0]]), np.array([[60.0, 60.0]]))
    example = Example(np.zeros((100, 100), np.float32), labels, 3.0, False, 1.0)
    peaks = np.array([[20.5, 20.0], [21.0, 22.0], [60.0, 63.0], [60.0, 70.0], [98.0, 50.0], [44.5, 40.0]])
    right, useful = verdicts(example, peaks)
    assert right.tolist() == [True, False, False, False, False, False]
    assert useful.tolist() == [True, True, False, True, False, True]


def test_the_judge_learns_a_rule_and_says_how_sure_it_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    seen = rng.normal(size=(20_000, len(FEATURES))).astype(np.float32)
    chance = 1 / (1 + np.exp(-(2 * seen[:, 0] - seen[:, 4])))
    right = (rng.random(len(seen)) < chance).astype(np.float32)
    arrays = fit_judge(Cases(seen, right, rng.integers(0, 50, len(seen))), steps=500)
    write_judge(arrays, tmp_path / "judge.npz")
    with np.load(tmp_path / "judge.npz") as stored:
        judge = Judge.from_arrays({name: stored[name] for name in stored.files})
    said = judge.probability(seen)
    assert np.abs(said - chance).mean() < 0.04
    again = fit_judge(Cases(seen, right, rng.integers(0, 50, len(seen))), steps=3)
    assert not np.allclose(Judge.from_arrays(again).probability(seen), said)


def test_peaks_of_the_shipped_network_are_mostly_columns() -> None:
    folder = find_engine()
    assert folder is not None
    cases = gather(open_network(load_engine(folder), "openvino", 1), Recipe(), 6)
    assert cases.seen.shape == (len(cases.right), len(FEATURES)) and np.isfinite(cases.seen).all()
    assert set(np.unique(cases.right)) <= {0.0, 1.0} and 0.2 < cases.right.mean() < 1.0
    assert cases.seen[cases.right > 0, 0].mean() > cases.seen[cases.right == 0, 0].mean() + 1.0
