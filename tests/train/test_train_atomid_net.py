"""The thesis's network as described there: it has its size, trains and exports, and its decoding loses what it must lose."""

import csv
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", exc_type=ImportError)

from atomid_live.errors import UsageError  # noqa: E402
from atomid_live.train.atomid_net import AtomIdNet, box_suppression, pooled_peaks, thesis_decode  # noqa: E402
from atomid_live.train.dataset import Recipe, make_crop  # noqa: E402
from atomid_live.train.export import write_onnx  # noqa: E402
from atomid_live.train.fit import TrainSettings, train  # noqa: E402
from atomid_live.train.loss import THESIS_LAMBDA, thesis_loss  # noqa: E402
from atomid_live.train.network import parameters  # noqa: E402

pytestmark = pytest.mark.torch


def test_it_has_the_size_it_is_known_for() -> None:
    network = AtomIdNet()
    assert parameters(network) == pytest.approx(7.9e6, rel=0.01)
    assert parameters(network.branch) == pytest.approx(0.15e6, rel=0.05)


def test_loss_is_equation_seven() -> None:
    heat, wanted = torch.rand(3, 1, 8, 12), torch.rand(3, 1, 8, 12)
    spacing, true = torch.tensor([9.0, 11.0, 7.0]), torch.tensor([10.0, 11.5, float("nan")])
    expected = 0.5 * (THESIS_LAMBDA * ((heat - wanted) ** 2).sum((1, 2, 3)) + torch.tensor([1.0, 0.25, 0.0])).mean()
    assert float(thesis_loss(heat, spacing, wanted, true)) == pytest.approx(float(expected), rel=1e-5)


def test_it_trains_and_exports(tmp_path: Path) -> None:
    recipe = Recipe(side_px=64, thesis_targets=True)
    settings = TrainSettings(
        out=tmp_path, architecture="atomid-net", crops=8, batch=2, rate=1e-3, workers=0, recipe=recipe, validate_every=2
    )
    train(settings, quiet=True)
    with (tmp_path / "log.csv").open(encoding="utf-8") as stream:
        assert all(np.isfinite(float(row["train_loss"])) for row in csv.DictReader(stream))
    network = AtomIdNet(features=8).eval()
    write_onnx(network, tmp_path / "thesis.onnx", {"map": {0: "batch", 2: "rows", 3: "cols"}, "spacing_px": {0: "batch"}})
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "thesis.onnx"), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((1, 1, 96, 64), dtype=np.float32)
    heat, spacing = session.run(None, {"image": image})
    with torch.no_grad():
        expected = network(torch.from_numpy(image))
    assert np.abs(heat - expected[0].numpy()).max() < 1e-4
    assert spacing[0] == pytest.approx(float(expected[1][0]), abs=1e-4)


def test_its_targets_are_a_quarter_of_the_spacing_wide_at_full_resolution() -> None:
    crop = next(c for c in (make_crop(Recipe(side_px=96, thesis_targets=True), n) for n in range(60)) if c.spacing_px > 9)
    assert crop.heat.shape == (96, 96)
    y, x = np.rint(crop.wanted[len(crop.wanted) // 2]).astype(int)
    width = 0.25 * crop.spacing_px
    alone = np.exp(-0.5 * ((y - crop.wanted[:, 0]) ** 2 + (x - crop.wanted[:, 1]) ** 2) / width**2).max()
    assert crop.heat[y, x] == pytest.approx(alone, abs=1e-5)


def test_compact_targets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="thesis_targets"):
        train(TrainSettings(out=tmp_path, architecture="atomid-net", crops=2, batch=2, workers=0), quiet=True)


def test_blocks_keep_one_column_each_and_boxes_thin_the_rest() -> None:
    heat = torch.zeros(40, 48)
    for row, col, height in ((4, 4, 1.0), (6, 6, 0.9), (20, 20, 0.8), (36, 40, 0.7)):
        heat[row, col] = height
    yx, height = pooled_peaks(heat, 0.5)
    assert yx.tolist() == [[4, 4], [20, 20], [36, 40]]
    assert height == pytest.approx([1.0, 0.8, 0.7])
    assert len(thesis_decode(heat, 10.0)) == 3
    pair = np.array([[10, 10], [10, 14], [10, 30]])
    assert box_suppression(pair, np.array([0.9, 0.8, 0.7], np.float32), 10.0).tolist() == [0, 2]
