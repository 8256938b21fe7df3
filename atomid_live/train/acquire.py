"""Scan a training scene: probe, jitter, dose, detector and file, in the order in which a microscope spoils a frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from atomid_live.train import paint
from atomid_live.train.scenes import Scene

Image = NDArray[np.float32]
Points = NDArray[np.float64]

_POOL: list[Image] = []


def _pool() -> Image:
    if not _POOL:
        _POOL.append(paint.normal_pool())
    return _POOL[0]


@dataclass(frozen=True, slots=True)
class Acquired:
    """A frame and its truth, in pixels as acquired.

    `height` and `noise` (one pixel's standard deviation at the column) are in electrons; `yx` is as scanned.
    """

    pixels: Image
    yx: Points
    height: Points
    noise: Points


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _probe(rng: np.random.Generator, sigma: float) -> tuple[float, float, float]:
    """Inverse covariance of a probe with ellipticity 1 to 1.5 at any angle; the area is kept."""
    ratio = math.sqrt(1.0 + (rng.uniform(0, 0.5) if rng.random() < 0.3 else rng.uniform(0, 0.08)))
    angle = rng.uniform(0, math.pi)
    wide, narrow = 1.0 / (sigma * ratio) ** 2, (ratio / sigma) ** 2
    c, s = math.cos(angle), math.sin(angle)
    return wide * c * c + narrow * s * s, (wide - narrow) * c * s, wide * s * s + narrow * c * c


def _jitter(rng: np.random.Generator, rows: int, sigma: float) -> Points:
    """Row offsets (rows, 2): AR(1) to 0.4 sigma rms with 1 to 30 rows of memory, and mains hum."""
    shift = np.zeros((rows, 2))
    if rng.random() < 0.65:
        memory = math.exp(-1.0 / _log_uniform(rng, 0.4, 30.0))
        kicks = rng.standard_normal((rows, 2)) * math.sqrt(1 - memory * memory)
        for r in range(1, rows):
            shift[r] = memory * shift[r - 1] + kicks[r]
        shift *= rng.uniform(0, 0.4) * sigma * np.array([rng.uniform(0.2, 1.0), 1.0])
    if rng.random() < 0.2:
        phase = 2 * np.pi * (np.arange(rows) / _log_uniform(rng, 3, 60) + rng.random())
        shift[:, 1] += rng.uniform(0, 0.35) * sigma * np.sin(phase)
    return shift


def _spread(image: Image, sigma: float, share: float, width: float) -> Image:
    """Move `share` of the intensity into a halo `width` sigmas wide; a negative share sharpens into a faint dark ring."""
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 0.5 * sigma * width)
    halo = cv2.resize(small, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray((1.0 - share) * image + share * halo, np.float32)


def _detector(rng: np.random.Generator, expected: Image) -> tuple[Image, float, float]:
    """Counts with shot, excess and read-out noise; returns the frame, the excess factor and the read-out in electrons."""
    rows, cols = expected.shape
    along = rng.uniform(0, 0.3) if rng.random() < 0.5 else 0.0
    noise = paint.white(_pool(), rng.integers(0, 1 << 22, (rows, 2)), cols, along)
    read_out = rng.uniform(0, 3.0) if rng.random() < 0.4 else rng.uniform(0, 0.3)
    excess = rng.uniform(1.0, 1.3)
    uniform = rng.random((rows, cols), dtype=np.float32) if expected.min() < 4.0 else expected[:1]
    counts = expected.copy()
    paint.count_electrons(counts, noise, read_out, excess, uniform)
    return counts, excess, read_out


def _file(rng: np.random.Generator, frame: Image, spread: float) -> Image:
    """Row offsets, spikes, a filter, gamma, eight bits with clipping: what happens between detector and file."""
    rows, cols = frame.shape
    if rng.random() < 0.25:
        frame = frame + (rng.standard_normal((rows, 1)) * rng.uniform(0, 0.4) * spread).astype(np.float32)
    if rng.random() < 0.15:
        count = int(rows * cols * rng.uniform(0, 5e-4))
        frame[rng.integers(0, rows, count), rng.integers(0, cols, count)] += rng.uniform(3, 20) * spread
    if rng.random() < 0.3:
        frame = cv2.GaussianBlur(frame, (0, 0), rng.uniform(0.3, 1.0))
    if rng.random() < 0.6:
        low, high = np.quantile(frame[::4, ::4], [rng.uniform(0, 0.003), 1.0 - rng.uniform(0, 0.003)])
        frame = np.clip((frame - low) / max(high - low, 1e-6), 0, 1)
        if rng.random() < 0.5:
            frame = frame ** np.float32(rng.uniform(0.7, 1.3))
        frame = np.rint(frame * 255.0)
    return np.asarray(frame, np.float32)


def acquire(rng: np.random.Generator, scene: Scene, shape: tuple[int, int], sigma: float) -> Acquired:
    """Image a scene.

    Parameters
    ----------
    rng : Generator
        Source of every choice.
    scene : Scene
        Columns and backdrop, built for `shape`.
    shape : (rows, cols)
        Of the frame as acquired.
    sigma : float
        Width of a column in pixels as acquired.

    Notes
    -----
    The dose is set through the detectability d' of the brightest kind, log-uniform in 1.8 to 40 (3 to 40 without a lattice):
    with background b (in units of the column height A, which in electrons is to be found) d'^2 = A pi sigma^2 / (1/2 + b).
    """
    ground = rng.uniform(0, 0.3) if rng.random() < 0.4 else _log_uniform(rng, 0.1, 4.0)
    detectable = _log_uniform(rng, 3.0 if scene.sparse else 1.8, 40.0)
    level = detectable**2 * (0.5 + ground) / (math.pi * sigma * sigma)
    expected = scene.backdrop * np.float32(level) + np.float32(ground * level)
    shift = _jitter(rng, shape[0], sigma)
    height = scene.weight * level
    columns = np.zeros(shape, np.float32)
    seen = paint.paint_columns(columns, scene.yx, height, _probe(rng, sigma), shift)
    if rng.random() < 0.5:
        columns = _spread(columns, sigma, rng.uniform(-0.06, 0.3), rng.uniform(1.8, 4.0))
    expected += columns
    frame, excess, read_out = _detector(rng, expected)
    index = np.clip(np.rint(seen).astype(int), 0, np.array(shape) - 1)
    local = np.maximum(expected[index[:, 0], index[:, 1]] - 0.5 * height, 0.0)
    variance = excess**2 * local + read_out**2 + math.pi * (sigma * scene.speckle * level) ** 2
    spread = float(np.sqrt(max(float(expected.mean()), 1e-3)))
    return Acquired(_file(rng, frame, spread), seen, height, np.sqrt(np.maximum(variance, 1e-6)))
