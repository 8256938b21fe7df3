"""Whoever takes part: our detectors as they ship, each with its stages timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomid_live.backends import open_network
from atomid_live.backends.engine import find_engine, load_engine
from atomid_live.detect.dog import DogDetector
from atomid_live.errors import UsageError
from atomid_live.evaluate.scoring import Answer
from atomid_live.protocols import Detector, Maps, Network
from atomid_live.settings import DetectSettings, FrameSettings
from atomid_live.types import Detections, Frame


class TimedNetwork:
    """A network (protocols.Network) that remembers how long its last inference took."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.last_ms = 0.0

    @property
    def name(self) -> str:
        """Back end and model."""
        return self._network.name

    def infer(self, image: NDArray[np.float32]) -> Maps:
        """Run the network."""
        start = perf_counter()
        maps = self._network.infer(image)
        self.last_ms = 1e3 * (perf_counter() - start)
        return maps

    def close(self) -> None:
        """Release the device."""
        self._network.close()


class Contestant:
    """One of our own detectors at its shipped settings."""

    def __init__(self, name: str, detector: Detector, network: TimedNetwork | None = None) -> None:
        self.name, self._detector, self.network = name, detector, network

    def __call__(self, frame: Frame) -> Answer:
        """Detect, with the time of the network apart."""
        if self.network is not None:
            self.network.last_ms = 0.0
        start = perf_counter()
        found = self._detector.detect(frame)
        total = 1e3 * (perf_counter() - start)
        inside = 0.0 if self.network is None else self.network.last_ms
        timings = {"network": inside, "scale, peaks and refinement": total - inside}
        return Answer(np.asarray(found.yx_px), np.asarray(found.score), np.asarray(found.sigma_yx_px), timings)

    def detections(self, frame: Frame) -> Detections:
        """Detect, with all that the detector says of each column."""
        return self._detector.detect(frame)

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Compile and allocate."""
        self._detector.warm_up(shape)


def _engine_detector(name: str, threads: int, closing: ExitStack) -> Contestant:
    from atomid_live.detect.unet import UnetDetector

    folder = find_engine(name)
    if folder is None:
        raise UsageError(f"unknown model {name!r}; train one, or compare --model dog alone")
    engine = load_engine(folder)
    network = TimedNetwork(open_network(engine, "auto", threads))
    closing.callback(network.close)
    # trainings that do not ship may all bear one name; their folders tell them apart
    shown = engine.name if engine.name == name else f"{engine.name} ({folder.name})"
    return Contestant(shown, UnetDetector(network, engine, DetectSettings(), FrameSettings()), network)


@contextmanager
def contestants(models: tuple[str, ...], threads: int = 2) -> Iterator[list[Contestant]]:
    """Open detectors by name ("dog", an engine's name or folder) and close their networks afterwards.

    Raises
    ------
    UsageError
        No such model, or one named twice.
    """
    if len(set(models)) != len(models):
        raise UsageError(f"models {', '.join(models)}: one is named twice")
    with ExitStack() as closing:
        yield [
            Contestant("dog", DogDetector()) if name == "dog" else _engine_detector(name, threads, closing) for name in models
        ]


Detect = Callable[[Frame], Answer]
Numbers = dict[str, Any]
