"""Losses: weighted cross-entropy for the compact network, Eq. 7 of the thesis for AtomID-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

# Zero makes the cross-entropy a proper score: the height of a peak is a probability, and empty frames stay low.
COLUMN_WEIGHT = 0.0
SIZE_WEIGHT = 0.05
THESIS_LAMBDA = 0.1


def _entropy(heat: Tensor) -> Tensor:
    """Cross-entropy that a perfect map would have; taken off, zero is perfect and the gradient is the same."""
    return -(torch.special.xlogy(heat, heat) + torch.special.xlogy(1.0 - heat, 1.0 - heat))


def compact_loss(logits: Tensor, log_sizes: Tensor, heat: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Relative entropy of the map, pixels weighted 1 + COLUMN_WEIGHT h where they count, plus 0.05 of the sizes' error.

    Parameters
    ----------
    logits, heat, weight : Tensor, shape (B, 1, rows, cols)
        Network's map before the sigmoid, target in 0 to 1, and 0 where nothing is asked.
    log_sizes, target : Tensor, shape (B, 2)
        Predicted and true logarithms of spacing and column width (smooth L1); NaN where a crop has none.
    """
    cross = functional.binary_cross_entropy_with_logits(logits, heat, reduction="none") - _entropy(heat)
    pixels = weight * (1.0 + COLUMN_WEIGHT * heat)
    map_loss = (cross * pixels).sum() / weight.sum().clamp(min=1.0)
    known = torch.isfinite(target)
    if not bool(known.any()):
        return map_loss
    return map_loss + SIZE_WEIGHT * functional.smooth_l1_loss(log_sizes[known], target[known], beta=0.1)


def thesis_loss(heat_map: Tensor, spacing: Tensor, heat: Tensor, target: Tensor) -> Tensor:
    """L = 1/2N sum(lambda ||f - Y||^2 + ||g - s||^2), lambda = 0.1 (Eq. 7): a sum over pixels, a mean over images.

    Images without a spacing (NaN) contribute their map alone.
    """
    known = torch.isfinite(target)
    error = torch.where(known, spacing - torch.nan_to_num(target), torch.zeros_like(spacing))
    maps = (heat_map - heat).square().sum(dim=(1, 2, 3))
    return 0.5 * (THESIS_LAMBDA * maps + error.square()).mean()
