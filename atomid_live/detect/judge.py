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

from atomid_live.detect.near import neighbourhood
from atomid_live.types import FloatArray

Array32 = NDArray[np.float32]

FEATURES = (
    "height", "frame_height", "sharpness", "amplitude", "significance", "brighter_px", "brighter_amplitude",
    "company_height", "company_amplitude", "company_px", "lattice", "noise_fraction", "column_sigma_px", "width_ratio",
)  # fmt: skip
NEIGHBOURS = 6
# Nobody is asked to accept what is more likely noise, nor to refuse what is more likely a column than this.
LEAST_P, MOST_P = 0.2, 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """Peaks of a frame and what is known of them; arrays have one entry per peak.

    Attributes
    ----------
    yx_px : ndarray, shape (N, 2)
        In pixels of the frame.
    height, sharpness : ndarray, shape (N,)
        Map there (0 to 1), and how much of it is lost at one map pixel's distance.
    amplitude : ndarray, shape (N,)
        Height of a Gaussian of the column's width on the raw pixels.
    significance : ndarray, shape (N,)
        Band-passed local contrast in standard deviations of its noise.
    column_sigma_px, canonical_sigma_px, width_ratio : float
        Width of a column in the frame and in the network's input; the network's own opinion over the latter.
    lattice : bool
    noise_fraction : float
        Part of the band-passed variance that is noise.
    """

    yx_px: FloatArray = field(repr=False)
    height: FloatArray = field(repr=False)
    sharpness: FloatArray = field(repr=False)
    amplitude: FloatArray = field(repr=False)
    significance: FloatArray = field(repr=False)
    column_sigma_px: float
    canonical_sigma_px: float
    width_ratio: float
    lattice: bool
    noise_fraction: float


def _logit(p: FloatArray) -> FloatArray:
    clipped = np.clip(p, 1e-3, 1.0 - 1e-3)
    return np.asarray(np.log(clipped / (1.0 - clipped)))


def _log_ratio(part: FloatArray, whole: FloatArray | float) -> FloatArray:
    """Natural logarithm of a ratio of heights, between 0.02 and 5."""
    return np.asarray(np.log(np.clip(part / np.maximum(whole, 1e-30), 0.02, 5.0)))


def typical_amplitude(peaks: Peaks) -> float:
    """Third quartile of the raw heights of the frame's clearer peaks."""
    clear = peaks.height >= 0.5 * np.quantile(peaks.height, 0.9)
    return max(float(np.quantile(peaks.amplitude[clear], 0.75)), 1e-30)


def features(peaks: Peaks) -> Array32:
    """What the judge sees of each peak, shape (N, len(FEATURES)), float32; none depends on gain, offset or pixel size."""
    count = len(peaks.yx_px)
    if not count:
        return np.empty((0, len(FEATURES)), np.float32)
    sigma, typical = peaks.column_sigma_px, typical_amplitude(peaks)
    amplitude = _log_ratio(peaks.amplitude, typical)
    logit = _logit(peaks.height)
    near, distance, brighter, apart = neighbourhood(peaks.yx_px, peaks.amplitude, NEIGHBOURS, 5.0 * sigma)
    there = near >= 0
    weight = there / np.maximum(there.sum(1, keepdims=True), 1)
    company = (weight * np.where(there, logit[near], 0.0)).sum(1)
    alone = ~there.any(1)
    far = 12.0
    seen = np.where(brighter >= 0, peaks.amplitude[brighter], peaks.amplitude)
    columns = (
        logit,
        np.full(count, _logit(np.quantile(peaks.height, [0.9]))[0]),
        peaks.sharpness,
        amplitude,
        np.log1p(np.clip(peaks.significance, 0.0, 60.0)),
        np.minimum(apart / sigma, far),
        _log_ratio(peaks.amplitude, seen),
        np.where(alone, -7.0, company),
        np.where(alone, -4.0, (weight * np.where(there, amplitude[near], 0.0)).sum(1)),
        np.where(alone, far, np.minimum((weight * np.where(there, distance, 0.0)).sum(1) / sigma, far)),
        np.full(count, float(peaks.lattice)),
        np.full(count, peaks.noise_fraction),
        np.full(count, np.log(peaks.canonical_sigma_px)),
        np.full(count, np.log(np.clip(np.nan_to_num(peaks.width_ratio, nan=1.0), 0.4, 2.5))),
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
