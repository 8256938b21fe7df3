"""One image, one answer: all numbers of the comparison, as a flat mapping so that tables and means need no further code."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from atomid_live.evaluate.metrics import (
    RADII,
    Counts,
    chamfer,
    chance,
    count,
    efficiency,
    eligible,
    false_fill,
    false_per_mpx,
    match,
    mean_spacing,
    skill,
    thesis_score,
)
from atomid_live.evaluate.scenes.truth import SceneImage, SceneTruth
from atomid_live.types import NAN, FloatArray, IntArray

Bools = NDArray[np.bool_]

HALF, QUARTER = 0.5, 0.25
APERIODIC_SIGMA = 5.0
# A detection belongs to a don't-care column only where that column's own image is, not anywhere within half a spacing.
EXCUSE_SIGMA = 1.5
SITE_PAIRS = 20
BINS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a detector said: positions (N, 2); score (N,) and sigma_yx_px (N, 2) where it has them; ms per stage."""

    yx_px: FloatArray = field(repr=False)
    score: FloatArray | None = field(default=None, repr=False)
    sigma_yx_px: FloatArray | None = field(default=None, repr=False)
    timings_ms: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def ms(self) -> float:
        """All stages together."""
        return sum(self.timings_ms.values())

    def take(self, which: Bools) -> Answer:
        """Return the answer for some of the columns."""
        parts = [None if part is None else part[which] for part in (self.score, self.sigma_yx_px)]
        return Answer(self.yx_px[which], parts[0], parts[1], self.timings_ms, self.note)


def spacing_of(image: SceneImage) -> float:
    """Mean spacing of the targets in px; five column widths where they have no order."""
    truth = image.truth
    spacing = mean_spacing(truth.yx_px[truth.target])
    return spacing if truth.periodic and np.isfinite(spacing) else APERIODIC_SIGMA * image.sigma_px


def _off(predicted: FloatArray, dont_care: FloatArray, radius: float) -> FloatArray:
    if not len(dont_care) or not len(predicted):
        return predicted
    return np.asarray(predicted[cKDTree(dont_care).query(predicted)[0] > radius])


def counts_at(predicted: FloatArray, truth: FloatArray, dont_care: FloatArray, radius: float, sigma_px: float) -> Counts:
    """Count at a radius; predictions that hit a target at that radius count before they are excused."""
    if not len(dont_care):
        return count(predicted, truth, radius)
    hits = match(predicted, truth, radius)[0]
    free = np.ones(len(predicted), np.bool_)
    free[hits] = False
    surplus = _off(predicted[free], dont_care, min(radius, EXCUSE_SIGMA * sigma_px))
    return Counts(len(hits), len(surplus), len(truth) - len(hits))


def f1_at(yx_px: FloatArray, image: SceneImage, part: float = HALF) -> float:
    """F1 of positions (N, 2) within a part of the spacing, scored as `score_image` does; what rivals are tuned by."""
    d, (rows, cols) = spacing_of(image), image.pixels.shape
    kept = [eligible(yx, (cols, rows), 0.5 * d, image.masks) for yx in (yx_px, image.truth.yx_px)]
    wanted = image.truth.yx_px[image.truth.target & kept[1]]
    dont_care = image.truth.yx_px[image.truth.dont_care]
    return counts_at(yx_px[kept[0]], wanted, dont_care, part * d, image.sigma_px).f1


def calibration_error(score: FloatArray, right: Bools) -> float:
    """Expected calibration error: mean over ten bins of |share right - mean score|, weighted by the columns in each bin."""
    if not len(score):
        return NAN
    place = np.clip((score * BINS).astype(np.int64), 0, BINS - 1)
    error = 0.0
    for each in np.unique(place):
        inside = place == each
        error += float(inside.sum()) / len(score) * abs(float(right[inside].mean()) - float(score[inside].mean()))
    return error


def site_bias(errors_yx: FloatArray, site: IntArray) -> float:
    """Root mean square over site classes of the mean error vector's length in px, what chance alone makes of it taken off."""
    squares = []
    for each in np.unique(site):
        mine = errors_yx[site == each]
        if len(mine) >= SITE_PAIRS:
            squares.append(float((mine.mean(0) ** 2).sum() - mine.var(0, ddof=1).sum() / len(mine)))
    return sqrt(max(0.0, float(np.mean(squares)))) if squares else NAN


def _places(answer: Answer, truth: SceneTruth, found: IntArray, true: IntArray) -> dict[str, float]:
    """Localisation and sigma of matched pairs."""
    if not len(found):
        return {"pairs": 0}
    error = answer.yx_px[found] - truth.yx_px[true]
    exact = np.isfinite(truth.bound_px[true])
    told = {
        "pairs": float(len(found)),
        "rmse_px": sqrt(float(np.mean(error**2))),
        "mad_px": float(1.4826 * np.median(np.abs(error - np.median(error, 0)))),
        "bias_px": float(np.hypot(*error.mean(0))),
        "site_bias_px": site_bias(error, truth.site[true]),
    }
    if exact.any():
        bound = sqrt(float(np.mean(truth.bound_px[true][exact] ** 2)))
        told |= {"bound_px": bound, "ratio": sqrt(float(np.mean(error[exact] ** 2))) / bound}
    if answer.sigma_yx_px is not None:
        z = (error / answer.sigma_yx_px[found])[exact]
        z = z[np.isfinite(z)]
        if len(z):
            told |= {"z_std": float(np.std(z)), "z_mad": float(1.4826 * np.median(np.abs(z - np.median(z))))}
    return told


