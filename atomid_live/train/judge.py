"""The judge learns from the network's own peaks on simulated frames: which of them stand on a column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import nn

from atomid_live.detect.judge import FEATURES, Array32, features
from atomid_live.detect.look import Looker
from atomid_live.protocols import Network
from atomid_live.train.dataset import Example, Recipe, make_example
from atomid_live.types import FloatArray

JUDGE_SEED = 70_000_000
HIDDEN = (24, 12)
DROPPED = 0.1
REACH_SIGMAS, EXCUSED_SIGMAS = 1.3, 1.5
FRAME_SIDES_PX = (256, 416)
# Single atoms leave few peaks: every fourth frame is drawn with this share of them.
SPARSE = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """Peaks to learn from: features (N, F), 1 for a column and 0 for none (N,), and the frame each comes from (N,)."""

    seen: Array32
    right: Array32
    frame: NDArray[np.int64]


def verdicts(example: Example, yx_px: FloatArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which peaks (N, 2), most certain first, stand on a wanted column of their own, and which may be learned from.

    A column takes the first peak within 1.3 widths; a peak within 1.5 widths of a column at the limit of visibility and
    peaks whose column may lie beyond the border teach nothing.
    """
    wanted, ignored = example.labels.wanted, example.labels.ignored
    right, useful = np.zeros(len(yx_px), np.bool_), np.ones(len(yx_px), np.bool_)
    if len(wanted):
        distance, column = cKDTree(wanted).query(yx_px)
        near = np.flatnonzero(distance <= REACH_SIGMAS * example.sigma_px)
        _, first = np.unique(column[near], return_index=True)
        right[near[first]] = True
    if len(ignored):
        useful &= right | (cKDTree(ignored).query(yx_px)[0] > EXCUSED_SIGMAS * example.sigma_px)
    rim = example.sigma_px
    inside = ((yx_px >= rim) & (yx_px <= np.array(example.pixels.shape) - 1 - rim)).all(1)
    return right, useful & inside


def _examples(recipe: Recipe, frames: int) -> Iterator[Example]:
    for number in range(frames):
        side, sparse = FRAME_SIDES_PX[number % 2], SPARSE if number % 4 == 3 else recipe.sparse
        yield make_example(replace(recipe, seed=JUDGE_SEED, side_px=side, largest_reduction=2.2, sparse=sparse), number)


def gather(network: Network, recipe: Recipe, frames: int) -> Cases:
    """Peaks of a network on `frames` frames of a seed that the network did not learn from."""
    looker, seen, right, frame = Looker(network), [], [], []
    for number, example in enumerate(_examples(recipe, frames)):
        look = looker.look(example.pixels)
        if look is None or not len(look.peaks.yx_px):
            continue
        hit, useful = verdicts(example, look.peaks.yx_px)
        # quick answers have no fit of a peak's own light: the judge knows both kinds
        peaks = look.peaks if number % 5 else replace(look.peaks, own_height=np.full(len(hit), np.nan))
        seen.append(features(peaks)[useful])
        right.append(hit[useful].astype(np.float32))
        frame.append(np.full(int(useful.sum()), number))
    return Cases(np.concatenate(seen), np.concatenate(right), np.concatenate(frame))


def _perceptron() -> nn.Sequential:
    sizes = (len(FEATURES), *HIDDEN)
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes, HIDDEN, strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(DROPPED)]
    return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))


def fit_judge(cases: Cases, seed: int = JUDGE_SEED, steps: int = 3000, batch: int = 4096) -> dict[str, Array32]:
    """Fit the judge by cross-entropy, a proper score: what it says is a probability.

    Every frame has the same say but for the square root of its number of peaks, lest crowded frames decide alone.

    Returns
    -------
    dict of str to ndarray
        As `detect.judge.Judge.from_arrays` reads them.
    """
    torch.manual_seed(seed)
    mean, scale = cases.seen.mean(0), np.maximum(cases.seen.std(0), 1e-3)
    x, y = torch.from_numpy((cases.seen - mean) / scale), torch.from_numpy(cases.right)
    share = 1.0 / np.sqrt(np.bincount(cases.frame)[cases.frame])
    draw = torch.from_numpy(np.cumsum(share / share.sum()))
    network = _perceptron()
    optimiser = torch.optim.AdamW(network.parameters(), 4e-3, weight_decay=1e-2)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        some = torch.searchsorted(draw, torch.rand(batch, dtype=torch.float64)).clamp(max=len(x) - 1)
        loss = nn.functional.binary_cross_entropy_with_logits(network(x[some])[:, 0], y[some])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        fall.step()
    arrays = {"mean": mean.astype(np.float32), "scale": scale.astype(np.float32)}
    for n, layer in enumerate(part for part in network if isinstance(part, nn.Linear)):
        arrays |= {f"weight{n}": layer.weight.detach().numpy().T.copy(), f"bias{n}": layer.bias.detach().numpy().copy()}
    return arrays


def write_judge(arrays: dict[str, Array32], path: Path) -> None:
    """Save a judge."""
    np.savez(path, allow_pickle=False, **arrays)
