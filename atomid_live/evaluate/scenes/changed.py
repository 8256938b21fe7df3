"""The same specimen and the same electrons, saved differently: gain, offset, gamma, bits, a scale bar, turned and mirrored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomid_live.evaluate.scenes.expose import Conditions, digitise, expose, truth_of
from atomid_live.evaluate.scenes.layout import bright_only, crystal_layout
from atomid_live.evaluate.scenes.truth import SceneImage, SceneTruth
from atomid_live.simulate.crystals import crystal_named
from atomid_live.types import FloatArray

Grey = NDArray[np.uint8] | NDArray[np.uint16]

BASE = "as is"
BAR_DEPTH, BAR_WIDTH = 0.06, 0.25


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to the grey values, and how the image is turned (quarter turns of numpy's rot90, then left-right)."""

    gain: float = 1.0
    offset: float = 0.0
    gamma: float = 1.0
    bits: int = 16
    bar: bool = False
    turns: int = 0
    mirrored: bool = False


CHANGES: dict[str, Change] = {
    BASE: Change(),
    "gain 0.2": Change(gain=0.2), "gain 5": Change(gain=5.0), "offset 2000": Change(offset=2000.0),
    "gamma 0.7": Change(gamma=0.7), "gamma 1.3": Change(gamma=1.3), "8 bit": Change(bits=8), "scale bar": Change(bar=True),
    "90 deg": Change(turns=1), "180 deg": Change(turns=2), "mirrored": Change(mirrored=True),
}  # fmt: skip


def turned(yx_px: FloatArray, shape: tuple[int, int], change: Change, back: bool = False) -> FloatArray:
    """Positions (N, 2) after a change's turns and mirroring of an image of `shape`; `back` undoes it."""
    rows, cols = shape
    points = yx_px.copy()
    sizes = [(rows, cols) if turn % 2 == 0 else (cols, rows) for turn in range(change.turns + 1)]
    if back:
        if change.mirrored:
            points[:, 1] = sizes[-1][1] - 1 - points[:, 1]
        for size in reversed(sizes[:-1]):
            points = np.stack([points[:, 1], size[1] - 1 - points[:, 0]], 1)
        return points
    for size in sizes[:-1]:
        points = np.stack([size[1] - 1 - points[:, 1], points[:, 0]], 1)
    if change.mirrored:
        points[:, 1] = sizes[-1][1] - 1 - points[:, 1]
    return points


def _grey(pixels: NDArray[np.uint16], change: Change) -> Grey:
    values = (pixels.astype(np.float64) - 100.0) / 10.0
    span = float(values.max())
    values = span * np.maximum(values / span, 0) ** change.gamma
    if change.bits == 8:
        return np.clip(np.rint(values * 255.0 / span), 0, 255).astype(np.uint8)
    return np.clip(np.rint(values * 10.0 * change.gain + 100.0 + change.offset), 0, 65535).astype(np.uint16)


def _with_bar(pixels: Grey, truth: SceneTruth) -> tuple[Grey, SceneTruth]:
    """Burn a bright bar into the lower left corner; columns under it and beside it are don't-cares."""
    rows, cols = pixels.shape
    y0, y1, x1 = int(rows * (0.95 - BAR_DEPTH)), int(rows * 0.95), int(cols * (0.04 + BAR_WIDTH))
    x0 = int(cols * 0.04)
    out = pixels.astype(np.uint16)
    out[y0:y1, x0:x1] = pixels.max()
    y, x = truth.yx_px.T
    hidden = (y > y0 - 15) & (y < y1 + 15) & (x > x0 - 15) & (x < x1 + 15)
    return out, replace(truth, target=truth.target & ~hidden, dont_care=truth.dont_care | hidden)


def _turned_pixels(pixels: Grey, change: Change) -> Grey:
    out: NDArray[Any] = np.rot90(pixels, change.turns)
    return np.ascontiguousarray(out[:, ::-1] if change.mirrored else out)


def changed(rng: np.random.Generator, shape: tuple[int, int], name: tuple[str, str, int], *, change: str) -> SceneImage:
    """WS2 on 12.4 pm pixels after one of `CHANGES`."""
    what, c = CHANGES[change], Conditions()
    layout = bright_only(crystal_layout(rng, crystal_named("ws2"), shape, c.pixel_size_nm))
    exposure = expose(rng, layout, c, shape)
    truth = truth_of(layout, exposure, c, shape)
    pixels = _grey(digitise(rng, exposure.expected, c).astype(np.uint16), what)
    if what.bar:
        pixels, truth = _with_bar(pixels, truth)
    places, ideal = (turned(p, shape, what) for p in (truth.yx_px, truth.ideal_yx_px))
    truth = replace(truth, yx_px=places, ideal_yx_px=ideal)
    return SceneImage(*name, _turned_pixels(pixels, what), c.pixel_size_nm, c.sigma_px, truth)
