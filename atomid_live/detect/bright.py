"""Metal only: of two kinds of column by height, the taller (light columns beside heavy ones are then left out)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from atomid_live.detect.near import nearest_px
from atomid_live.types import NAN, Detections, FloatArray

# Two kinds are told apart when their mean heights differ by this factor, and this much more than either spreads.
LEAST_FACTOR, LEAST_SPREADS = 1.5, 3.0
FEWEST = 12


def height_between_kinds(amplitude: FloatArray) -> float:
    """Height that parts two kinds of column best (Otsu 1979, on logarithms); NaN where all are of one kind.

    Parameters
    ----------
    amplitude : ndarray, shape (N,)
        Heights above the background, any unit.
    """
    tall = np.sort(np.log(amplitude[amplitude > 0]))
    if len(tall) < 2 * FEWEST:
        return NAN
    count = np.arange(1, len(tall))
    low, rest = np.cumsum(tall)[:-1] / count, np.cumsum(tall[::-1])[::-1][1:] / (len(tall) - count)
    between = count * (len(tall) - count) * (rest - low) ** 2
    between[: FEWEST - 1] = between[len(between) - FEWEST + 1 :] = 0.0
    cut = int(np.argmax(between)) + 1
    faint, bright = tall[:cut], tall[cut:]
    apart = float(bright.mean() - faint.mean())
    spread = float(np.sqrt((faint.var() * len(faint) + bright.var() * len(bright)) / len(tall)))
    if apart < np.log(LEAST_FACTOR) or apart < LEAST_SPREADS * spread:
        return NAN
    return float(np.exp(0.5 * (faint[-1] + bright[0])))


def bright_only(found: Detections) -> Detections:
    """The columns of the brighter kind; all of them where there is only one."""
    least = height_between_kinds(found.amplitude)
    if not np.isfinite(least):
        return found
    keep = found.amplitude >= least
    yx = found.yx_px[keep]
    nearest = nearest_px(yx, found.spacing_px)
    return replace(
        found, yx_px=yx, score=found.score[keep], sigma_yx_px=found.sigma_yx_px[keep], amplitude=found.amplitude[keep],
        flags=found.flags[keep], spacing_px=float(nearest.mean()) if len(yx) > 1 else NAN,
    )  # fmt: skip
