"""The device's detector with its kernels run from the CUDA source on the processor, and how two answers are compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from atomid_live.backends.engine import Engine
from atomid_live.settings import DetectSettings
from atomid_live.types import Detections

# Chosen by score alone, both detectors have one rule.
BY_SCORE = DetectSettings(threshold=0.5)


def host_launcher(stride: int = 1) -> Any:
    """Launcher of tests/kernels."""
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "kernels"))
    from host_kernels import HostLauncher

    return HostLauncher(stride)


class OrtOnProcessor:
    """A device network whose device is the processor (backends.device.DeviceNetwork)."""

    capturable, stride, name = False, 2, "processor:bandpass"

    def __init__(self, engine: Engine) -> None:
        from atomid_live.backends.onnxruntime import OnnxRuntimeNetwork

        self._network, self.closed, self.runs = OnnxRuntimeNetwork(engine, 1, "fp32"), False, 0
        self.width_px: float | None = None
        self.gain = 1.0

    def bind(self, image: Any) -> Any:
        import torch

        def infer() -> tuple[Any, Any]:
            self.runs += 1
            maps = self._network.infer(image[0, 0].numpy())
            width = maps.column_sigma_px if self.width_px is None else self.width_px
            return torch.from_numpy(np.ascontiguousarray(np.float32(self.gain) * maps.confidence)), torch.tensor(
                [maps.spacing_px, width]
            )

        return infer

    def close(self) -> None:
        self.closed = True


class CountedNetwork:
    """A network of the processor's detector that counts its runs."""

    def __init__(self, network: Any) -> None:
        self._network, self.name, self.runs, self.gain = network, network.name, 0, 1.0

    def infer(self, image: Any) -> Any:
        """Run one image; `gain` lowers all peaks."""
        self.runs += 1
        maps = self._network.infer(image)
        return replace(maps, confidence=np.float32(self.gain) * maps.confidence)


@contextmanager
def device_detector(engine: Engine, network: Any, **options: Any) -> Iterator[Any]:
    """Open and close."""
    from atomid_live.backends.device import DeviceDetector

    detector = DeviceDetector(engine, network, host_launcher(7919), **({"detect": BY_SCORE} | options))
    yield detector
    detector.close()


def processor_detector(engine: Engine, **options: Any) -> Any:
    """The detector to agree with."""
    from atomid_live.backends.onnxruntime import OnnxRuntimeNetwork
    from atomid_live.detect.unet import UnetDetector

    return UnetDetector(OnnxRuntimeNetwork(engine, 1, "fp32"), engine, **({"detect": BY_SCORE} | options))


def agree(found: Detections, expected: Detections, least: int) -> None:
    """Same columns, same numbers, same flags (but for those that stand on the knife's edge), ordered by (y, x)."""
    assert len(expected) >= least
    assert len(found) == len(expected)
    assert found.frame_flags == expected.frame_flags
    np.testing.assert_allclose(found.column_sigma_px, expected.column_sigma_px, rtol=1e-4)
    np.testing.assert_allclose(found.spacing_px, expected.spacing_px, rtol=1e-4)
    assert (np.lexsort((found.yx_px[:, 1], found.yx_px[:, 0])) == np.arange(len(found))).all()
    away, partner = cKDTree(found.yx_px).query(expected.yx_px)
    assert len(set(partner)) == len(expected)
    assert away.max() < 0.01
    np.testing.assert_allclose(found.score[partner], expected.score, atol=1e-4)
    np.testing.assert_allclose(found.amplitude[partner], expected.amplitude, rtol=0.01, atol=0.01)
    # of many columns every k-th tells what errors have in common, and the two count in different orders
    np.testing.assert_allclose(found.sigma_yx_px[partner], expected.sigma_yx_px, rtol=0.1)
    assert np.mean(found.flags[partner] != expected.flags) < 0.002
