"""One shape's way through the GPU: pinned staging in, kernels and network as one graph, pinned staging out, one wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from atomid_live.errors import ModelError
from atomid_live.kernels import stages
from atomid_live.kernels.judge import DeviceJudge
from atomid_live.kernels.launch import Launcher
from atomid_live.kernels.layout import Answer, Pool, State
from atomid_live.types import FloatArray

if TYPE_CHECKING:
    from atomid_live.backends.device import DeviceNetwork

# Rows of the answer that are fetched before their number is known; a frame with more costs a second copy.
FETCHED = 8192
WARM_RUNS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What the device found.

    Attributes
    ----------
    answer : ndarray, shape (N, 10), float64
        Columns of `kernels.layout.Answer`, one row per candidate, chosen or not.
    found : int
        Peaks of the map; when larger than the room, `answer` is not complete.
    fitted_sigma_px : float
        Width used in the last pass of the fit.
    spacing_px, column_sigma_px : float
        The network's own opinion in pixels of its input; NaN where it has none.
    pool : ndarray, shape (7,), float64
        Sums of `kernels.layout.Pool` over some of the columns.
    merit : float
        How high peaks typically are.
    """

    answer: FloatArray = field(repr=False)
    found: int
    fitted_sigma_px: float
    spacing_px: float
    column_sigma_px: float
    pool: FloatArray = field(repr=False)
    merit: float


@contextmanager
def out_of_memory(what: str) -> Iterator[None]:
    """Turn torch's exhausted memory into an error that says what to do."""
    import torch

    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise ModelError(
            f"GPU memory ran out for {what}: {error}; close other programs on the GPU, or take another --backend"
        ) from error


class Chain:
    """Buffers, bound network and, on a GPU, stream and graph for one shape, type and room.

    Parameters
    ----------
    run : Launcher
    network : DeviceNetwork
    shape, padded : (int, int)
        Of the frame, and of the network's input.
    dtype : str
        NumPy name of the pixels' type, one of `kernels.stages.RAW_TYPES`.
    room : int
        Most peaks.
    judge : DeviceJudge
    kind : str
        Of scene, see `kernels.judge.choose`.

    Attributes
    ----------
    run, judge, buffers, raw, infer, stream
        Launcher, judge, `kernels.buffers.Buffers`, the frame's pixels on the device, the bound network, and the stream that all
        runs on (None on a processor).
    """

    def __init__(
        self,
        run: Launcher,
        network: DeviceNetwork,
        shape: tuple[int, int],
        dtype: str,
        padded: tuple[int, int],
        room: int,
        *,
        judge: DeviceJudge,
        kind: str = "lattice",
    ) -> None:
        import torch

        self.room, self.judge, self._kind = room, judge, kind
        self.run, self._device = run, run.device
        self._cuda = self._device.type == "cuda"
        self.stream = torch.cuda.Stream(self._device) if self._cuda else None
        self._graph: Any = None
        self._capture = self._cuda and network.capturable
        fetched = min(FETCHED, room)
        with out_of_memory(f"frames of {shape}"), self._on_stream():
            self.buffers = stages.allocate(shape, padded, room, self._device)
            self.raw = torch.empty(shape, dtype=getattr(torch, dtype), device=self._device)
            self._staged = torch.zeros(shape, dtype=getattr(torch, dtype), pin_memory=self._cuda)
            self._param = torch.zeros(self.buffers.param.shape, dtype=torch.float64, pin_memory=self._cuda)
            self._numbers = torch.zeros(len(State) + 2 + len(Pool), dtype=torch.float64, pin_memory=self._cuda)
            self._answer = torch.zeros((fetched, len(Answer)), dtype=torch.float64, pin_memory=self._cuda)
            self._sizes = torch.zeros(2, dtype=torch.float64, device=self._device)
            self.infer = network.bind(self.buffers.contrast)
        # a place of its own for the host's view, since every call would make a new one
        self._staged_np, self._param_np = self._staged.numpy(), self._param.numpy()

    def __call__(self, pixels: NDArray[Any], param: FloatArray) -> Seen:
        """Run one frame; `pixels` (rows, cols) of this chain's shape and type, `param` from `kernels.frame_params.fill`."""
        # the stream was waited for at the end of the last call, so the staging is free
        np.copyto(self._staged_np, pixels)
        np.copyto(self._param_np, param)
        with out_of_memory(f"a frame of {pixels.shape}"), self._on_stream():
            self.copy_in()
            self.replay()
            self.copy_out()
            if self.stream is not None:
                self.stream.synchronize()
            return self._read()

    def map(self, pixels: NDArray[Any], param: FloatArray) -> NDArray[np.float32]:
        """Only the network's map (rows, cols) of a frame, on the host."""
        np.copyto(self._staged_np, pixels)
        np.copyto(self._param_np, param)
        with out_of_memory(f"a frame of {pixels.shape}"), self._on_stream():
            self.copy_in()
            stages.normalise(self.run, self.buffers, self.raw)
            heat: NDArray[np.float32] = self.infer()[0].cpu().numpy()
            return heat

    def copy_in(self) -> None:
        """Begin to copy pixels and numbers to the device."""
        self.raw.copy_(self._staged, non_blocking=True)
        self.buffers.param.copy_(self._param, non_blocking=True)

    def copy_out(self) -> None:
        """Begin to copy the answer to the host."""
        self._numbers[: len(State)].copy_(self.buffers.state, non_blocking=True)
        self._numbers[len(State) : len(State) + 2].copy_(self._sizes, non_blocking=True)
        self._numbers[len(State) + 2 :].copy_(self.buffers.pool, non_blocking=True)
        self._answer.copy_(self.buffers.answer[: len(self._answer)], non_blocking=True)

    def _read(self) -> Seen:
        numbers = self._numbers.tolist()
        count = min(int(numbers[State.COUNT]), self.room)
        rows = self._answer if count <= len(self._answer) else self.buffers.answer[:count].cpu()
        spacing, width, *pool = numbers[len(State) :]
        return Seen(
            rows[:count].numpy().copy(), int(numbers[State.FOUND]), numbers[State.SIGMA], spacing, width, np.array(pool),
            numbers[State.MERIT],
        )  # fmt: skip

    def _body(self) -> None:
        run, b = self.run, self.buffers
        stages.normalise(run, b, self.raw)
        heat, sizes = self.infer()
        self._sizes.copy_(sizes)
        stages.peaks(run, b, heat)
        stages.place(run, b, heat)
        stages.refine(run, b)
        stages.choose(run, b, heat, self.judge, self._kind)
        stages.collect(run, b)

    def replay(self) -> None:
        """Run all kernels and the network on the frame that is on the device."""
        if not self._capture:
            self._body()
            return
        if self._graph is None:
            self._record()
        self._graph.replay()

    def _record(self) -> None:
        """Run until all is loaded and allocated, then capture; only this thread is held to the rules of capturing."""
        import torch

        for _ in range(WARM_RUNS):
            self._body()
        assert self.stream is not None
        self.stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            self._body()
        self._graph = graph

    def _on_stream(self) -> Any:
        import torch

        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)
