"""Which peaks of the map are columns: a small learned judge that says how probable each one is.

One threshold on the map fails: peaks fall with dose, faint columns beside bright ones are lower than noise in a hole. The
judge sees each peak in its company (heights of the map and of the raw pixels, neighbours, noise) and answers with a
probability, so a threshold is no matter of taste: it is where the expected F1 of the frame is greatest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from atomid_live.detect.candidate_features import CandidateFeatures
from atomid_live.detect.near import neighbourhood
from atomid_live.types import FloatArray

Array32 = NDArray[np.float32]

FEATURES = (
    "height", "frame_height", "sharpness", "amplitude", "d_prime", "significance", "misfit", "shift", "slope", "background",
    "inside", "brighter_px", "brighter_amplitude", "company_height", "company_amplitude", "company_px", "support",
    "frame_support", "has_support", "lattice", "noise_fraction", "own_amplitude", "own_d_prime", "has_own",
    "main_px", "faint_share",
)  # fmt: skip
NEIGHBOURS = 6
REACH_SIGMAS, FAR_SIGMAS = 4.0, 12.0
# Few peaks of a frame with single atoms are atoms: its clear ones are those half as high as what 3 % exceed.
TOP = 0.97
# Natural logarithm of the least relative height of a main column.
MAIN = -1.0
# Nobody is asked to accept what is more likely noise, nor to refuse what is more likely a column than this.
LEAST_P, MOST_P = 0.2, 0.5
# Strays have less than 0.37 of the height of main columns (natural logarithm) and are fewer than this part of them in frames of
# less noise than the first share, or lie this far (in typical heights) below the usual level in frames of less than the second.
STRAY_PART, STRAY_SHARE, CLEAN = -1.0, 0.08, 0.22
HOLE, CLEAR = -0.12, 0.4
STRAY_Z = 6.0
# Single atoms stand on speckle, and the matched filter must see them too.
ATOM_Z = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """Peaks of a frame and what is known of them; arrays have one entry per peak.

    Attributes
    ----------
    yx_px : ndarray, shape (N, 2)
        In pixels of the frame.
    height, sharpness : ndarray, shape (N,)
        Map there (0 to 1), and how much of it is lost at one map pixel's distance.
    fit : CandidateFeatures
        What a quick fit on the raw pixels says.
    significance : ndarray, shape (N,)
        Band-passed local contrast in standard deviations of its noise; NaN in a lattice, where it is not asked.
    support : ndarray, shape (N,)
        Map one lattice vector away; NaN where no lattice was asked for or found.
    column_sigma_px : float
        Width of a column in the frame.
    lattice : bool
    noise_fraction : float
        Part of the band-passed variance that is noise.
    own_height, own_noise : ndarray, shape (N,)
        Height with the light of all other peaks taken away, and the noise that the fit leaves; NaN where there was no such fit.
    """

    yx_px: FloatArray = field(repr=False)
    height: FloatArray = field(repr=False)
    sharpness: FloatArray = field(repr=False)
    fit: CandidateFeatures = field(repr=False)
    significance: FloatArray = field(repr=False)
    support: FloatArray = field(repr=False)
    column_sigma_px: float
    lattice: bool
    noise_fraction: float
    own_height: FloatArray = field(repr=False)
    own_noise: FloatArray = field(repr=False)


def _logit(p: FloatArray) -> FloatArray:
    clipped = np.clip(p, 1e-3, 1.0 - 1e-3)
    return np.asarray(np.log(clipped / (1.0 - clipped)))


def _log_ratio(part: FloatArray, whole: FloatArray | float) -> FloatArray:
    """Natural logarithm of a ratio of heights, between 0.02 and 5."""
    return np.asarray(np.log(np.clip(part / np.maximum(whole, 1e-30), 0.02, 5.0)))


def _log_z(z: FloatArray) -> FloatArray:
    """Logarithm of one plus a significance between 0 and 60; nothing known counts as 0."""
    return np.asarray(np.log1p(np.clip(np.nan_to_num(z), 0.0, 60.0)))


def _company(
    peaks: Peaks, logit: FloatArray, relative: FloatArray, amplitude: FloatArray, main: NDArray[np.bool_]
) -> tuple[FloatArray, ...]:
    """What the neighbours show: nearest brighter peak, means over the six nearest others, nearest main column of the frame."""
    sigma = peaks.column_sigma_px
    near, distance, brighter, apart, clear = neighbourhood(peaks.yx_px, relative, main, NEIGHBOURS, REACH_SIGMAS * sigma)
    there = near >= 0
    weight = there / np.maximum(there.sum(1, keepdims=True), 1)
    alone = ~there.any(1)
    seen = np.where(brighter >= 0, relative[brighter], relative)
    return (
        np.minimum(apart / sigma, FAR_SIGMAS),
        _log_ratio(relative, seen),
        np.where(alone, -7.0, (weight * np.where(there, logit[near], 0.0)).sum(1)),
        np.where(alone, -4.0, (weight * np.where(there, amplitude[near], 0.0)).sum(1)),
        np.where(alone, FAR_SIGMAS, np.minimum((weight * np.where(there, distance, 0.0)).sum(1) / sigma, FAR_SIGMAS)),
        np.minimum(clear / sigma, FAR_SIGMAS),
    )


def _own(peaks: Peaks, clear: NDArray[np.bool_], d_prime: FloatArray, amplitude: FloatArray) -> tuple[FloatArray, ...]:
    """Height and significance without the light of others; where there was no such fit, those with it, and a mark."""
    known = np.isfinite(peaks.own_height)
    height, noise = np.nan_to_num(peaks.own_height), np.nan_to_num(peaks.own_noise)
    some = clear & known
    typical = float(np.quantile(height[some], 0.75)) if some.any() else 1.0
    z = np.sqrt(np.pi) * peaks.column_sigma_px * height / np.maximum(noise, 1e-30)
    return (
        np.where(known, _log_ratio(height, typical), amplitude),
        np.where(known, _log_z(z), _log_z(d_prime)),
        known.astype(np.float64),
    )


def features(peaks: Peaks) -> Array32:
    """What the judge sees of each peak, shape (N, len(FEATURES)), float32; none depends on gain, offset or pixel size."""
    count = len(peaks.yx_px)
    if not count:
        return np.empty((0, len(FEATURES)), np.float32)
    fit, known = peaks.fit, np.isfinite(peaks.support)
    relative = np.nan_to_num(fit.relative_height)
    top = float(np.quantile(peaks.height, TOP))
    clear = peaks.height >= 0.5 * top
    typical = max(float(np.quantile(relative[clear], 0.75)), 1e-30)
    logit, amplitude = _logit(peaks.height), _log_ratio(relative, typical)
    support = _logit(np.where(known, peaks.support, 0.5))
    own = _own(peaks, clear, fit.d_prime, amplitude)
    tall = own[0] > MAIN
    *company, nearest_main = _company(peaks, logit, relative, amplitude, clear & tall)
    # one faint peak is a stray; as many as main columns are a second kind
    faint_share = float(np.count_nonzero(clear & ~tall)) / max(int(np.count_nonzero(clear & tall)), 1)
    columns = (
        logit,
        np.full(count, _logit(np.array([top]))[0]),
        peaks.sharpness,
        amplitude,
        _log_z(fit.d_prime),
        _log_z(peaks.significance),
        np.log(np.clip(np.nan_to_num(fit.misfit, nan=1.0), 0.3, 10.0)),
        np.nan_to_num(fit.shift, nan=1.0),
        np.clip(np.nan_to_num(fit.slope) / typical, 0.0, 3.0),
        np.clip(np.nan_to_num(fit.background) / typical, -3.0, 3.0),
        fit.inside,
        *company,
        support,
        np.full(count, np.quantile(support[known], 0.9) if known.any() else 0.0),
        known.astype(np.float64),
        np.full(count, float(peaks.lattice)),
        np.full(count, peaks.noise_fraction),
        *own,
        nearest_main,
        np.full(count, min(faint_share, 2.0)),
    )
    return np.stack(columns, 1).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """A perceptron with ReLU layers.

    Attributes
    ----------
    mean, scale : ndarray, shape (len(FEATURES),)
        Of the features over the frames it learned from.
    weights, biases : tuple of ndarray
        Layer by layer, weights of shape (inputs, outputs).
    """

    mean: Array32 = field(repr=False)
    scale: Array32 = field(repr=False)
    weights: tuple[Array32, ...] = field(repr=False)
    biases: tuple[Array32, ...] = field(repr=False)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array32]) -> Judge:
        """Take `mean`, `scale`, `weight0`, `bias0`, ... as an engine's `judge.npz` holds them; `KeyError` if one is missing."""
        layers = sum(name.startswith("weight") for name in arrays)
        return cls(
            arrays["mean"], arrays["scale"], tuple(arrays[f"weight{n}"] for n in range(layers)),
            tuple(arrays[f"bias{n}"] for n in range(layers)),
        )  # fmt: skip

    def probability(self, seen: Array32) -> FloatArray:
        """Probability that each peak is a column, shape (N,), from its `features`."""
        x = (seen - self.mean) / self.scale
        for n, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            if n < len(self.weights) - 1:
                x = np.maximum(x, 0.0)
        return np.asarray(1.0 / (1.0 + np.exp(-x[:, 0].astype(np.float64))))


