"""What lies under and over the crystal: smooth random contamination and background."""

from __future__ import annotations

from math import ceil

import numpy as np

from atomid_live.simulate.imaging import FloatImage


def random_field(rng: np.random.Generator, shape: tuple[int, int], correlation_px: float) -> FloatImage:
    """Gaussian random field of zero mean and unit variance with covariance exp(-r^2 / 2 correlation^2), shape `shape`.

    White noise smoothed by a Gaussian of correlation / sqrt(2), made on a grid just fine enough and enlarged.
    """
    from cv2 import INTER_CUBIC, resize
    from scipy.ndimage import gaussian_filter

    width = max(correlation_px, 1e-3) / np.sqrt(2.0)
    step = max(1, int(width / 2))
    sigma = width / step
    pad = ceil(4 * sigma) + 2
    coarse = tuple(ceil(n / step) + 2 * pad for n in shape)
    smooth = gaussian_filter(rng.standard_normal(coarse).astype(np.float32), sigma, mode="wrap")
    # Sum of squared weights of the sampled Gaussian kernel, one axis; the variance is its square.
    taps = np.exp(-0.5 * (np.arange(-pad, pad + 1) / sigma) ** 2)
    smooth /= (taps**2).sum() / taps.sum() ** 2
    inner = smooth[pad:-pad, pad:-pad]
    if step == 1:
        return np.ascontiguousarray(inner[: shape[0], : shape[1]])
    large = resize(np.ascontiguousarray(inner), (inner.shape[1] * step, inner.shape[0] * step), interpolation=INTER_CUBIC)
    return np.ascontiguousarray(large[: shape[0], : shape[1]], dtype=np.float32)


def contamination(
    rng: np.random.Generator, shape: tuple[int, int], correlation_px: float, strength: float, threshold: float = 0.0
) -> FloatImage:
    """Electrons per pixel of patchy contamination: `strength` times what of a random field exceeds `threshold` (in sigma)."""
    return np.asarray(
        strength * np.maximum(random_field(rng, shape, correlation_px) - np.float32(threshold), 0), dtype=np.float32
    )


def ramp(shape: tuple[int, int], level: float, slope_yx_per_frame: tuple[float, float] = (0.0, 0.0)) -> FloatImage:
    """Background in electrons per pixel: `level` in the middle, changing by the slopes from edge to edge, never negative."""
    y = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, None] * np.float32(slope_yx_per_frame[0])
    x = np.linspace(-0.5, 0.5, shape[1], dtype=np.float32)[None, :] * np.float32(slope_yx_per_frame[1])
    return np.asarray(np.maximum(np.float32(level) + y + x, 0), dtype=np.float32)
