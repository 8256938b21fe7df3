"""The network on a GPU without TensorRT: plain torch, and ONNX Runtime's CUDA provider, never the processor in its place."""

from __future__ import annotations

from typing import Any

from atomid_live.backends.engine import Engine
from atomid_live.backends.tensorrt import MAP, SPACING, WIDTH
from atomid_live.errors import DeviceAbsentError, ModelError

PROVIDER = "CUDAExecutionProvider"


class ModuleNetwork:
    """A torch module on a device (backends.device.DeviceNetwork).

    Parameters
    ----------
    module : torch.nn.Module
        From an image (1, 1, rows, cols) to the map and, if it has an opinion, spacing and column width in px.
    device : torch.device
    name, stride : str, int
    half : bool
        Convolutions in 16-bit float.
    """

    capturable = True

    def __init__(self, module: Any, device: Any, name: str, stride: int, *, half: bool = False) -> None:
        self._module, self._half = module.eval().to(device), half
        self.name, self.stride = name, stride

    def bind(self, image: Any) -> Any:
        """Return the run for one input tensor that stays where it is."""
        import torch

        def infer() -> tuple[Any, Any]:
            with torch.inference_mode(), torch.autocast(image.device.type, torch.float16, enabled=self._half):
                heat, *sizes = self._module(image.contiguous(memory_format=torch.channels_last))
            opinions = [size.reshape(-1)[:1].float() for size in sizes[:2]]
            opinions += [torch.full((1,), torch.nan, device=image.device)] * (2 - len(opinions))
            return heat.float().reshape(heat.shape[-2:]).contiguous(), torch.cat(opinions)

        return infer

    def close(self) -> None:
        """Nothing to release before the object goes."""


def torch_network(engine: Engine, device: Any, *, half: bool = False) -> ModuleNetwork:
    """Engine in torch on a device, from `weights.npz`."""
    import torch

    from atomid_live.backends.torch import TorchNetwork

    module: Any = TorchNetwork(engine, torch.get_num_threads(), "fp32")._network
    name = f"torch-{torch.device(device).type}:{engine.name}" + ("-fp16" if half else "")
    return ModuleNetwork(module, device, name, engine.stride, half=half)


class OrtCudaNetwork:
    """Engine in ONNX Runtime on a GPU, reading and writing torch's memory on torch's stream.

    Raises
    ------
    DeviceAbsentError
        This ONNX Runtime has no CUDA provider, or it does not start; the processor is never taken instead.
    """

    # its stream and arena are its own business while a graph is captured
    capturable = False

    def __init__(self, engine: Engine, device: Any, precision: str = "fp32", stream: int = 0) -> None:
        import onnxruntime as ort

        if PROVIDER not in ort.get_available_providers():
            raise DeviceAbsentError(
                f"onnxruntime {ort.__version__} here has {', '.join(ort.get_available_providers())} but no {PROVIDER}; "
                "install onnxruntime-gpu in its place, or take another --backend"
            )
        options = ort.SessionOptions()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.log_severity_level = 3
        file = engine.file_for(precision)
        settings = {"device_id": device.index or 0, "user_compute_stream": str(stream)}
        try:
            self._session = ort.InferenceSession(engine.read(file), options, providers=[(PROVIDER, settings)])
        except (RuntimeError, ValueError, ort.capi.onnxruntime_pybind11_state.Fail) as error:
            raise DeviceAbsentError(f"ONNX Runtime cannot run {engine.folder / file} on the GPU alone: {error}") from error
        used = self._session.get_providers()
        if not used or used[0] != PROVIDER:
            raise DeviceAbsentError(
                f"ONNX Runtime took {', '.join(used)} instead of {PROVIDER}; `atomid-live doctor` looks for the cause"
            )
        self.stride, self.name = engine.stride, f"onnxruntime-cuda:{engine.name}" + ("-int8" if "int8" in file else "")

    def bind(self, image: Any) -> Any:
        """Return the run for one input tensor that stays where it is."""
        import numpy as np
        import torch

        device = image.device.index or 0
        shapes = {MAP: (1, 1, image.shape[2] // self.stride, image.shape[3] // self.stride), SPACING: (1,), WIDTH: (1,)}
        names = [output.name for output in self._session.get_outputs() if output.name in shapes]
        if MAP not in names:
            raise ModelError(
                f"the network has no output {MAP!r} but {', '.join(names) or 'others'}; train or fetch the model again"
            )
        tensors = {name: torch.zeros(shapes[name], dtype=torch.float32, device=image.device) for name in names}
        binding = self._session.io_binding()
        binding.bind_input("image", "cuda", device, np.float32, tuple(image.shape), image.data_ptr())
        for name, tensor in tensors.items():
            binding.bind_output(name, "cuda", device, np.float32, tuple(tensor.shape), tensor.data_ptr())
        sizes = torch.full((2,), torch.nan, device=image.device)

        def infer() -> tuple[Any, Any]:
            torch.cuda.current_stream(image.device).synchronize()
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            for place, name in enumerate((SPACING, WIDTH)):
                if name in tensors:
                    sizes[place] = tensors[name][0]
            return tensors[MAP].reshape(tensors[MAP].shape[-2:]), sizes

        return infer

    def close(self) -> None:
        """Nothing to release before the object goes."""
