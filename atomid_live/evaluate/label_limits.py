"""What human labels of single atoms allow at best: how clearly a matched filter sees what is labelled, and what is not.

A person's labels are no truth: atoms are marked where no filter finds a peak, and equally clear ones beside them are not. A
detector that ranks peaks by what the pixels show cannot score above the F1 told here, whatever its threshold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from atomid_live.detect.dog_filter import band_pass
from atomid_live.detect.local_contrast import local_contrast
from atomid_live.detect.peaks import find_peaks
from atomid_live.detect.resample import to_canonical
from atomid_live.detect.spacing import sparse_noise
from atomid_live.evaluate.metrics import match
from atomid_live.evaluate.scenes.truth import SceneImage
from atomid_live.evaluate.scoring import HALF, spacing_of
from atomid_live.types import FloatArray

CLEAR_Z = 4.0
SUPPRESSED_SIGMA = 2.2


@dataclass(frozen=True, slots=True)
class LabelLimit:
    """One set of labelled frames.

    Attributes
    ----------
    name, frames, labels : str, int, int
    without_peak, unclear : float
        Share of labels with no peak of the matched filter within 2.5 widths, and with one below four standard deviations.
    as_clear_unlabelled : float
        Unlabelled peaks that are clearer than the median labelled one, per label.
    best_f1 : float
        Mean over frames of the F1 at the best threshold on the matched filter, chosen frame by frame with the labels in hand.
    """

    name: str
    frames: int
    labels: int
    without_peak: float
    unclear: float
    as_clear_unlabelled: float
    best_f1: float


def filtered_peaks(image: SceneImage) -> tuple[FloatArray, FloatArray]:
    """Peaks (N, 2) in px of a matched filter of the labels' width, and their significance in standard deviations, (N,)."""
    small = to_canonical(np.asarray(image.pixels, np.float32), image.sigma_px)
    sigma = image.sigma_px * float(np.sqrt(np.prod(small.factor_yx)))
    contrast = local_contrast(small.image)
    response = band_pass(contrast, sigma)
    yx, height = find_peaks(response, 0.0, SUPPRESSED_SIGMA * sigma)
    return small.to_frame(yx.astype(np.float64)), height / sparse_noise(response, contrast, sigma)


def _best_f1(z: FloatArray, right: np.ndarray[tuple[int], np.dtype[np.bool_]], labels: int) -> float:
    order = np.argsort(-z)
    found = np.cumsum(right[order])
    return float(np.max(2.0 * found / (np.arange(1, len(z) + 1) + labels))) if len(z) else 0.0


def limits(images: Iterable[SceneImage]) -> list[LabelLimit]:
    """Limits per set of single atoms (`SceneImage.scene`); sets with a lattice are left out."""
    sets: dict[str, list[tuple[FloatArray, FloatArray, int]]] = {}
    for image in images:
        if image.truth.periodic or not image.truth.target.all():
            continue
        yx, z = filtered_peaks(image)
        right = np.zeros(len(yx), np.bool_)
        right[match(yx, image.truth.yx_px, HALF * spacing_of(image))[0]] = True
        distance, nearest = cKDTree(yx).query(image.truth.yx_px)
        at_label = np.where(distance <= HALF * spacing_of(image), z[nearest], 0.0)
        f1 = _best_f1(z, right, len(image.truth.yx_px))
        surplus = int(np.count_nonzero(~right & (z > np.median(at_label))))
        sets.setdefault(image.scene, []).append((at_label, np.array([f1]), surplus))
    told = []
    for name, frames in sets.items():
        at_label = np.concatenate([each[0] for each in frames])
        told.append(
            LabelLimit(
                name, len(frames), len(at_label), float(np.mean(at_label == 0.0)),
                float(np.mean((at_label > 0) & (at_label < CLEAR_Z))), sum(each[2] for each in frames) / len(at_label),
                float(np.mean([each[1] for each in frames])),
            )
        )  # fmt: skip
    return told
