"""The versions of each kernel behind one set of plain functions, so that every property is asked of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from atomid_live.detect import local_contrast as cpu_contrast
from atomid_live.detect import peaks as cpu_peaks
from atomid_live.detect import refine as cpu_refine
from atomid_live.detect.normalise import Prepared
from atomid_live.kernels import reference, stages
from atomid_live.kernels.frame_params import MapRule, fill
from atomid_live.kernels.layout import Column, Param, State


@dataclass
class NumpyVersion:
    """The reference itself."""

    def peaks(self, image: Any, floor: float, radius: float) -> tuple[Any, Any]:
        yx = reference.local_maxima(image, floor)
        height = image[yx[:, 0], yx[:, 1]].astype(np.float64)
        keep = reference.suppress(yx, height, radius)
        return yx[keep], height[keep]

    def resample(self, image: Any, shape: tuple[int, int]) -> Any:
        return reference.area_resample(image, shape)

    def contrast(self, image: Any) -> Any:
        return reference.local_contrast(image)

    def refine(self, image: Any, yx: Any, sigma: float) -> tuple[Any, float]:
        return reference.refine(image, yx, sigma)[:2]


@dataclass
class ProcessorVersion:
    """The numba and OpenCV kernels that the detectors use on a processor."""

    def peaks(self, image: Any, floor: float, radius: float) -> tuple[Any, Any]:
        yx, height = cpu_peaks.find_peaks(image, floor, radius)
        order = np.lexsort((yx[:, 1], yx[:, 0]))
        return yx[order], height[order]

    def resample(self, image: Any, shape: tuple[int, int]) -> Any:
        import cv2

        return cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)

    def contrast(self, image: Any) -> Any:
        return cpu_contrast.local_contrast(image)

    def refine(self, image: Any, yx: Any, sigma: float) -> tuple[Any, float]:
        found = cpu_refine.refine(image, yx, sigma)
        table = np.zeros((len(yx), len(Column)))
        table[:, :2], table[:, Column.VAR_Y : Column.VAR_X + 1] = found.yx_px, np.nan
        table[:, Column.AMPLITUDE], table[:, Column.BACKGROUND], table[:, Column.NOISE] = (
            found.amplitude,
            found.background,
            found.noise,
        )
        table[:, Column.OK], table[:, Column.EDGE] = np.where(found.outside, -1, ~found.failed), found.at_edge
        return table, found.column_sigma_px


@dataclass
class TorchVersion:
    """Plain torch on the processor; the same code runs on a GPU."""

    device: str = "cpu"

    def _to(self, array: Any) -> Any:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def peaks(self, image: Any, floor: float, radius: float) -> tuple[Any, Any]:
        from atomid_live.kernels import torch_ops

        picture = self._to(image)
        yx = torch_ops.local_maxima(picture, floor)
        height = picture[yx[:, 0], yx[:, 1]].double()
        keep = torch_ops.suppress(yx, height, radius, image.shape)
        return yx[keep].cpu().numpy(), height[keep].cpu().numpy()

    def resample(self, image: Any, shape: tuple[int, int]) -> Any:
        from atomid_live.kernels import torch_ops

        return torch_ops.area_resample(self._to(image), shape).cpu().numpy()

    def contrast(self, image: Any) -> Any:
        from atomid_live.kernels import torch_ops

        return torch_ops.local_contrast(self._to(image)).cpu().numpy()

    def refine(self, image: Any, yx: Any, sigma: float) -> tuple[Any, float]:
        from atomid_live.kernels import torch_ops

        table, wider = torch_ops.refine(self._to(image), self._to(np.asarray(yx, np.float64).reshape(-1, 2)), sigma)
        return table.cpu().numpy(), wider


@dataclass
class CudaVersion:
    """The CUDA sources, on whatever the launcher is: a GPU, or this machine's processor."""

    run: Any
    room: int = 4096

    def _buffers(self, shape: tuple[int, int], padded: tuple[int, int]) -> Any:
        return stages.allocate(shape, padded, self.room, self.run.device)

    def _to(self, array: Any) -> Any:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self.run.device)

    def peaks(self, image: Any, floor: float, radius: float) -> tuple[Any, Any]:
        b = self._buffers((8, 8), (8, 8))
        values = {Param.MAP_ROWS: image.shape[0], Param.MAP_COLS: image.shape[1], Param.MAP_PITCH: image.shape[1]}
        for place, value in (values | {Param.FLOOR: floor, Param.RADIUS: radius}).items():
            b.param[place] = value
        stages.peaks(self.run, b, self._to(image))
        found = int(b.state[State.FOUND])
        where = b.where[:found].cpu().numpy().astype(np.int64)
        return np.stack([where // image.shape[1], where % image.shape[1]], 1), b.height[:found].cpu().numpy().astype(np.float64)

    def _prepared(self, image: Any, small: tuple[int, int], sigma: float = 2.0) -> Any:
        padded = tuple(-(-n // 8) * 8 for n in small)
        b = self._buffers(image.shape, (padded[0], padded[1]))
        b.param.copy_(self._to(fill(Prepared(image), sigma, small, (padded[0], padded[1]), MapRule())))
        b.image.copy_(self._to(image))
        return b

    def resample(self, image: Any, shape: tuple[int, int]) -> Any:
        b = self._prepared(image, shape)
        stages.resample(self.run, b)
        return b.small[: shape[0], : shape[1]].cpu().numpy()

    def contrast(self, image: Any) -> Any:
        b = self._prepared(image, image.shape)
        stages.resample(self.run, b)
        stages.contrast(self.run, b)
        assert not b.contrast[0, 0, image.shape[0] :].any(), "padding must be nought"
        return b.contrast[0, 0, : image.shape[0], : image.shape[1]].cpu().numpy()

    def pool(self, image: Any, yx: Any, sigma: float) -> Any:
        """Sums of `Pool` of the last pass."""
        return self._refined(image, yx, sigma).pool.cpu().numpy()

    def _refined(self, image: Any, yx: Any, sigma: float) -> Any:
        b = self._prepared(image, image.shape, sigma)
        b.start[: len(yx)] = self._to(np.asarray(yx, np.float64).reshape(-1, 2))
        b.state[State.COUNT] = len(yx)
        stages.refine(self.run, b)
        return b

    def refine(self, image: Any, yx: Any, sigma: float) -> tuple[Any, float]:
        b = self._refined(image, yx, sigma)
        return b.tables[1, : len(yx)].cpu().numpy(), float(b.state[State.SIGMA])
