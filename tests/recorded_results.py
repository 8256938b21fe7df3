"""Results to record, and a clock that needs no waiting, for the tests of the session folder and of its sinks."""

from __future__ import annotations

import numpy as np

from atomid_live.flags import Flag
from atomid_live.types import (
    COMPONENTS,
    Detections,
    DriftEstimate,
    Frame,
    FrameState,
    Lattice,
    Origin,
    Reading,
    Refused,
    Result,
    StrainField,
    Summary,
)

T0 = 1_764_000_000.25


class TickingClock:
    """Advances one second a question."""

    def __init__(self) -> None:
        self.ticks = 0

    def time_ns(self) -> int:
        self.ticks += 1
        return 1_795_384_501_000_000_000 + self.ticks * 1_000_000_000

    def monotonic(self) -> float:
        return float(self.ticks)


def make_result(sequence: int = 0, count: int = 5, *, strained: bool = True, pixel: float = 0.0125) -> Result:
    """A result of a frame of 40 rows and 60 columns."""
    rng = np.random.default_rng(sequence)
    yx = rng.uniform((0, 0), (39, 59), (count, 2))
    yx = yx[np.lexsort((yx[:, 1], yx[:, 0]))]
    flags = np.where(np.arange(count) % 2 == 0, int(Flag.EDGE), 0)
    score, sigma, height = rng.uniform(0, 1, count), rng.uniform(0.02, 0.1, (count, 2)), rng.uniform(50, 90, count)
    found = Detections(yx, score, sigma, height, flags, 12.5, 2.0)
    fields = [rng.normal(0, 0.01, count) for _ in range(3)]
    quiet = np.zeros(count, np.int64)
    strain = StrainField(*fields, rng.normal(0, 5, count), np.full(count, 0.004), quiet, "first:5", 0.5, 40.0, True, "")
    if not strained:
        strain = StrainField.none_for(count, "pending", "first:5")
    reading = Reading(
        {name: Summary(0.001, 0.002, 0.0003) for name in COMPONENTS} if strained else {},
        valid=strained,
        reason="" if strained else "=pending, 2 of 5",
        reference="first:5",
        window_nm=0.5,
        alarm="exx rising" if sequence == 3 else "",
    )
    drift = DriftEstimate((0.5, -0.25), (1.5, -2.0), (0.03, 0.04), (0.1, 0.2), 0.05, quality=0.9, reference_sequence=0)
    return Result(
        sequence,
        (40, 60),
        T0 + sequence,
        "sender",
        Origin(f"/data/frame {sequence}.emd", "uuid", sequence, "id", "ab" * 32),
        found,
        (pixel, pixel * 1.02),
        "file",
        0,
        "first frame" if sequence == 0 else "",
        drift,
        Lattice(site=np.arange(count) % 3),
        strain,
        reading=reading,
        timings_ms={"detect": 12.0},
        flags=int(Flag.SEGMENT_START) if sequence == 0 else 0,
    )


def make_refused(sequence: int, state: FrameState = FrameState.DROPPED) -> Refused:
    return Refused(sequence, state, "mailbox full", Origin("tcp://x:1"), T0 + sequence, 7)


def make_frame(result: Result) -> Frame:
    pixels = np.random.default_rng(result.sequence).poisson(30, result.shape).astype(np.uint16)
    return Frame(result.sequence, pixels, result.time_s, result.origin, pixel_size_yx_nm=result.pixel_size_yx_nm)
