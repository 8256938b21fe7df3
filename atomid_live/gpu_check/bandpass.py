"""A small engine that truly finds columns, and frames for it and for the kernels."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomid_live.backends.engine import Engine, load_engine
from atomid_live.detect.judge import FEATURES
from atomid_live.detect.unet import JUDGE_FILE
from atomid_live.types import FloatArray, Frame, Origin

Image = NDArray[np.float32]

CARD = """
schema = 1
name = "bandpass"
[files]
"model.onnx" = "{sha}"
"judge.npz" = "{judge}"
[input]
canonical_sigma_px = 1.9
[output]
stride = 2
[threshold]
"""


def bandpass_kernel() -> Image:
    """Weights (1, 1, 12, 12) of a Gaussian minus a wider Gaussian."""
    square = ((np.arange(12) - 5.5)[:, None] ** 2 + (np.arange(12) - 5.5) ** 2) / 1.9**2
    narrow, wide = np.exp(-0.5 * square / 0.8**2), np.exp(-0.5 * square / 2.0**2)
    kernel: Image = (6.0 * (narrow / narrow.sum() - wide / wide.sum())).astype(np.float32)[None, None]
    return kernel


def bandpass_onnx() -> bytes:
    """Network of one convolution: Gaussian minus wider Gaussian, centred on its 2x2 cell, through a sigmoid."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel = bandpass_kernel()
    values = {"kernel": kernel, "bias": np.array([-2.0], np.float32), "spacing": np.array([8.0], np.float32)}
    values |= {"width": np.array([1.9], np.float32), "nought": np.array([0.0], np.float32)}
    nodes = [
        helper.make_node("Conv", ["image", "kernel", "bias"], ["logits"], "conv", strides=[2, 2], pads=[5, 5, 5, 5]),
        helper.make_node("Sigmoid", ["logits"], ["confidence"], "sigmoid"),
        helper.make_node("ReduceMean", ["logits"], ["mean"], "mean", keepdims=0),
        helper.make_node("Mul", ["mean", "nought"], ["none"], "none"),
        helper.make_node("Add", ["none", "spacing"], ["spacing_px"], "spacing"),
        helper.make_node("Add", ["none", "width"], ["column_sigma_px"], "width"),
    ]
    kinds = {"confidence": [1, 1, "half_rows", "half_cols"], "spacing_px": [1], "column_sigma_px": [1]}
    graph = helper.make_graph(
        nodes,
        "bandpass",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "rows", "cols"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in kinds.items()],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def bandpass_engine(folder: Path) -> Engine:
    """Write the engine into `folder`, with card and hash, and load it."""
    folder.mkdir(parents=True, exist_ok=True)
    data = bandpass_onnx()
    (folder / "model.onnx").write_bytes(data)
    np.savez(folder / JUDGE_FILE, **simple_judge())
    hashes = (hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("model.onnx", JUDGE_FILE))
    (folder / "engine.toml").write_text(CARD.format(sha=next(hashes), judge=next(hashes)), encoding="utf-8")
    return load_engine(folder)


def simple_judge() -> dict[str, Any]:
    """Arrays of a judge that goes by the height of a peak, a little by d', and by everything else hardly, but not at all."""
    count, rng = len(FEATURES), np.random.default_rng(9)
    first = rng.normal(0.0, 0.02, (count, 6))
    first[FEATURES.index("height"), 0], first[FEATURES.index("d_prime"), 1] = 1.0, 1.0
    biases = np.array([8.0, 0.0, 0.1, 0.1, 0.1, 0.1])
    arrays = {"mean": np.zeros(count), "scale": np.ones(count), "weight0": first, "bias0": biases}
    arrays |= {"weight1": np.array([[1.0], [0.4], [0.3], [-0.3], [0.2], [-0.2]]), "bias1": np.array([-8.4])}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def bandpass_module() -> Any:
    """The same network as a torch module, which has no opinion on sizes."""
    import torch

    convolution = torch.nn.Conv2d(1, 1, 12, 2, 5)
    convolution.load_state_dict({"weight": torch.from_numpy(bandpass_kernel()), "bias": torch.tensor([-2.0])})

    class Alone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Sequential(convolution, torch.nn.Sigmoid())

        def forward(self, image: Any) -> tuple[Any, ...]:
            return (self.inner(image),)

    return Alone()


def jittered_scene(
    shape: tuple[int, int], spacing_px: float, sigma_px: float, seed: int, noise: float = 2.0
) -> tuple[Image, FloatArray]:
    """Columns of unequal height on a jittered grid that runs over the borders: image (rows, cols), and those inside (N, 2)."""
    rng = np.random.default_rng(seed)
    axes = [np.arange(0, length, spacing_px) for length in shape]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    truth = grid + rng.uniform(-0.2, 0.2, grid.shape) * spacing_px
    heights = rng.uniform(40, 120, len(truth))
    image = np.full(shape, 20.0)
    half = int(np.ceil(6.0 * sigma_px))
    for (y, x), height in zip(truth, heights, strict=True):
        r = np.arange(max(0, round(y) - half), min(shape[0], round(y) + half + 1))
        c = np.arange(max(0, round(x) - half), min(shape[1], round(x) + half + 1))
        if len(r) and len(c):
            gy, gx = (np.exp(-0.5 * ((axis - at) / sigma_px) ** 2) for axis, at in ((r, y), (c, x)))
            image[r[0] : r[-1] + 1, c[0] : c[-1] + 1] += height * gy[:, None] * gx
    inside = ((truth >= 0) & (truth < np.array(shape) - 1)).all(1)
    return (image + rng.normal(0, noise, shape)).astype(np.float32), truth[inside]


def lattice_frame(
    shape: tuple[int, int] = (300, 380), spacing: float = 11.0, sigma: float = 2.2, seed: int = 1, dtype: str = "uint16"
) -> Frame:
    """A frame with two sites per cell and counting noise."""
    rng = np.random.default_rng(seed)
    image = np.full(shape, 20.0)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for height, (oy, ox) in ((90.0, (0.3, 0.4)), (60.0, (spacing * 0.5, spacing * 0.52))):
        dy = (y - oy + spacing / 2) % spacing - spacing / 2
        dx = (x - ox - 0.13 * y + spacing / 2) % spacing - spacing / 2
        image += height * np.exp(-0.5 * (dy**2 + dx**2) / sigma**2)
    return Frame(0, rng.poisson(image).astype(dtype), 0.0, Origin("test"))
