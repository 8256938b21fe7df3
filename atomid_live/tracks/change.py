"""Tests for a lasting change that wait for several frames: bounded steps of evidence, added up.

The sums are Crosier's (Technometrics 30, 1988, 291) for one or more dimensions: the vector sum S + z of the deviations in
standard errors is shortened by `SLACK` at each frame and compared with a limit. As one frame may push by no more than
`MOST_PUSH`, the limit cannot be passed in fewer than the frames that must agree, however wild a single frame is.
"""

from __future__ import annotations

import numpy as np

from atomid_live.types import FloatArray

SLACK = 1.0
MOST_PUSH = 4.0


def limit_for(frames: int) -> float:
    """Least sum that tells of a change, so that at least `frames` frames must agree."""
    return MOST_PUSH * (frames - 1) + MOST_PUSH / 2


def pushed(push: FloatArray, z: FloatArray) -> FloatArray:
    """Next sums (N, K) after deviations `z` (N, K) in standard errors."""
    size = np.linalg.norm(z, axis=1, keepdims=True)
    z = z * np.minimum(1.0, (MOST_PUSH + SLACK) / np.maximum(size, 1e-12))
    both = push + z
    length = np.linalg.norm(both, axis=1, keepdims=True)
    return np.asarray(both * np.maximum(0.0, 1.0 - SLACK / np.maximum(length, 1e-12)))


def vacant_nats(amplitude: FloatArray, expected: FloatArray, sigma: FloatArray, least_part: float) -> FloatArray:
    """Evidence per frame that a site is empty rather than `least_part` full at least, in nats, within +-`MOST_PUSH`.

    Log-likelihood ratio of two normal distributions of width `sigma`. Where a column of that brightness would not be seen
    through the noise it is near zero: what cannot be seen cannot be missed.
    """
    least = least_part * expected
    with np.errstate(invalid="ignore", divide="ignore"):
        nats = least * (least - 2 * amplitude) / (2 * sigma**2)
    nats = np.clip(nats, -MOST_PUSH, MOST_PUSH)
    return np.asarray(np.where(np.isnan(nats), 0.0, nats))
