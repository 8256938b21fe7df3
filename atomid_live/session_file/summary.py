"""`summary.json`: the final numbers of a session, computed from its lines and from nothing else."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from atomid_live.session_file.lines import Record
from atomid_live.types import COMPONENTS, FrameState

LAST_EVENTS = 100


def counts(frames: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many frames ended in each state, and `received`, their sum."""
    found = Counter(frame["state"] for frame in frames)
    each = {state.value: found[state.value] for state in FrameState}
    return {"received": sum(each.values()), **each}


def _spread(values: Iterable[float | None]) -> Record:
    known = sorted(value for value in values if value is not None)
    if not known:
        return {"frames": 0, "median": None, "min": None, "max": None}
    return {"frames": len(known), "median": statistics.median(known), "min": known[0], "max": known[-1]}


def _events(done: list[Record]) -> Record:
    """How many of each kind, and the last hundred in full; `frames.jsonl` and `events.csv` have them all."""
    every = [{"sequence": f["sequence"], **e} for f in done if f.get("tracks") for e in f["tracks"]["events"]]
    return {"counts": dict(Counter(event["kind"] for event in every)), "last": every[-LAST_EVENTS:]}


def summarise(frames: list[Record]) -> Record:
    """Return counts, spreads over the processed frames, the last drift of each segment and how often each flag was set."""
    done = [frame for frame in frames if frame["state"] == FrameState.PROCESSED]
    valid = [frame for frame in done if frame["strain"]["valid"]]
    last = {frame["segment"]: frame for frame in done}
    stages = {stage for frame in done for stage in frame["timings_ms"]}
    return {
        "counts": counts(frames),
        "columns": _spread(frame["columns"] for frame in done),
        "spacing_px": _spread(frame["spacing_px"] for frame in done),
        "segments": [
            {"segment": number, "last_sequence": frame["sequence"], "total_xy_px": frame["drift"]["total_xy_px"],
             "sigma_xy_px": frame["drift"]["sigma_xy_px"], "velocity_xy_nm_min": frame["drift"]["velocity_xy_nm_min"]}
            for number, frame in sorted(last.items())
        ],
        "strain_valid_frames": len(valid),
        "strain_mean": {name: _spread(f["strain"]["columns_method"][name]["mean"] for f in valid) for name in COMPONENTS},
        "alarms": [{"sequence": f["sequence"], "alarm": f["strain"]["alarm"]} for f in done if f["strain"]["alarm"]],
        "events": _events(done),
        "damage": [{"segment": n, **f["tracks"]["damage"]} for n, f in sorted(last.items()) if f.get("tracks")],
        "flags": dict(Counter(flag for frame in done for flag in frame["flags"])),
        "timings_ms": {stage: _spread(frame["timings_ms"].get(stage) for frame in done) for stage in sorted(stages)},
        "refused": dict(Counter(frame["reason"] for frame in frames if frame["state"] != FrameState.PROCESSED)),
        "without_atoms_file": sum(frame.get("atoms") is None for frame in done),
    }  # fmt: skip
