"""Random fields for backgrounds: contamination, amorphous support, uneven illumination, and noise of every colour."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Shape = tuple[int, int]


def coloured(rng: np.random.Generator, shape: Shape, correlation_px: float) -> Image:
    """Gaussian random field with zero mean and unit spread whose correlation has standard deviation ~1.4 `correlation_px`.

    Drawn on a grid about 0.7 correlation lengths wide and enlarged, which costs microseconds where a full convolution costs
    milliseconds.
    """
    pitch = max(1.0, correlation_px / 1.4)
    grid = tuple(int(np.ceil(n / pitch)) + 8 for n in shape)
    noise = rng.standard_normal(grid, dtype=np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), max(correlation_px / pitch, 0.2), borderType=cv2.BORDER_REFLECT)
    size = (int(grid[1] * pitch) + 1, int(grid[0] * pitch) + 1)
    field = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC) if pitch > 1.0 else noise
    top, left = 3 * pitch, 3 * pitch
    field = field[int(top) : int(top) + shape[0], int(left) : int(left) + shape[1]]
    return np.ascontiguousarray((field - field.mean()) / max(float(field.std()), 1e-6), dtype=np.float32)


def speckle(rng: np.random.Generator, shape: Shape, sigma_px: float) -> Image:
    """Amorphous support: the colour of the probe, skewed towards bright spots as few atoms overlap; zero mean, unit spread."""
    field = coloured(rng, shape, sigma_px * rng.uniform(0.7, 1.2))
    skew = rng.uniform(0.0, 0.35)
    field = field + skew * (field * field - 1.0)
    return np.asarray(field / np.sqrt(1.0 + 2.0 * skew * skew), np.float32)


def multiscale(rng: np.random.Generator, shape: Shape, finest_px: float) -> Image:
    """Sum of speckles from `finest_px` to a third of the field, amplitudes growing with scale; zero mean, unit spread."""
    total = np.zeros(shape, np.float32)
    scale, slope = finest_px, rng.uniform(0.0, 1.0)
    while scale < min(shape) / 3:
        total += coloured(rng, shape, scale) * scale**slope * rng.uniform(0.3, 1.0)
        scale *= rng.uniform(1.6, 3.0)
    return np.asarray(total / max(float(total.std()), 1e-6), np.float32)


def contamination(rng: np.random.Generator, shape: Shape, sigma_px: float) -> Image:
    """Hydrocarbon: non-negative patches, 0 to about 1, correlation 2 to 60 column widths, sometimes with a sharp rim."""
    field = coloured(rng, shape, sigma_px * np.exp(rng.uniform(np.log(4.0), np.log(45.0))))
    level = rng.uniform(-1.0, 1.0)
    if rng.random() < 0.3:
        patches = 1.0 / (1.0 + np.exp(np.clip(-(field - level) * rng.uniform(4.0, 20.0), -30, 30)))
        patches *= 1.0 + 0.2 * coloured(rng, shape, sigma_px * rng.uniform(1.0, 3.0))
    else:
        patches = np.maximum(field - level, 0.0) / 2.0
    return np.asarray(np.maximum(patches, 0.0), np.float32)


def region(rng: np.random.Generator, shape: Shape) -> Image:
    """Soft mask, 0 to 1: a half-plane, disc, hole or blob, for grains, edges, particles and vacuum."""
    rows, cols = shape
    y, x = np.mgrid[0:rows, 0:cols].astype(np.float32)
    kind = rng.integers(4)
    if kind == 0:
        angle = rng.uniform(0, 2 * np.pi)
        distance = (y - rows * rng.uniform(0.2, 0.8)) * np.sin(angle) + (x - cols * rng.uniform(0.2, 0.8)) * np.cos(angle)
    elif kind == 3:
        return np.asarray(coloured(rng, shape, rng.uniform(0.08, 0.25) * min(shape)) > rng.uniform(-0.7, 0.7), np.float32)
    else:
        radius = rng.uniform(0.1, 0.5) * min(shape)
        distance = np.hypot(y - rows * rng.uniform(0.1, 0.9), x - cols * rng.uniform(0.1, 0.9)) - radius
        distance = distance if kind == 1 else -distance
    distance = distance + rng.uniform(0, 0.03) * min(shape) * coloured(rng, shape, 0.05 * min(shape))
    return np.asarray(distance > 0, np.float32)