def best_threshold(probability: FloatArray) -> float:
    """Threshold at which the expected F1 of the peaks that pass is greatest; 0.5 where every choice is clear.

    With calibrated probabilities p, the expected F1 of the k most probable of all peaks is about 2 sum_k p / (k + sum p)
    (Lipton, Elkan and Naryanaswamy 2014): where columns are hard to tell, less than one half is the right demand.
    """
    if not len(probability):
        return MOST_P
    p = np.sort(probability)[::-1]
    found = np.cumsum(p)
    gain = 2.0 * found / (np.arange(1, len(p) + 1) + found[-1])
    return float(np.clip(p[int(np.argmax(gain))], LEAST_P, MOST_P))


def chosen(score: FloatArray, seen: Array32) -> NDArray[np.bool_]:
    """Which peaks are columns, (N,): probable enough for the frame, and in a lattice no strays.

    A faint peak of a clean lattice that comes with few of its like, or lies where the level is as low as in a hole, is a stray:
    noise in vacuum, dirt, the hint of a column that cannot be seen. It must stand out by itself. Without a lattice a peak must
    stand out of the band-passed noise as well.

    Parameters
    ----------
    score : ndarray, shape (N,)
        Probabilities.
    seen : ndarray, shape (N, len(FEATURES))
        From `features`.
    """
    keep = score >= best_threshold(score)
    names = ("own_amplitude", "own_d_prime", "background", "lattice", "noise_fraction")
    own, z, level, lattice, noise = (seen[:, FEATURES.index(name)] for name in names)
    faint = (own < STRAY_PART) & (lattice > 0.5)
    share = np.count_nonzero(keep & faint) / max(int(np.count_nonzero(keep & ~faint)), 1)
    few = (noise < CLEAN) & (share < STRAY_SHARE)
    hole = (noise < CLEAR) & (level < HOLE)
    speckle = (lattice < 0.5) & (seen[:, FEATURES.index("significance")] < np.log1p(ATOM_Z))
    return np.asarray(keep & ~(faint & (few | hole) & (z < np.log1p(STRAY_Z))) & ~speckle)
