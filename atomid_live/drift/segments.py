"""When a new segment begins: drift, strain reference and histories start anew, and say why."""

from __future__ import annotations

import math
from dataclasses import dataclass

from atomid_live.settings import DriftSettings
from atomid_live.types import Frame

FIRST = "first frame"
RELATIVE_TOLERANCE = 1e-4
ROTATION_TOLERANCE_RAD = 1e-3


@dataclass(frozen=True, slots=True)
class _View:
    """What must stay the same for two frames to be compared."""

    sequence: int
    shape: tuple[int, int]
    pixel_size_yx_nm: tuple[float, float]
    rotation_rad: float
    detector: str
    display_scaled: bool
    time_s: float


def _view(frame: Frame) -> _View:
    return _View(
        frame.sequence,
        frame.shape,
        frame.pixel_size_yx_nm,
        frame.meta.scan_rotation_rad,
        frame.meta.detector,
        frame.display_scaled,
        frame.time_s,
    )


def _known(pair: tuple[float, float]) -> bool:
    return math.isfinite(pair[0]) and math.isfinite(pair[1])


def _size_words(pair: tuple[float, float]) -> str:
    return f"{pair[1]:.6g} x {pair[0]:.6g} nm"


def _rotation_between(first_rad: float, second_rad: float) -> float:
    turn = (second_rad - first_rad) % (2 * math.pi)
    return min(turn, 2 * math.pi - turn)


class SegmentKeeper:
    """Compare each frame with the one before it.

    Parameters
    ----------
    settings : DriftSettings
        `max_gap_s` is the longest silence, in seconds, within a segment.
    """

    def __init__(self, settings: DriftSettings) -> None:
        self._max_gap_s = settings.max_gap_s
        self._before: _View | None = None
        self._segment = -1
        self._reason = ""

    def check(self, frame: Frame) -> tuple[int, str]:
        """Tell the frame's segment, from 0, and why it begins here; the reason is "" inside a segment.

        Asking twice for the same frame gives the same answer. A time that is unknown or runs backwards begins nothing.
        """
        now = _view(frame)
        if self._before is not None and self._before.sequence == now.sequence:
            return self._segment, self._reason
        self._reason = FIRST if self._before is None else self._difference(self._before, now)
        self._segment += bool(self._reason)
        self._before = now
        return self._segment, self._reason

    def _difference(self, before: _View, now: _View) -> str:
        if before.shape != now.shape:
            (rows, cols), (new_rows, new_cols) = before.shape, now.shape
            return f"size changed from {cols} x {rows} to {new_cols} x {new_rows} px (width x height)"
        if before.display_scaled != now.display_scaled:
            words = ("counts", "grey values made for the eye")
            return f"scale changed from {words[before.display_scaled]} to {words[now.display_scaled]}"
        if _known(before.pixel_size_yx_nm) != _known(now.pixel_size_yx_nm):
            return "pixel size became known" if _known(now.pixel_size_yx_nm) else "pixel size is no longer known"
        if _known(now.pixel_size_yx_nm) and not all(
            math.isclose(a, b, rel_tol=RELATIVE_TOLERANCE)
            for a, b in zip(before.pixel_size_yx_nm, now.pixel_size_yx_nm, strict=True)
        ):
            return (
                f"pixel size changed from {_size_words(before.pixel_size_yx_nm)} to {_size_words(now.pixel_size_yx_nm)} (x x y)"
            )
        if _rotation_between(before.rotation_rad, now.rotation_rad) > ROTATION_TOLERANCE_RAD:
            old, new = math.degrees(before.rotation_rad), math.degrees(now.rotation_rad)
            return f"scan rotation changed from {old:.2f} to {new:.2f} degrees"
        if before.detector != now.detector:
            return f"detector changed from {before.detector or 'unnamed'} to {now.detector or 'unnamed'}"
        gap_s = now.time_s - before.time_s
        if gap_s > self._max_gap_s:
            return f"gap of {gap_s:.0f} s since the frame before, more than the {self._max_gap_s:.0f} s allowed"
        return ""
