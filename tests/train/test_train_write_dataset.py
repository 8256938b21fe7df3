"""A dataset on disk can be read back by anyone, and is never written over."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from atomid_live.errors import UsageError
from atomid_live.train.dataset import Recipe, make_example
from atomid_live.train.write_dataset import simulate_dataset


def test_frames_and_truth_come_back(tmp_path: Path) -> None:
    folder = simulate_dataset(tmp_path / "set", 3, seed=7, side_px=96)
    described = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert [frame["frame"] for frame in described["frames"]] == [0, 1, 2]
    for number in range(3):
        example = make_example(Recipe(seed=7, side_px=96), number)
        picture = tifffile.imread(folder / f"{number:06d}.tif")
        assert picture.dtype == np.uint16 and picture.shape == example.pixels.shape
        assert np.corrcoef(picture.ravel().astype(float), example.pixels.ravel())[0, 1] > 0.999
        header, *lines = (folder / f"{number:06d}.csv").read_text(encoding="utf-8").splitlines()
        assert header == "x_px,y_px,visible"
        visible = np.array([[float(y), float(x)] for x, y, seen in (line.split(",") for line in lines) if seen == "1"])
        side = len(example.pixels) - 1
        inside = ((example.labels.wanted >= 0) & (example.labels.wanted <= side)).all(1)
        assert visible.reshape(-1, 2) == pytest.approx(example.labels.wanted[inside], abs=6e-4)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty"):
        simulate_dataset(tmp_path, 1)
    with pytest.raises(UsageError, match="needed"):
        simulate_dataset(tmp_path / "new", 0)