def _regions(answer: Answer, image: SceneImage, true_hit: Bools, false: FloatArray, kept: Bools) -> dict[str, float]:
    """Recall of groups, false columns of areas, filled vacancies."""
    truth, told = image.truth, {}
    for name, members in truth.groups.items():
        chosen = members & truth.target & kept
        if chosen.any():
            told[f"recall_{name}"] = float(true_hit[chosen].mean())
    for name, area in truth.areas.items():
        y, x = np.rint(false).astype(int).T if len(false) else (np.empty(0, int), np.empty(0, int))
        surplus = int(area[np.clip(y, 0, area.shape[0] - 1), np.clip(x, 0, area.shape[1] - 1)].sum())
        told[f"false_{name}_per_mpx"] = false_per_mpx(surplus, float(area.sum()))
        told[f"false_{name}_share"] = surplus / max(int((truth.target & kept).sum()), 1)
    if len(truth.vacancies_yx_px):
        told["false_fill"] = false_fill(answer.yx_px, truth.vacancies_yx_px, spacing_of(image))
        told["vacancies"] = float(len(truth.vacancies_yx_px))
    return told


def score_image(image: SceneImage, answer: Answer, with_chance: bool = False) -> dict[str, float]:
    """Score an answer against an image's truth.

    Half a spacing along the border is left out on both sides. A detection that hits no target but lies within 1.5 column
    widths of a don't-care column counts neither way.

    Parameters
    ----------
    image : SceneImage
    answer : Answer
    with_chance : bool
        Also score the answer shifted at random (forty matchings more).

    Returns
    -------
    dict of str to float
        f1, f1_quarter, mf1, precision, recall, jaccard, cd_px, cd_pm, rmse_px, bound_px, ratio, ... A number that has no
        meaning here is left out; so is everything when the image shows no column a detector could be asked for.
    """
    truth, d, rows_cols = image.truth, spacing_of(image), image.pixels.shape
    size_xy, border = (float(rows_cols[1]), float(rows_cols[0])), 0.5 * d
    kept = eligible(truth.yx_px, size_xy, border, image.masks)
    said = answer.take(eligible(answer.yx_px, size_xy, border, image.masks))
    target = np.flatnonzero(truth.target & kept)
    wanted, dont_care = truth.yx_px[target], truth.yx_px[truth.dont_care]
    told = {"targets": float(len(target)), "found": float(len(said.yx_px)), "ms": answer.ms}
    area = (rows_cols[0] - 2 * border) * (rows_cols[1] - 2 * border)
    area -= sum((x1 - x0) * (y1 - y0) for x0, x1, y0, y1 in image.masks)
    if not len(target):
        if not len(dont_care):
            told |= {"false_per_mpx": false_per_mpx(len(said.yx_px), area), "area_mpx": area / 1e6}
        return told
    half = counts_at(said.yx_px, wanted, dont_care, HALF * d, image.sigma_px)
    quarter = counts_at(said.yx_px, wanted, dont_care, QUARTER * d, image.sigma_px)
    curve = [counts_at(said.yx_px, wanted, dont_care, part * d, image.sigma_px).f1 for part in RADII]
    hits, hit_targets = match(said.yx_px, wanted, HALF * d)
    surplus = np.ones(len(said.yx_px), np.bool_)
    surplus[hits] = False
    false = _off(said.yx_px[surplus], dont_care, EXCUSE_SIGMA * image.sigma_px)
    scored = np.concatenate([said.yx_px[~surplus], false])
    told |= {
        "f1": half.f1, "f1_quarter": quarter.f1, "mf1": float(np.mean(curve)), "precision": half.precision,
        "recall": half.recall, "jaccard": half.jaccard, "false_per_mpx": false_per_mpx(half.fp, area),
        "cd_px": chamfer(scored, wanted), "thesis_f1": thesis_score(scored, wanted).f1,
    }  # fmt: skip
    told["cd_pm"] = told["cd_px"] * 1000 * image.pixel_size_nm
    near, true = match(said.yx_px, wanted, QUARTER * d)
    told |= _places(said, truth, near, target[true])
    if "rmse_px" in told:
        told["rmse_pm"] = told["rmse_px"] * 1000 * image.pixel_size_nm
        told["efficiency"] = efficiency(half.jaccard, told["rmse_pm"])
    true_hit = np.zeros(len(truth.yx_px), np.bool_)
    true_hit[target[hit_targets]] = True
    told |= _regions(said, image, true_hit, false, kept)
    if said.score is not None:
        right = ~surplus
        judged = right | np.isin(
            np.arange(len(said.yx_px)), np.flatnonzero(surplus)[_off_mask(said, surplus, dont_care, image)]
        )
        told["ece"] = calibration_error(said.score[judged], right[judged])
    if with_chance:
        told["chance_f1"] = chance(scored, wanted, d, HALF * d)
        told["skill"] = skill(half.f1, told["chance_f1"])
    return told


def _off_mask(said: Answer, surplus: Bools, dont_care: FloatArray, image: SceneImage) -> Bools:
    """Which surplus detections are not excused."""
    places = said.yx_px[surplus]
    if not len(dont_care) or not len(places):
        return np.ones(len(places), np.bool_)
    return np.asarray(cKDTree(dont_care).query(places)[0] > EXCUSE_SIGMA * image.sigma_px)
