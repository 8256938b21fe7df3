"""Simulated frames on disk, with their truth: for other people's training and for a look at what ours learns from."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from atomid_live.errors import UsageError
from atomid_live.train.dataset import Example, Recipe, make_example

DATASET_SEED = 60_000_000


def _sixteen_bit(example: Example) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """Grey values stretched over 16 bits; already rounded 8-bit frames keep their steps."""
    low, high = float(example.pixels.min()), float(example.pixels.max())
    return np.asarray(np.rint((example.pixels - low) * (65535.0 / max(high - low, 1e-9))), np.uint16)


def _truth_lines(example: Example) -> str:
    lines = ["x_px,y_px,visible"]
    for points, visible in ((example.labels.wanted, 1), (example.labels.ignored, 0)):
        lines += [f"{x:.3f},{y:.3f},{visible}" for y, x in points if min(x, y) >= 0 and max(x, y) <= len(example.pixels) - 1]
    return "\n".join(lines) + "\n"


def simulate_dataset(out: Path, count: int, seed: int = DATASET_SEED, side_px: int = 512) -> Path:
    """Write `count` simulated frames and their columns; return the folder.

    Each frame is `NNNNNN.tif` (16 bits) and `NNNNNN.csv` (`x_px,y_px,visible`: 1 for a column that can be seen, 0 for one at
    the limit, which a score should pass over). `dataset.json`, written last, holds seed, recipe and each frame's column width.
    Frames of a crystal at a coarser sampling are larger than `side_px`.

    Parameters
    ----------
    out : Path
        A new or empty folder.
    count : int
        Number of frames.
    seed : int
        Seeds from 10^7 to 6 x 10^7 - 1 are those of training, validation and calibration; evaluation lies below.
    side_px : int
        Least side of a frame.

    Raises
    ------
    UsageError
        The folder holds something already, or a number is out of range.
    """
    import tifffile

    if count < 1 or side_px < 64 or seed < 0:
        raise UsageError(f"count {count}, side {side_px} px, seed {seed}: at least 1, 64 and 0 are needed")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already and not empty; nothing is overwritten: name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    recipe = replace(Recipe(), seed=seed, side_px=side_px)
    frames = []
    for number in range(count):
        example = make_example(recipe, number)
        tifffile.imwrite(out / f"{number:06d}.tif", _sixteen_bit(example))
        (out / f"{number:06d}.csv").write_text(_truth_lines(example), encoding="utf-8")
        frames.append({"frame": number, "column_sigma_px": round(example.sigma_px, 4), "lattice": not example.sparse})
    part = out / "dataset.json.part"
    part.write_text(json.dumps({"schema": 1, "recipe": asdict(recipe), "frames": frames}, indent=1), encoding="utf-8")
    part.replace(out / "dataset.json")
    return out
