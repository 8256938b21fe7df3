"""The network as a TensorRT plan: our own stream, addresses that stay, every False and None an error with TensorRT's log."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from atomid_live.backends.engine import Engine
from atomid_live.backends.tensorrt_build import INPUT, collecting_logger, said
from atomid_live.errors import ModelError

MAP, SPACING, WIDTH = "confidence", "spacing_px", "column_sigma_px"


class StalePlanError(ModelError):
    """The plan does not run with this TensorRT, driver or GPU, and is to be built anew."""


class TensorRtNetwork:
    """A plan on the GPU that torch's current device names (backends.device.DeviceNetwork).

    Parameters
    ----------
    trt : module
        From `tensorrt_build.import_tensorrt`.
    engine : Engine
        What the plan was built from.
    plan : bytes
        From `tensorrt_build.obtain_plan`, never from elsewhere: it is native code.
    precision : str
        For the name.

    Raises
    ------
    StalePlanError
        TensorRT refuses the plan.
    ModelError
        Inputs and outputs are not those of a column network.
    """

    capturable = True

    def __init__(self, trt: ModuleType, engine: Engine, plan: bytes, precision: str) -> None:
        self._trt, self._logger = trt, collecting_logger(trt)
        self.name, self.stride = f"tensorrt:{engine.name}-{precision}", engine.stride
        self._runtime = trt.Runtime(self._logger)
        self._plan = self._runtime.deserialize_cuda_engine(plan)
        if self._plan is None:
            raise StalePlanError(f"TensorRT refuses the stored plan of {engine.name!r}: {said(self._logger)}")
        self._check()

    def _check(self) -> None:
        trt, plan = self._trt, self._plan
        names = [plan.get_tensor_name(i) for i in range(plan.num_io_tensors)]
        inputs = [name for name in names if plan.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if inputs != [INPUT] or MAP not in names:
            raise ModelError(
                f"the plan has the tensors {', '.join(names)}; it needs the input {INPUT!r} and the output {MAP!r}"
            )
        for name in names:
            kind = plan.get_tensor_dtype(name)
            if kind != trt.DataType.FLOAT:
                raise ModelError(
                    f"tensor {name!r} of the plan is {kind}; inputs and outputs must be 32-bit float: export the network so"
                )
        self._outputs = [name for name in names if name != INPUT]

    def _context(self, shape: tuple[int, ...], stream: int) -> Any:
        """A context for one shape, in the tightest profile that holds it."""
        context = self._plan.create_execution_context()
        if context is None:
            raise ModelError(f"no memory for running the plan: {said(self._logger)}; close other programs on the GPU")
        fitting = []
        for index in range(self._plan.num_optimization_profiles):
            least, _, most = (tuple(dims) for dims in self._plan.get_tensor_profile_shape(INPUT, index))
            if all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True)):
                fitting.append((most[2] * most[3], index))
        if not fitting:
            raise ModelError(
                f"the plan has no profile for frames of {shape[2]} x {shape[3]}; "
                "build it for them with `atomid-live engine build --side`"
            )
        index = min(fitting)[1]
        if index != context.active_optimization_profile and not context.set_optimization_profile_async(index, stream):
            raise ModelError(f"the plan's profile {index} cannot be used: {said(self._logger)}")
        return context

    def bind(self, image: Any) -> Any:
        """Return the run for one input tensor (1, 1, rows, cols), float32, that stays where it is."""
        import torch

        if image.dtype != torch.float32 or not image.is_contiguous():
            raise ModelError(f"the plan takes contiguous 32-bit floats; the image is {image.dtype}")
        stream = torch.cuda.current_stream(image.device).cuda_stream
        shape = tuple(image.shape)
        context = self._context(shape, stream)
        if not context.set_input_shape(INPUT, shape):
            raise ModelError(f"the plan refuses frames of {shape[2]} x {shape[3]}: {said(self._logger)}")
        missing = context.infer_shapes()
        if missing:
            raise ModelError(f"the plan leaves the shapes of {', '.join(missing)} open for frames of {shape[2]} x {shape[3]}")
        tensors = {INPUT: image}
        for name in self._outputs:
            tensors[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=torch.float32, device=image.device)
        for name, tensor in tensors.items():
            if not context.set_tensor_address(name, tensor.data_ptr()):
                raise ModelError(f"the plan refuses the memory of {name!r}: {said(self._logger)}")
        expected = (shape[2] // self.stride, shape[3] // self.stride)
        if tuple(tensors[MAP].shape[-2:]) != expected:
            raise ModelError(
                f"the plan's map is {tuple(tensors[MAP].shape)}; the card's stride {self.stride} asks for {expected}"
            )
        return _Bound(self, context, tensors)

    def close(self) -> None:
        """Release the plan; contexts keep it alive until their chains are gone."""
        self._plan = None


class _Bound:
    """One context with its tensors; kept together, because the plan reads and writes them after Python has moved on."""

    def __init__(self, network: TensorRtNetwork, context: Any, tensors: dict[str, Any]) -> None:
        import torch

        self._network, self._context, self._tensors = network, context, tensors
        image, heat = tensors[INPUT], tensors[MAP]
        self._device, self._heat = image.device, heat.reshape(heat.shape[-2:])
        self._sizes = torch.full((2,), torch.nan, dtype=torch.float32, device=image.device)
        self._stream = torch.cuda.current_stream

    def __call__(self) -> tuple[Any, Any]:
        logger = self._network._logger
        before = len(logger.lines)
        if not self._context.execute_async_v3(self._stream(self._device).cuda_stream):
            raise ModelError(
                f"TensorRT failed to run the network: {said(logger, min(before, len(logger.lines)))}; "
                "restart, or take another --backend"
            )
        for place, name in enumerate((SPACING, WIDTH)):
            if name in self._tensors:
                self._sizes[place : place + 1].copy_(self._tensors[name].reshape(-1)[:1])
        return self._heat, self._sizes
