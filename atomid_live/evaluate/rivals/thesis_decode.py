"""The thesis's way from a map to columns: fixed 8 x 8 pooling, then suppression of boxes; here on our map."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atomid_live.evaluate.rivals.oracle import best
from atomid_live.evaluate.scenes.truth import SceneImage
from atomid_live.evaluate.scoring import Answer, spacing_of
from atomid_live.types import FloatArray

BLOCK, MAX_IOU = 8, 0.3
THRESHOLDS = (0.1, 0.2, 0.3, 0.45, 0.6)
# The text has boxes as wide as the spacing, the published program twice as wide; narrower ones are tried in its favour.
SIDES = (0.5, 1.0, 2.0)


@njit(nogil=True, cache=True)
def _suppress(y: FloatArray, x: FloatArray, side: float, max_iou: float) -> NDArray[np.bool_]:
    keep = np.ones(len(y), np.bool_)
    for i in range(len(y)):
        if not keep[i]:
            continue
        for j in range(i + 1, len(y)):
            if keep[j]:
                high, wide = side - abs(y[i] - y[j]), side - abs(x[i] - x[j])
                if high > 0 and wide > 0:
                    shared = high * wide
                    if shared / (2 * side * side - shared) > max_iou:
                        keep[j] = False
    return keep


def pooled(heat_map: NDArray[np.float32], threshold: float) -> tuple[FloatArray, FloatArray]:
    """Largest pixel of each whole 8 x 8 block above the threshold: positions (N, 2) and heights (N,), highest first."""
    rows, cols = (n // BLOCK for n in heat_map.shape)
    blocks = heat_map[: rows * BLOCK, : cols * BLOCK].reshape(rows, BLOCK, cols, BLOCK).transpose(0, 2, 1, 3)
    flat = blocks.reshape(rows, cols, -1)
    where, height = flat.argmax(-1), flat.max(-1)
    r, c = np.nonzero(height > threshold)
    yx = np.stack([r * BLOCK + where[r, c] // BLOCK, c * BLOCK + where[r, c] % BLOCK], 1).astype(np.float64)
    values = height[r, c].astype(np.float64)
    order = np.argsort(-values, kind="stable")
    return yx[order], values[order]


def decode(heat_map: NDArray[np.float32], side_px: float, threshold: float) -> FloatArray:
    """Columns (N, 2) in whole pixels: pooling, then greedy suppression of boxes of `side_px` by intersection over union 0.3."""
    yx, _ = pooled(heat_map, threshold)
    return yx[_suppress(yx[:, 0].copy(), yx[:, 1].copy(), float(side_px), MAX_IOU)] if len(yx) else yx


def thesis_decode(heat_map: NDArray[np.float32], scene: SceneImage) -> Answer:
    """Decode with the true spacing and the best threshold and box for this image."""

    def tries() -> Iterator[Answer]:
        for threshold in THRESHOLDS:
            for side in SIDES:
                start = perf_counter()
                found = decode(heat_map, side * spacing_of(scene), threshold)
                yield Answer(found, timings_ms={"pooling and box NMS": 1e3 * (perf_counter() - start)})

    chosen = best(tries(), scene)
    return chosen if chosen is not None else Answer(np.empty((0, 2)))
