"""What is on an image of a scene, and which of it a detector is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from atomid_live.evaluate.scenes.bound import cluster_bound, isolated_bound
from atomid_live.simulate.acquire import VISIBLE_D_PRIME
from atomid_live.types import NAN, FloatArray, Frame, IntArray, Origin, ScaleSource

Bools = NDArray[np.bool_]

IGNORED_D_PRIME = 1.0
# Two equal Gaussians show one maximum below 2 sigma; noise and unequal heights hide the dip up to about 2.3 sigma.
MERGED_SIGMA = 2.3
SEPARATE_SIGMA = 2.6
BOUND_SAMPLES = 10


@dataclass(frozen=True, slots=True, eq=False)
class SceneTruth:
    """Columns of one image; all arrays have one entry per column.

    Attributes
    ----------
    yx_px : ndarray, shape (N, 2)
        Where each column is seen: its centre after drift, jitter, hum and fly-back.
    ideal_yx_px : ndarray, shape (N, 2)
        Where it would be seen by a perfect scan.
    site : ndarray, shape (N,), int64
        Index in the crystal's basis (100 is added per further grain or layer), -1 for a single atom.
    element : ndarray, shape (N,), str
        E.g. "Mo", "S2".
    electrons, d_prime, bound_px : ndarray, shape (N,)
        Expected electrons; detectability above the local background; least standard error of a coordinate among neighbours.
    target, dont_care : ndarray, shape (N,), bool
        Must be found; may be found or not. A column that is neither is not to be seen, and finding it counts as false.
    groups : mapping of str to ndarray, shape (N,), bool
        Columns whose recall is of interest by itself, e.g. "edge".
    vacancies_yx_px : ndarray, shape (V, 2)
    areas : mapping of str to ndarray, shape of the image, bool
        Regions whose false columns are of interest by themselves, e.g. "vacuum".
    periodic : bool
        Whether the spacing of the targets means anything.
    """

    yx_px: FloatArray = field(repr=False)
    ideal_yx_px: FloatArray = field(repr=False)
    site: IntArray = field(repr=False)
    element: NDArray[np.str_] = field(repr=False)
    electrons: FloatArray = field(repr=False)
    d_prime: FloatArray = field(repr=False)
    bound_px: FloatArray = field(repr=False)
    target: Bools = field(repr=False)
    dont_care: Bools = field(repr=False)
    groups: Mapping[str, Bools] = field(default_factory=dict, repr=False)
    vacancies_yx_px: FloatArray = field(default_factory=lambda: np.empty((0, 2)), repr=False)
    areas: Mapping[str, Bools] = field(default_factory=dict, repr=False)
    periodic: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class SceneImage:
    """One image of a scene (or a labelled real frame): grey values (rows, cols), pixel size, width of a column, truth.

    `masks` are rectangles (x0, x1, y0, y1) in px in which nothing counts; `pixel_size_nm` is NaN where it is not known.
    """

    scene: str
    variant: str
    seed: int
    pixels: NDArray[Any] = field(repr=False)
    pixel_size_nm: float
    sigma_px: float
    truth: SceneTruth = field(repr=False)
    masks: tuple[tuple[float, float, float, float], ...] = ()

    @property
    def name(self) -> str:
        """E.g. "S04/dose 0.1/4003"."""
        return f"{self.scene}/{self.variant}/{self.seed}"

    @property
    def sha256(self) -> str:
        """Hash of shape, type and pixels."""
        head = f"{self.pixels.shape}{self.pixels.dtype}".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.pixels).tobytes()).hexdigest()

    def frame(self) -> Frame:
        """Return the image as a detector gets it, with the pixel size a file would give."""
        pair = (self.pixel_size_nm, self.pixel_size_nm)
        source: ScaleSource = "file" if np.isfinite(self.pixel_size_nm) else "unknown"
        return Frame(self.seed, self.pixels, NAN, Origin(self.name), pixel_size_yx_nm=pair, scale_source=source)


def resolved(yx_px: FloatArray, electrons: FloatArray, sigma_px: float) -> tuple[FloatArray, Bools, Bools]:
    """Tell which columns an image of this resolution shows as columns of their own.

    Columns closer than 2.3 sigma to one another are seen as one: at their common centre of gravity when they are alike
    (within a factor of two), at the brightest otherwise. From there to 2.6 sigma either count is right.

    Returns
    -------
    ndarray, shape (N, 2)
        Places where columns are seen, changed for the brightest of a merged group.
    ndarray, shape (N,), bool
        Swallowed by a brighter neighbour, or one of a pair of which either count is right: no targets of their own.
    ndarray, shape (N,), bool
        Merged or crowded: targets (or don't-cares) whose exact place is not defined.
    """
    count = len(yx_px)
    swallowed, vague = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    places = yx_px.copy()
    pairs = cKDTree(yx_px).query_pairs(SEPARATE_SIGMA * sigma_px, output_type="ndarray") if count else np.empty((0, 2), int)
    if not len(pairs):
        return places, swallowed, vague
    ratio = np.min(electrons[pairs], 1) / np.maximum(np.max(electrons[pairs], 1), 1e-12)
    distance = np.hypot(*(yx_px[pairs[:, 0]] - yx_px[pairs[:, 1]]).T)
    fainter = np.where(electrons[pairs[:, 0]] < electrons[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    swallowed[fainter[ratio < 0.5]] = True
    alike = ratio >= 0.5
    vague[pairs[alike].ravel()] = True
    one = pairs[alike & (distance < MERGED_SIGMA * sigma_px)]
    graph = coo_matrix((np.ones(len(one)), (one[:, 0], one[:, 1])), (count, count))
    _, label = connected_components(graph, directed=False)
    for each in np.unique(label[one.ravel()]):
        members = np.flatnonzero(label == each)
        brightest = members[np.argmax(electrons[members])]
        places[brightest] = np.average(yx_px[members], axis=0, weights=electrons[members])
        swallowed[members[members != brightest]] = True
    open_ = alike & (distance >= MERGED_SIGMA * sigma_px)
    for pair, less in zip(pairs[open_], fainter[open_], strict=True):
        swallowed[less] |= not swallowed[pair].any()
    return places, swallowed, vague


def roles(d_prime: FloatArray, swallowed: Bools, vague: Bools, asked: Bools | None, least: float) -> tuple[Bools, Bools]:
    """Sort columns into targets and don't-cares.

    Parameters
    ----------
    d_prime : ndarray, shape (N,)
    swallowed, vague : ndarray, shape (N,), bool
        From `resolved`.
    asked : ndarray, shape (N,), bool, or None
        Columns that are targets however faint; all others are then don't-cares. None goes by `least` alone.
    least : float
        Detectability from which a column is a target; 2.5 unless the scene says otherwise.
    """
    alone = ~swallowed
    target = alone & (d_prime >= least) if asked is None else asked & alone
    crowded = vague & alone & ~target
    return target, ~target & ((d_prime >= IGNORED_D_PRIME) | swallowed | crowded)


def in_crystal_bound(
    yx_px: FloatArray, electrons: FloatArray, d_prime: FloatArray, sigma_px: float, background_e: FloatArray, target: Bools
) -> FloatArray:
    """Bound per column, shape (N,): the isolated one times the mean loss to neighbours, found exactly for a few targets."""
    alone = isolated_bound(electrons, sigma_px, background_e)
    inner = np.flatnonzero(target)
    if not len(inner):
        return alone
    tree = cKDTree(yx_px)
    chosen = inner[np.linspace(0, len(inner) - 1, min(BOUND_SAMPLES, len(inner))).astype(np.int64)]
    losses = []
    for index in chosen:
        around = np.array([k for k in tree.query_ball_point(yx_px[index], 7.5 * sigma_px) if k != index], np.int64)
        if not len(around):
            losses.append(1.0)
            continue
        distance = np.hypot(*(yx_px[around] - yx_px[index]).T)
        fitted = (distance >= SEPARATE_SIGMA * sigma_px) & (d_prime[around] >= IGNORED_D_PRIME)
        order = np.concatenate([[index], around[fitted], around[~fitted]]).astype(np.int64)
        try:
            exact = cluster_bound(yx_px[order], electrons[order], sigma_px, float(background_e[index]), int((~fitted).sum()))
        except np.linalg.LinAlgError:
            continue
        if np.isfinite(exact) and exact < 3.0 * alone[index]:
            losses.append(exact / alone[index])
    return np.asarray(alone * (np.mean(losses) if losses else 1.0))


def visible_limit() -> float:
    """Detectability from which a column is a target."""
    return VISIBLE_D_PRIME
