"""Batches from processes of their own, in order: which crops a step sees depends on its number alone."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import Empty, Full
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomid_live.train.dataset import Recipe, make_crop

Stack = NDArray[np.float32]
_AHEAD = 6
_LATER = 32


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Crops stacked along the first axis.

    image (B, side, side), heat and weight (B, side / 2, side / 2), mean spacing and column width in px (B, 2).
    """

    image: Stack = field(repr=False)
    heat: Stack = field(repr=False)
    weight: Stack = field(repr=False)
    sizes_px: Stack = field(repr=False)


def make_batch(recipe: Recipe, number: int, size: int) -> Batch:
    """Return crops ``number * size`` to ``(number + 1) * size - 1`` of the recipe."""
    crops = [make_crop(recipe, number * size + k) for k in range(size)]
    image, heat, weight = (np.stack([getattr(crop, name) for crop in crops]) for name in ("image", "heat", "weight"))
    return Batch(image, heat, weight, np.array([crop.sizes_px for crop in crops], np.float32))


def flipped(batch: Batch, number: int) -> Batch:
    """Mirror a batch: columns, rows or both by turns; never transposed, because noise knows the fast axis of the scan."""
    rows, cols = ((1, -1), (-1, 1), (-1, -1))[number % 3]
    image, heat, weight = (np.ascontiguousarray(a[:, ::rows, ::cols]) for a in (batch.image, batch.heat, batch.weight))
    return Batch(image, heat, weight, batch.sizes_px)


def _work(recipe: Recipe, size: int, first: int, step: int, last: int, queue: Any) -> None:
    import cv2

    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    for number in range(first, last, step):
        batch = make_batch(recipe, number, size)
        while True:
            try:
                queue.put(batch, timeout=5)
                break
            except Full:
                # a trainer that was killed cannot end its helpers
                if parent is None or not parent.is_alive():
                    queue.cancel_join_thread()
                    return


def batches(recipe: Recipe, size: int, first: int, last: int, workers: int) -> Iterator[Batch]:
    """Yield batches `first` to `last` - 1 in order, made by `workers` processes (0: in this one)."""
    if workers == 0:
        yield from (make_batch(recipe, number, size) for number in range(first, last))
        return
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(_AHEAD) for _ in range(workers)]
    makers = [
        context.Process(target=_work, args=(recipe, size, first + k, workers, last, queues[k]), daemon=True)
        for k in range(workers)
    ]
    for maker in makers:
        maker.start()
    try:
        for number in range(first, last):
            queue = queues[(number - first) % workers]
            while True:
                try:
                    batch = queue.get(timeout=60)
                    break
                except Empty:
                    if not makers[(number - first) % workers].is_alive():
                        raise RuntimeError(f"the process that makes training crops died before batch {number}") from None
            yield batch
    finally:
        for maker in makers:
            maker.terminate()
        for maker in makers:
            maker.join()


def twice(recipe: Recipe, size: int, first: int, last: int, workers: int) -> Iterator[Batch]:
    """Yield the batches of steps `first` to `last` - 1, each made once and shown twice, the second time mirrored and later.

    Step 2u shows batch u, step 2u + 1 batch u - 32 (or u itself among the first 32) mirrored; making a crop costs more than
    learning from it.
    """
    start = max(0, first // 2 - _LATER)
    kept: deque[Batch] = deque(maxlen=_LATER + 1)
    for offset, batch in enumerate(batches(recipe, size, start, (last + 1) // 2, workers)):
        unique = start + offset
        kept.append(batch)
        if first <= 2 * unique < last:
            yield batch
        if first <= 2 * unique + 1 < last:
            yield flipped(kept[0] if unique >= _LATER else batch, unique)
