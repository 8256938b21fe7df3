"""Runtimes for networks: a table of names, each imported when chosen."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from atomid_live.errors import DeviceAbsentError, UsageError

if TYPE_CHECKING:
    from atomid_live.backends.engine import Engine
    from atomid_live.protocols import Network

# What `auto` tries, in this order: the fastest on a processor first.
BACKENDS = {
    "openvino": "atomid_live.backends.openvino",
    "onnxruntime": "atomid_live.backends.onnxruntime",
    "torch": "atomid_live.backends.torch",
}
AUTOMATIC = ("openvino", "onnxruntime")


def open_network(engine: Engine, backend: str = "auto", threads: int = 1, precision: str = "auto") -> Network:
    """Open an engine's network on a back end.

    Parameters
    ----------
    engine : Engine
        From `atomid_live.backends.engine.load_engine`.
    backend : str
        A name of `BACKENDS`, or "auto" for the first of `AUTOMATIC` that is installed.
    threads : int
        Processor threads the runtime may use.
    precision : str
        "fp32", "int8", or "auto": the one its card names as default.

    Raises
    ------
    UsageError
        Unknown back end, or a precision that the engine does not have.
    DeviceAbsentError
        The runtime is not installed here.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise UsageError(f"unknown back end {backend!r} for a network; known: auto, {', '.join(BACKENDS)}")
    tried = []
    for name in AUTOMATIC if backend == "auto" else (backend,):
        try:
            module = import_module(BACKENDS[name])
        except ImportError as error:
            tried.append(f"{name} ({error.name or error} is not installed)")
            continue
        network: Network = module.open_network(engine, threads, precision)
        return network
    raise DeviceAbsentError(f"no runtime for the network {engine.name!r}: {'; '.join(tried)}; install one, or use --model dog")
