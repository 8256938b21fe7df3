"""Eight-bit weights and activations by calibration on simulated crops: one QDQ ONNX file that every runtime reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomid_live.errors import UsageError
from atomid_live.train.dataset import Recipe, make_crop

CALIBRATION_SEED = 40_000_000


def calibration_images(recipe: Recipe, count: int) -> Iterator[NDArray[np.float32]]:
    """Yield `count` images (1, 1, side, side) of crops that training does not see."""
    other = replace(recipe, seed=CALIBRATION_SEED)
    return (make_crop(other, number).image[None, None] for number in range(count))


def _nncf(source: Path, images: Iterable[NDArray[np.float32]], count: int) -> Any:
    try:
        import nncf
        import onnx
    except ImportError as error:
        raise UsageError(f"int8 needs the package {error.name!r}; install it beside torch, or export fp32 alone") from error
    data = nncf.Dataset([{"image": image} for image in images])
    # The last layers decide the height of a peak and the sizes and cost 2 % of the time: they stay in float. The slow
    # correction of biases leaves a quarter of the fast one's error in the map.
    ignored = nncf.IgnoredScope(names=_exact_nodes(onnx.load(source)), validate=False)
    return nncf.quantize(
        onnx.load(source), data, subset_size=count, ignored_scope=ignored, preset=nncf.QuantizationPreset.MIXED,
        fast_bias_correction=False,
    )  # fmt: skip


def _exact_nodes(model: Any) -> list[str]:
    return [
        node.name for node in model.graph.node if node.op_type == "Conv" and ("/head/" in node.name or "/sizes/" in node.name)
    ]


def quantise(source: Path, target: Path, recipe: Recipe, count: int = 128) -> Path:
    """Write an int8 twin of an ONNX network, calibrated on `count` simulated crops; return `target`.

    Raises
    ------
    UsageError
        The packages for it are not installed.
    """
    import onnx

    model = _nncf(source, calibration_images(recipe, count), count)
    onnx.checker.check_model(model)
    onnx.save_model(model, str(target), save_as_external_data=False)
    return target
