"""The real series of graphene with a hopping silicon atom: what the tracks say of it, in numbers only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atomid_live.detect.dog import DogDetector
from atomid_live.pipeline import Pipeline
from atomid_live.settings import Settings
from atomid_live.types import Frame, Origin

PIXEL_NM = 0.0078


@dataclass(frozen=True, slots=True)
class Series:
    """Counts over a real series; `frames` is 0 where it is not at hand."""

    frames: int = 0
    columns: int = 0
    with_id: int = 0
    sure_frames: int = 0
    begun: int = 0
    longest: int = 0
    events: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, path: Path) -> Series:
        """Follow the series in a file, if it is there."""
        if not path.is_file():
            return cls()
        with np.load(path) as file:
            frames, numbers = file["frames"], file["frame_no"]
        pipeline, seen = Pipeline(DogDetector(), Settings()), Counter[int]()
        columns = with_id = sure = begun = 0
        events: Counter[str] = Counter()
        for k, (pixels, number) in enumerate(zip(frames, numbers, strict=True)):
            frame = Frame(k, pixels, float(number), Origin("series"), pixel_size_yx_nm=(PIXEL_NM, PIXEL_NM))
            tracks = pipeline.process(frame).tracks
            columns += len(tracks.track_id)
            sure += tracks.sure
            begun += tracks.note.startswith("ids begin")
            events.update(event.kind for event in tracks.events)
            if tracks.sure:
                good = tracks.track_id[tracks.track_id >= 0]
                with_id += len(good)
                seen.update(int(n) for n in good)
        longest = max(seen.values(), default=0)
        return cls(len(frames), columns, with_id, sure, begun, longest, tuple(sorted(events.items())))


def series_lines(series: Series) -> list[str]:
    """Lines for the page; numbers only, as the frames belong to others and have no truth."""
    if not series.frames:
        return ["", "The real series was not at hand."]
    told = ", ".join(f"{count} {kind}" for kind, count in series.events) or "none"
    return [
        "",
        "## Real series: 48 frames of graphene with a silicon atom that hops",
        "",
        f"{series.columns} columns in {series.frames} frames; {series.with_id} with a sure id, in {series.sure_frames} frames; "
        f"ids began {series.begun} times; the longest track has {series.longest} frames. Events told: {told}. There is no "
        "truth to it.",
    ]
