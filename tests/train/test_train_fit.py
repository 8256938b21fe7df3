"""A run that was cut off goes on as if it had not been; the network learns; what leaves is what was trained."""

import csv
import json
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", exc_type=ImportError)

from atomid_live.backends import open_network  # noqa: E402
from atomid_live.backends.engine import load_engine  # noqa: E402
from atomid_live.errors import ModelError, UsageError  # noqa: E402
from atomid_live.train.dataset import Recipe  # noqa: E402
from atomid_live.train.export import load_compact, toml_text, write_engine  # noqa: E402
from atomid_live.train.fit import TrainSettings, rate_at, train  # noqa: E402
from atomid_live.train.loss import compact_loss  # noqa: E402
from atomid_live.train.network import CompactUnet, parameters  # noqa: E402

pytestmark = pytest.mark.torch
TINY = TrainSettings(
    out=Path(), crops=48, batch=4, channels=(4, 6, 8), blocks=2, workers=0, recipe=Recipe(side_px=64), validate_every=4,
    checkpoint_every=5,
)  # fmt: skip


def _weights(folder: Path) -> dict[str, np.ndarray]:
    network, _ = load_compact(folder / "checkpoint.pt", replace(TINY, out=folder))
    return {key: value.numpy() for key, value in network.state_dict().items()}


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole, halves = replace(TINY, out=tmp_path / "a"), replace(TINY, out=tmp_path / "b")
    train(whole, quiet=True)

    class UnpluggedError(Exception):
        pass

    from atomid_live.train import fit

    taken = 0
    original = fit.Run.learn

    def learn(self: fit.Run, batch: object) -> float:
        nonlocal taken
        taken += 1
        if taken == 8:
            raise UnpluggedError
        return original(self, batch)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch, pytest.raises(UnpluggedError):
        patch.setattr(fit.Run, "learn", learn)
        train(halves, quiet=True)
    train(halves, quiet=True)
    one, two = _weights(whole.out), _weights(halves.out)
    assert all(np.array_equal(one[key], two[key]) for key in one)
    with (halves.out / "log.csv").open(encoding="utf-8") as stream:
        steps = [int(row["step"]) for row in csv.DictReader(stream)]
    assert sorted(set(steps)) == [4, 8, 12]
    assert json.loads((halves.out / "run.json").read_text(encoding="utf-8"))["revision"]
    assert (whole.out / "curves.png").stat().st_size > 1000


def test_rate_rises_stays_and_falls_to_zero() -> None:
    settings = replace(TINY, crops=40_000, batch=4, decay=0.3, rate=1e-3)
    rates = [rate_at(step, settings) for step in range(10_001)]
    assert rates[0] < 1e-5 and rates[300] == rates[7000] == pytest.approx(1e-3) and rates[-1] == pytest.approx(0, abs=1e-9)
    assert all(a >= b for a, b in pairwise(rates[7000:]))


def test_loss_is_zero_for_the_truth_and_blind_where_nothing_is_asked() -> None:
    heat = torch.rand(2, 1, 8, 12)
    sizes = torch.tensor([[0.1, 0.2], [float("nan"), 0.3]])
    right = compact_loss(torch.logit(heat), torch.nan_to_num(sizes), heat, torch.ones_like(heat), sizes)
    assert float(right) == pytest.approx(0, abs=1e-5)
    weight = torch.ones_like(heat)
    weight[0, 0, :4] = 0
    wrong = torch.logit(heat).clone()
    wrong[0, 0, :4] += 3
    assert float(compact_loss(wrong, torch.nan_to_num(sizes), heat, weight, sizes)) == pytest.approx(0, abs=1e-5)
    assert float(compact_loss(wrong, torch.nan_to_num(sizes), heat, torch.ones_like(heat), sizes)) > 0.1


def test_network_has_half_resolution_and_the_size_it_claims() -> None:
    network = CompactUnet().eval()
    logits, sizes = network(torch.zeros(2, 1, 96, 160))
    assert logits.shape == (2, 1, 48, 80) and sizes.shape == (2, 2)
    assert parameters(network) < 250_000


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch"])
def test_exported_engine_answers_as_the_network_does(tmp_path: Path, backend: str) -> None:
    torch.manual_seed(3)
    network = CompactUnet(TINY.channels, TINY.blocks).eval()
    write_engine("tiny", network, replace(TINY, out=tmp_path), tmp_path / "tiny", {"threshold": {"lattice": 0.3}})
    engine = load_engine(tmp_path / "tiny")
    image = np.random.default_rng(1).standard_normal((96, 144), dtype=np.float32)
    with torch.no_grad():
        logits, sizes = network(torch.from_numpy(image)[None, None])
    opened = open_network(engine, backend, 1)
    maps = opened.infer(image)
    opened.close()
    assert maps.confidence.shape == (48, 72) and maps.stride == 2
    assert np.abs(maps.confidence - torch.sigmoid(logits)[0, 0].numpy()).max() < 2e-5
    assert maps.spacing_px == pytest.approx(8.0 * float(torch.exp(sizes[0, 0])), rel=1e-4)
    assert maps.column_sigma_px == pytest.approx(1.9 * float(torch.exp(sizes[0, 1])), rel=1e-4)
    assert backend in opened.name and "tiny" in opened.name


def test_int8_stays_near_and_is_listed_in_the_card(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    from atomid_live.train.quantise import quantise

    torch.manual_seed(4)
    network = CompactUnet(TINY.channels, TINY.blocks).eval()
    settings = replace(TINY, out=tmp_path)
    write_engine("tiny", network, settings, tmp_path / "tiny", {"threshold": {"lattice": 0.3}})
    quantise(tmp_path / "tiny" / "model.onnx", tmp_path / "tiny" / "model_int8.onnx", TINY.recipe, 8)
    tables = {"threshold": {"lattice": 0.3}, "output": {"default_precision": "int8"}}
    write_engine("tiny", network, settings, tmp_path / "tiny", tables)
    engine = load_engine(tmp_path / "tiny")
    assert engine.file_for("auto") == "model_int8.onnx"
    image = np.random.default_rng(1).standard_normal((96, 144), dtype=np.float32)
    exact, rough = (open_network(engine, "openvino", 1, kind).infer(image).confidence for kind in ("fp32", "int8"))
    assert 0 < np.abs(exact - rough).max() < 0.05


def test_card_text_is_toml(tmp_path: Path) -> None:
    card = {"schema": 1, "name": 'a "b"', "files": {"model.onnx": "00"}, "t": {"x": [0.5, 1], "y": True, "z": 1e-7}}
    assert tomllib.loads(toml_text(card)) == card | {"t": {"x": [0.5, 1], "y": True, "z": 0.0}}


def test_unknown_architecture_and_foreign_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="compact, atomid-net"):
        train(replace(TINY, out=tmp_path, architecture="resnet"), quiet=True)
    torch.save({"network": {}, "step": 1}, tmp_path / "c.pt")
    with pytest.raises(ModelError, match="no compact network"):
        load_compact(tmp_path / "c.pt", TINY)
