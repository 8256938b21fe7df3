"""The compact network: a stride-4 stem, three levels of plain convolutions, additive skips, a map and two sizes.

Plain 3x3 convolutions, because depthwise and inverted residuals have fewer operations and the same milliseconds on a
processor; additive skips, because concatenation costs 10-33 % there.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

SPACING_UNIT_PX = 8.0
SIGMA_UNIT_PX = 1.9


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs, momentum=0.02), nn.ReLU(inplace=True)
    )


def _level(inputs: int, outputs: int, blocks: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_block(inputs, outputs, stride), *(_block(outputs, outputs) for _ in range(blocks - 1)))


class CompactUnet(nn.Module):
    """UNet whose features live at a quarter of the resolution and whose map at half.

    The 8-pixel kernel of the stem is centred on its 4x4 cell, so pixel (i, j) of the map lies at input pixel
    (2i + 0.5, 2j + 0.5).

    Parameters
    ----------
    channels : tuple of int
        Features at 1/4, 1/8, 1/16.
    blocks : int
        Convolutions per level and side.
    """

    stride = 2

    def __init__(self, channels: tuple[int, ...] = (32, 48, 64), blocks: int = 2) -> None:
        super().__init__()
        first, last = channels[0], channels[-1]
        self.stem = nn.Sequential(nn.Conv2d(1, first, 8, 4, 2, bias=False), nn.BatchNorm2d(first, momentum=0.02), nn.ReLU(True))
        pairs = list(pairwise(channels))
        self.top = _level(first, first, blocks)
        self.down = nn.ModuleList(_level(small, large, blocks, 2) for small, large in pairs)
        self.lift = nn.ModuleList(nn.Conv2d(large, small, 1, bias=False) for small, large in reversed(pairs))
        self.up = nn.ModuleList(_level(small, small, blocks) for small, _ in reversed(pairs))
        self.head = nn.Conv2d(first, 4, 3, 1, 1)
        self.shuffle = nn.PixelShuffle(2)
        self.sizes = nn.Sequential(nn.Conv2d(last, 32, 1), nn.ReLU(True), nn.Conv2d(32, 3, 1))
        nn.init.constant_(self.head.bias, -4.0)  # columns are rare: start from the prior, not from one half

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, 1, rows/2, cols/2) of the confidence map and the logarithms of two sizes (B, 2).

        The sizes are the mean spacing over 8 px and the width of a column over 1.9 px; each is the mean of what every
        place at 1/16 says, weighted by how much it claims to know. `image` has shape (B, 1, rows, cols), both multiples of 16.
        """
        features = self.top(self.stem(image))
        kept = []
        for down in self.down:
            kept.append(features)
            features = down(features)
        said = self.sizes(features)
        trust = torch.sigmoid(said[:, :1]) + 1e-3
        log_sizes = (trust * said[:, 1:]).sum((2, 3)) / trust.sum((2, 3))
        for lift, up in zip(self.lift, self.up, strict=True):
            features = up(functional.interpolate(lift(features), scale_factor=2.0, mode="nearest") + kept.pop())
        return self.shuffle(self.head(features)), log_sizes


class Shipped(nn.Module):
    """What leaves for the back ends: normalised image to `confidence` (0 to 1), `spacing_px` and `column_sigma_px`."""

    def __init__(self, network: CompactUnet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return confidence (B, 1, rows/2, cols/2), spacing and column width in input pixels (B,)."""
        logits, log_sizes = self.network(image)
        sizes = torch.exp(log_sizes)
        return torch.sigmoid(logits), SPACING_UNIT_PX * sizes[:, 0], SIGMA_UNIT_PX * sizes[:, 1]


def parameters(network: nn.Module) -> int:
    """Count the trainable numbers of a network."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
