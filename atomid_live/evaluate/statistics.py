"""Means over images with their uncertainty: bootstrap over seeds, since images of one seed share a specimen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from atomid_live.types import NAN, FloatArray

RESAMPLES = 2000
# Fewer draws cannot tell their own spread, and an interval of them would look far too narrow.
FEWEST_GROUPS = 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean of a number over images, its spread, the 95 % interval of the mean, the worst image, and how many there were."""

    mean: float = NAN
    std: float = NAN
    low: float = NAN
    high: float = NAN
    worst: float = NAN
    count: int = 0


def interval(values: FloatArray, groups: Sequence[int], seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean, shape (N,) values resampled by whole groups; NaN under four groups."""
    labels = np.asarray(groups)
    names = np.unique(labels)
    if len(names) < FEWEST_GROUPS:
        return NAN, NAN
    sums = np.array([values[labels == name].sum() for name in names])
    sizes = np.array([(labels == name).sum() for name in names])
    drawn = np.random.default_rng(seed).integers(0, len(names), (RESAMPLES, len(names)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def estimate(values: Sequence[float], groups: Sequence[int], larger_is_better: bool = True) -> Estimate:
    """Mean and so on of the finite ones among `values`; `groups` says which share a seed."""
    every = np.asarray(values, np.float64)
    finite = np.isfinite(every)
    if not finite.any():
        return Estimate()
    kept = every[finite]
    low, high = interval(kept, [g for g, f in zip(groups, finite, strict=True) if f])
    worst = float(kept.min() if larger_is_better else kept.max())
    return Estimate(float(kept.mean()), float(kept.std()), low, high, worst, len(kept))


def paired(first: Mapping[str, float], second: Mapping[str, float], groups: Mapping[str, int]) -> Estimate:
    """Difference first - second over the images both have; keys are names of images."""
    shared = [name for name in first if name in second and np.isfinite(first[name]) and np.isfinite(second[name])]
    return estimate([first[name] - second[name] for name in shared], [groups[name] for name in shared])
