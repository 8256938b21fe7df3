"""AtomID-Net as its thesis describes it (Yan Zhangyuan 2023, sections 2.1-2.3), written anew, to train, export and time.

A UNet of 32 features and four levels gives a map of unnormalised Gaussians, a branch at the bottleneck the mean spacing; the
map is max-pooled and unpooled in fixed 8x8 blocks and thinned by non-maximum suppression of boxes. It is the yardstick, not
the default: fixed blocks keep one column each, and boxes suppress along the axes more than along the diagonal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

FEATURES = 32
LEVELS = 4
POOL = 8
MAX_IOU = 0.3


def _double(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class AtomIdNet(nn.Module):
    """UNet with a map head at full resolution and a spacing branch; about 7.9 million parameters."""

    stride = 1

    def __init__(self, features: int = FEATURES, levels: int = LEVELS) -> None:
        super().__init__()
        widths = [features * 2**k for k in range(levels + 1)]
        self.encoders = nn.ModuleList(_double(a, b) for a, b in zip([1, *widths[:-2]], widths[:-1], strict=True))
        self.bottleneck = _double(widths[-2], widths[-1])
        self.lifts = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in reversed(widths[:-1]))
        self.decoders = nn.ModuleList(_double(2 * w, w) for w in reversed(widths[:-1]))
        self.head = nn.Conv2d(features, 1, 1)
        squeeze = [nn.Conv2d(widths[-1], 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
        self.branch = nn.Sequential(*squeeze, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map (B, 1, rows, cols) and the mean spacing in px (B,) of images whose sides are multiples of 16."""
        kept, features = [], image
        for encoder in self.encoders:
            features = encoder(features)
            kept.append(features)
            features = functional.max_pool2d(features, 2)
        features = self.bottleneck(features)
        spacing = self.branch(features).flatten()
        for lift, decoder in zip(self.lifts, self.decoders, strict=True):
            features = decoder(torch.cat([lift(features), kept.pop()], dim=1))
        return self.head(features), spacing


def pooled_peaks(heat_map: Tensor, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Keep the largest pixel of each 8x8 block (max-pool and unpool); return yx (N, 2) and heights above `threshold`."""
    rows, cols = (POOL * (n // POOL) for n in heat_map.shape[-2:])
    cropped = heat_map.reshape(1, 1, *heat_map.shape[-2:])[..., :rows, :cols]
    values, where = functional.max_pool2d(cropped, POOL, return_indices=True)
    kept = functional.max_unpool2d(values, where, POOL)[0, 0]
    yx = torch.nonzero(kept > threshold)
    return yx.numpy(), kept[yx[:, 0], yx[:, 1]].numpy()


def box_suppression(
    yx: NDArray[np.int64], height: NDArray[np.float32], side: float, max_iou: float = MAX_IOU
) -> NDArray[np.int64]:
    """Greedy suppression of square boxes by intersection over union; return the indices kept, highest first."""
    left = list(np.argsort(-height, kind="stable"))
    kept: list[int] = []
    while left:
        best = left.pop(0)
        kept.append(int(best))
        if not left:
            break
        overlap = np.clip(side - np.abs(yx[left] - yx[best]), 0, None).prod(1)
        iou = overlap / (2 * side * side - overlap)
        left = [index for index, share in zip(left, iou, strict=True) if share <= max_iou]
    return np.array(kept, np.int64)


def thesis_decode(heat_map: Tensor, spacing_px: float, threshold: float = 0.5) -> NDArray[np.int64]:
    """Columns of one map as the thesis finds them, yx (N, 2), whole pixels; boxes have the side of the regressed spacing."""
    yx, height = pooled_peaks(heat_map, threshold)
    return yx[box_suppression(yx, height, max(spacing_px, 1.0))]
