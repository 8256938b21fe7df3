"""Parameters picked with the truth in hand: each rival is given, image by image, the best of its search."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from atomid_live.evaluate.scenes.truth import SceneImage
from atomid_live.evaluate.scoring import Answer, f1_at
from atomid_live.types import FloatArray

STEPS = 12
FEWEST, MOST = 0.6, 2.0


def best(answers: Iterable[Answer], image: SceneImage) -> Answer | None:
    """Return the answer with the greatest F1 at half the spacing (on empty images the fewest columns); None without answers."""
    chosen, top = None, -np.inf
    asked = bool(image.truth.target.any())
    for answer in answers:
        merit = f1_at(answer.yx_px, image) if asked else -float(len(answer.yx_px))
        if merit > top:
            chosen, top = answer, merit
    return chosen


def best_threshold(yx_px: FloatArray, height: FloatArray, image: SceneImage) -> float:
    """Height that leaves the set of points with the best F1 at half the spacing.

    Numbers of points from 0.6 to 2 times that of all visible columns are tried; without columns, the tallest point is left out.

    Parameters
    ----------
    yx_px, height : ndarray, shapes (N, 2) and (N,)
    """
    if not len(height):
        return 0.0
    truth = image.truth
    if not truth.target.any():
        return float(height.max())
    order = np.argsort(-height, kind="stable")
    # don't-care columns are often found too, so the targets alone would be too few
    wanted = np.geomspace(FEWEST * truth.target.sum(), MOST * (truth.target | truth.dont_care).sum(), STEPS)
    numbers = np.unique(np.clip(np.rint(wanted).astype(int), 1, len(order)))
    scores = [f1_at(yx_px[order[:number]], image) for number in numbers]
    number = int(numbers[int(np.argmax(scores))])
    return float(height[order[number - 1]])
