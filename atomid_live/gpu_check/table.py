"""The table of verdicts, and the clock that it is filled against."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from atomid_live.errors import DeviceAbsentError
from atomid_live.types import Detections

RIGHT, WRONG, NOT_RUN = "right", "WRONG", "NOT RUN"
TOLERANCE_PX = {"fp32": 0.01, "fp16": 0.02, "int8": 0.1}
LOST = {"fp32": 0.002, "fp16": 0.005, "int8": 0.02}
LEAST_COLUMNS = 1000
SAME_PX = 0.5


class NotHereError(Exception):
    """Something this machine does not have; the table says so."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    verdict: str
    detail: str


@dataclass
class Table:
    """Lines in the order in which they came.

    Attributes
    ----------
    until : float
        `time.monotonic` after which no step begins.
    """

    until: float
    rows: list[Row] = field(default_factory=list)

    def spare(self, seconds: float = 10.0) -> None:
        """Leave the step when there is less time than this."""
        if self.until - time.monotonic() < seconds:
            raise NotHereError("out of time")

    @contextmanager
    def step(self, what: str) -> Iterator[Callable[[str], None]]:
        """Run one step; whatever happens becomes a row, made of the words said in it."""
        said: list[str] = []
        begun, verdict = time.monotonic(), RIGHT
        try:
            yield said.append
        except (NotHereError, DeviceAbsentError) as error:
            verdict, said = NOT_RUN, [str(error)[:150]]
        except Exception as error:  # a step that breaks must not hide the others
            verdict = WRONG
            said.append(f"{type(error).__name__}: {error}"[:300])
            traceback.print_exc()
        self.rows.append(Row(what, verdict, "; ".join(said) or f"{time.monotonic() - begun:.1f} s"))
        print(f"{verdict:<8} {what}: {self.rows[-1].detail}", flush=True)

    def count(self, verdict: str) -> int:
        """How many lines have this verdict."""
        return sum(row.verdict == verdict for row in self.rows)

    def text(self) -> str:
        """All lines, and their sum."""
        width = max((len(row.what) for row in self.rows), default=0)
        lines = [f"{row.verdict:<8} {row.what:<{width}}  {row.detail}" for row in self.rows]
        total = f"{self.count(RIGHT)} right, {self.count(WRONG)} wrong, {self.count(NOT_RUN)} not run"
        return "\n".join(["=" * 100, *lines, "=" * 100, total])


def need(condition: bool, text: str) -> None:
    """Fail with words."""
    if not condition:
        raise AssertionError(text)


def closeness(found: Detections, expected: Detections, precision: str) -> str:
    """Compare columns with the processor's.

    Raises
    ------
    AssertionError
        They are not the same within `LOST` and `TOLERANCE_PX`.
    """
    need(len(expected) > LEAST_COLUMNS, f"the processor found {len(expected)} columns only: a poor scene")
    away, partner = cKDTree(expected.yx_px).query(found.yx_px)
    same = away < SAME_PX
    lost = 1.0 - len(set(partner[same])) / len(expected)
    extra = float(np.mean(~same))
    rms = float(np.sqrt(np.mean(away[same] ** 2) / 2))
    text = f"{len(found)} columns, {100 * lost:.2f} % lost, {100 * extra:.2f} % more, {rms:.4f} px rms per axis"
    need(max(lost, extra) <= LOST[precision] and rms <= TOLERANCE_PX[precision], f"disagrees with the processor: {text}")
    return text


def wall_milliseconds(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median and 95 % of wall-clock times after two warm runs."""
    times = []
    for _ in range(repeats + 2):
        begun = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - begun))
    return float(np.median(times[2:])), float(np.percentile(times[2:], 95))


def device_milliseconds(stream: Any, work: Callable[[], Any], repeats: int) -> float:
    """Median time between two events on the device."""
    import torch

    times = []
    with torch.cuda.stream(stream):
        for _ in range(repeats + 2):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
    return float(np.median(times[2:]))
