"""Names of rivals, and how each is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from atomid_live.errors import UsageError
from atomid_live.evaluate.contestants import Contestant
from atomid_live.evaluate.rivals.blobs import METHODS, blobs
from atomid_live.evaluate.rivals.findfoci import findfoci_best, findfoci_fixed
from atomid_live.evaluate.scenes.truth import SceneImage
from atomid_live.evaluate.scoring import Answer

Rival = Callable[[SceneImage], list[tuple[str, Answer]]]
RIVALS = ("findfoci", "log", "dog", "doh", "map", "atomap")


def _named(name: str, function: Callable[[SceneImage], Answer]) -> Rival:
    return lambda scene: [(name, function(scene))]


def _blob(method: str) -> Rival:
    return _named(f"{method} (oracle)", lambda scene: blobs(method, scene.pixels, scene))


def _on_map(contestant: Contestant) -> Rival:
    """Every decode of a map that is not ours, on the network's map; its time counts for each."""
    from atomid_live.evaluate.rivals.our_map import frame_map
    from atomid_live.evaluate.rivals.thesis_decode import thesis_decode

    assert contestant.network is not None
    network, name = contestant.network, contestant.name

    def answer(scene: SceneImage) -> list[tuple[str, Answer]]:
        heat, ms = frame_map(scene.frame(), network)
        names = [f"{name} map + thesis decode", *(f"{name} map + {method}" for method in METHODS)]
        if heat is None:
            return [(each, Answer(np.empty((0, 2)), timings_ms={"map": ms}, note="no scale")) for each in names]
        found = [thesis_decode(heat, scene), *(blobs(method, heat, scene) for method in METHODS)]
        return [
            (each, Answer(one.yx_px, None, None, {"map": ms, **one.timings_ms}, one.note))
            for each, one in zip(names, found, strict=True)
        ]

    return answer


def open_rivals(
    names: Sequence[str], ours: Sequence[Contestant], atomap_python: Path | None, closing: ExitStack
) -> tuple[list[Rival], list[str]]:
    """Open rivals by name ("all" for every one); returns them and, in words, who could not come and why.

    Raises
    ------
    UsageError
        Unknown rival.
    """
    wanted = RIVALS if "all" in names else tuple(dict.fromkeys(names))
    unknown = set(wanted) - set(RIVALS)
    if unknown:
        raise UsageError(f"unknown rival {', '.join(sorted(unknown))}; known: all, {', '.join(RIVALS)}")
    opened: list[Rival] = []
    absent: list[str] = []
    for name in wanted:
        if name == "findfoci":
            opened += [_named("FindFoci (one setting)", findfoci_fixed), _named("FindFoci (oracle)", findfoci_best)]
        elif name == "map":
            networks = [each for each in ours if each.network is not None]
            opened += [_on_map(each) for each in networks]
            absent += [] if networks else ["decodes of our map: no network among the models"]
        elif name == "atomap":
            _add_atomap(atomap_python, closing, opened, absent)
        else:
            opened.append(_blob({"log": "LoG", "dog": "DoG", "doh": "DoH"}[name]))
    return opened, absent


def _add_atomap(python: Path | None, closing: ExitStack, opened: list[Rival], absent: list[str]) -> None:
    from atomid_live.evaluate.rivals.atomap import Atomap, absent_reason

    reason = absent_reason(python)
    if reason or python is None:
        absent.append(f"Atomap: {reason}")
        return
    worker = Atomap(python)
    closing.callback(worker.close)
    opened.append(_named("Atomap (oracle)", worker))
