"""Time from frame to frame as the stamps tell it: they may repeat, be missing or run backwards."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from atomid_live.flags import Flag
from atomid_live.types import NAN, Frame

REMEMBERED = 9


class FrameClock:
    """Intervals of the last frames.

    Attributes
    ----------
    flag : int
        `CLOCK_STEP` when the last stamp ran backwards, else 0.
    """

    def __init__(self) -> None:
        self._time_s = NAN
        self._intervals: deque[float] = deque(maxlen=REMEMBERED)
        self.flag = 0

    @property
    def intervals(self) -> int:
        """How many intervals are known, at most nine."""
        return len(self._intervals)

    @property
    def usual_s(self) -> float:
        """Median interval; one second while nothing is known."""
        return median(self._intervals) if self._intervals else 1.0

    def tick(self, frame: Frame) -> float:
        """Seconds since the frame before; the usual interval where the stamps do not tell."""
        self.flag = 0
        gap, usual = frame.time_s - self._time_s, self.usual_s
        if math.isfinite(frame.time_s):
            self._time_s = frame.time_s
        if gap < 0:
            self.flag = int(Flag.CLOCK_STEP)
        if not math.isfinite(gap) or gap <= 0:
            return usual
        self._intervals.append(gap)
        return gap
