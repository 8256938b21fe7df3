"""Crops for training: crop number i of a recipe is the same wherever and in whatever order it is made.

A crop is acquired at its own sampling, then passes the resampler and the normalisation that ship, because the resampler
colours the noise and a network notices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from atomid_live.detect.local_contrast import local_contrast
from atomid_live.detect.resample import resample
from atomid_live.train.acquire import acquire
from atomid_live.train.scenes import draw_kind, draw_scene
from atomid_live.train.targets import TARGET_SIGMA_PX, Labels, draw_maps, label_columns, mean_spacing

TRAIN_SEED_BASE = 10_000_000
STRIDE = 2
IGNORE_SIGMAS = 1.3
TARGET_SIGMA_PER_SPACING = 0.25


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which crops: the numbers that, with the code's revision, define the data.

    `empties`, `sparse` and `dense` are the shares of crops without columns, with single atoms, and with unlike columns close
    together or stacked layers; `shaded` asks for columns that brighter neighbours leave no maximum of their own.
    `thesis_targets` asks for maps at full resolution whose Gaussians are a quarter of the spacing wide, as AtomID-Net's are.
    Seeds start at 10^7 so that training shares none with demonstration and evaluation, which lie below.
    """

    seed: int = TRAIN_SEED_BASE
    side_px: int = 256
    canonical_sigma_px: float = 2.1
    sigma_range_px: tuple[float, float] = (1.1, 3.4)
    empties: float = 0.2
    largest_reduction: float = 3.0
    thesis_targets: bool = False
    sparse: float = 0.2
    dense: float = 0.3
    shaded: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """One training example.

    Attributes
    ----------
    image : ndarray, shape (side, side), float32
        Resampled and normalised, as the network will see it.
    heat, weight : ndarray, shape (side / 2, side / 2), float32
        Target map and where it counts.
    spacing_px : float
        Mean spacing of the wanted columns in pixels of `image`; NaN where there is none.
    wanted, ignored : ndarray, shape (N, 2), (M, 2)
        Centres in pixels of `image`.
    sigma_px : float
        Width of a column in pixels of `image`.
    """

    image: NDArray[np.float32] = field(repr=False)
    heat: NDArray[np.float32] = field(repr=False)
    weight: NDArray[np.float32] = field(repr=False)
    spacing_px: float
    wanted: NDArray[np.float64] = field(repr=False)
    ignored: NDArray[np.float64] = field(repr=False)
    sigma_px: float

    @property
    def sizes_px(self) -> tuple[float, float]:
        """Mean spacing and column width; NaN where too few columns show them."""
        return self.spacing_px, self.sigma_px if len(self.wanted) >= 3 else math.nan


Box = tuple[int, int, int, int]


def _burn_scale_bar(rng: np.random.Generator, frame: NDArray[np.float32]) -> Box:
    """Draw a bar and something like digits somewhere; return its rows and columns (top, bottom, left, right)."""
    rows, cols = frame.shape
    height, width = int(rows * rng.uniform(0.05, 0.14)), int(cols * rng.uniform(0.15, 0.45))
    top, left = int(rng.integers(0, rows - height)), int(rng.integers(0, cols - width))
    ink = float(frame.max()) if rng.random() < 0.8 else float(frame.min())
    thick, dot = max(2, height // 6), max(1, height // 9)
    frame[top : top + thick, left : left + width] = ink
    for x in range(left, left + width // 2, 4 * dot):
        glyph = np.kron(rng.random((5, 3)) < 0.6, np.ones((dot, dot), bool))
        patch = frame[top + 2 * thick : top + 2 * thick + 5 * dot, x : x + 3 * dot]
        patch[glyph[: patch.shape[0], : patch.shape[1]]] = ink
    return top, top + 2 * thick + 5 * dot, left, left + width


def _outside(points: NDArray[np.float64], box: Box | None) -> NDArray[np.float64]:
    if box is None:
        return points
    y, x = points.T
    return np.asarray(points[(y < box[0] - 1) | (y > box[1]) | (x < box[2] - 1) | (x > box[3])])


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A simulated frame as a microscope would hand it over, with its labels in pixels of the frame.

    Attributes
    ----------
    pixels : ndarray, shape (side, side), float32
        Grey values.
    labels : Labels
        Columns asked for and columns at the limit of visibility.
    sigma_px : float
        Width of a column.
    sparse : bool
        No lattice.
    reduction : float
        Frame pixels per pixel of the scale at which the recipe means the network to see it.
    """

    pixels: NDArray[np.float32] = field(repr=False)
    labels: Labels = field(repr=False)
    sigma_px: float
    sparse: bool
    reduction: float


def make_example(recipe: Recipe, index: int) -> Example:
    """Return frame number `index` of the recipe, as acquired; it holds at least `side_px` pixels at the network's scale."""
    rng = np.random.default_rng((recipe.seed, index))
    low, high = recipe.sigma_range_px
    if rng.random() < 0.75:
        sigma = float(np.clip(recipe.canonical_sigma_px * np.exp(rng.normal(0, 0.17)), low, high))
    else:
        sigma = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    reduction = 1.0 if rng.random() < 0.35 else float(np.exp(rng.uniform(0.02, np.log(recipe.largest_reduction))))
    side = math.ceil(recipe.side_px * reduction) + 1 if reduction > 1 else recipe.side_px
    kind = draw_kind(rng, recipe.empties, recipe.sparse, recipe.dense)
    if kind == "sparse":
        # single heavy atoms were found wider than their pixel size implies
        sigma *= float(rng.uniform(0.9, 1.35))
    scene = draw_scene(rng, kind, (side, side), sigma * reduction)
    frame = acquire(rng, scene, (side, side), sigma * reduction)
    labels = label_columns(frame.yx, frame.height, frame.noise, sigma * reduction, scene.sparse, recipe.shaded)
    pixels = frame.pixels
    bar = _burn_scale_bar(rng, pixels) if rng.random() < 0.05 else None
    labels = Labels(_outside(labels.wanted, bar), _outside(labels.ignored, bar))
    return Example(pixels, labels, sigma * reduction, scene.sparse, reduction)


def make_crop(recipe: Recipe, index: int) -> Crop:
    """Return crop number `index` of the recipe, as the network sees it."""
    example = make_example(recipe, index)
    small = resample(example.pixels, 1.0 / example.reduction)
    side, sigma = recipe.side_px, example.sigma_px / example.reduction
    image = local_contrast(small.image)[:side, :side]
    wanted, ignored = (
        (points + 0.5) * np.asarray(small.factor_yx) - 0.5 for points in (example.labels.wanted, example.labels.ignored)
    )
    inside = ((wanted >= 0) & (wanted <= side - 1)).all(1)
    spacing = mean_spacing(wanted[inside])
    stride, width = (1, TARGET_SIGMA_PER_SPACING * spacing) if recipe.thesis_targets else (STRIDE, TARGET_SIGMA_PX)
    width = width if math.isfinite(width) else TARGET_SIGMA_PX
    shape = (side // stride, side // stride)
    heat, weight = draw_maps(wanted, ignored, shape, stride, max(IGNORE_SIGMAS * sigma, 2.5), width)
    return Crop(image, heat, weight, spacing, wanted[inside], ignored, sigma)
