"""The network on torch: for training machines and comparison; weights come as plain arrays, never as a pickle."""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray

from atomid_live.backends.engine import Engine
from atomid_live.errors import ModelError, UsageError
from atomid_live.protocols import Maps, Network

WEIGHTS = "weights.npz"


class TorchNetwork:
    """Engine rebuilt from its card's sizes and its arrays; in torch the thread count is the whole process's."""

    def __init__(self, engine: Engine, threads: int, precision: str) -> None:
        # `train` lies above the back ends; this one shows a network in the making and is the only one that needs its class.
        from atomid_live.train.network import CompactUnet, Shipped

        if precision == "int8":
            raise UsageError("the torch back end runs fp32 only; take openvino for int8")
        torch.set_num_threads(threads)
        built = engine.card["network"]
        network = CompactUnet(tuple(built["channels"]), int(built["blocks"]))
        with np.load(io.BytesIO(engine.read(WEIGHTS)), allow_pickle=False) as arrays:
            state = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise ModelError(f"{engine.folder / WEIGHTS}: does not fit the network of its card: {error}") from error
        self._network = Shipped(network).eval().to(memory_format=torch.channels_last)
        self._name, self._stride = f"torch:{engine.name}", engine.stride

    @property
    def name(self) -> str:
        """Back end and engine."""
        return self._name

    @torch.inference_mode()
    def infer(self, image: NDArray[np.float32]) -> Maps:
        """Run one image of shape (rows, cols), both multiples of 16."""
        batch = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None]
        confidence, spacing, sigma = self._network(batch.to(memory_format=torch.channels_last))
        return Maps(confidence[0, 0].numpy(), self._stride, float(spacing[0]), float(sigma[0]))

    def close(self) -> None:
        """Nothing to release before the object goes."""


def open_network(engine: Engine, threads: int, precision: str) -> Network:
    """Open an engine's network."""
    return TorchNetwork(engine, threads, precision)
