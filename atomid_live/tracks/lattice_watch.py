"""Steps of the lattice parameters, and changes of grain: what happens to the frame as a whole."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from atomid_live.calibration import is_calibrated
from atomid_live.flags import Flag
from atomid_live.types import DriftEstimate, Event, FloatArray, Frame, Lattice, Reading

HISTORY = 12
LEAST_BEFORE = 8
STEP_SIGMAS = 7.0
LEAST_STEP = 5e-4
EVEN = 0.6
SAME_LATTICE = 0.1
GRAIN_TURN_DEG = 0.5
NAMES = ("exx", "eyy", "exy", "rotation")
FLOOR = 2e-5
WORDS = {"one": "one lattice", "several": "more than one lattice", "none": "no lattice"}


@dataclass(frozen=True, slots=True)
class _Sample:
    """One frame's lattice against the baseline's: exx, eyy, exy, rotation in rad, and the error that drift adds to each."""

    sequence: int
    time_s: float
    value: FloatArray
    drift_sigma: FloatArray


def _matrix(frame: Frame, lattice: Lattice) -> FloatArray:
    """Basis vectors as columns, rows (x, y), in pixels made square."""
    y_nm, x_nm = frame.pixel_size_yx_nm if is_calibrated(frame.pixel_size_yx_nm) else (1.0, 1.0)
    mean = float(np.sqrt(y_nm * x_nm))
    yx = np.array([lattice.a_yx_px, lattice.b_yx_px]).T * np.array([[y_nm / mean], [x_nm / mean]])
    return np.asarray(yx[::-1])


def deformation(now: FloatArray, before: FloatArray) -> FloatArray | None:
    """Gradient that carries one basis to another, whatever vectors were chosen; None when no small one does."""
    change = np.rint(np.linalg.solve(before, now))
    if abs(round(float(np.linalg.det(change)))) != 1:
        return None
    gradient = np.asarray(now @ np.linalg.inv(change) @ np.linalg.inv(before))
    return gradient if np.abs(gradient - np.eye(2)).max() <= SAME_LATTICE else None


class LatticeWatch:
    """Compares the newest frames' lattice with a straight line through those before; `update` gives the events.

    Parameters
    ----------
    confirm : int
        Frames that must agree.
    """

    def __init__(self, confirm: int) -> None:
        self._confirm = confirm
        self.reset()

    def reset(self) -> None:
        """Begin a segment."""
        self._base: FloatArray | None = None
        self._samples: deque[_Sample] = deque(maxlen=HISTORY + self._confirm)
        self._strange: list[tuple[int, float, FloatArray]] = []
        self._label = ""
        self._other: list[tuple[int, float, str]] = []
        self._last = -1

    def update(self, frame: Frame, lattice: Lattice, reading: Reading, drift: DriftEstimate) -> tuple[Event, ...]:
        """Take the next frame's lattice, its apparent strain by drift, and its drift."""
        events = [*self._label_change(frame, lattice)]
        if lattice.found:
            events += self._compare(frame, _matrix(frame, lattice), reading, drift)
        self._last = frame.sequence
        middle = ((frame.shape[0] - 1) / 2, (frame.shape[1] - 1) / 2)
        return tuple(replace(event, yx_px=middle, before_yx_px=middle) for event in events)

    def _label_change(self, frame: Frame, lattice: Lattice) -> list[Event]:
        several = bool(lattice.flags & Flag.SEVERAL_LATTICES)
        label = "several" if several else "one" if lattice.found else "none"
        if not self._label or label == self._label:
            self._label, self._other = label, []
            return []
        if self._other and self._other[0][2] != label:
            self._other = []
        self._other.append((frame.sequence, frame.time_s, label))
        if len(self._other) < self._confirm:
            return []
        (onset, time_s, _), before = self._other[0], self._label
        self._label, self._other = label, []
        note = f"{WORDS[before]} before, {WORDS[label]} now, in {self._confirm} frames running"
        return [Event("grain change", frame.sequence, onset, onset - 1, time_s, unit="deg", note=note)]

    def _compare(self, frame: Frame, matrix: FloatArray, reading: Reading, drift: DriftEstimate) -> list[Event]:
        if self._base is None:
            self._base = matrix
        gradient = deformation(matrix, self._base)
        if gradient is None:
            return self._another(frame, matrix)
        self._strange = []
        shear, stretch = (float(np.nan_to_num(v)) for v in (reading.drift_shear_exy, reading.drift_stretch_eyy))
        (xx, xy), (yx, yy) = gradient
        value = np.array([xx - 1, yy - 1 - stretch, (xy + yx) / 2 - shear, (yx - xy) / 2 + shear])
        step = np.nan_to_num(np.array(drift.step_yx_px)) / np.array(frame.shape[0])
        self._samples.append(_Sample(frame.sequence, frame.time_s, value, np.array([0.0, step[0], step[1] / 2, step[1] / 2])))
        return self._step(frame)

    def _another(self, frame: Frame, matrix: FloatArray) -> list[Event]:
        """A lattice that the baseline cannot be strained into: another grain or phase once it has stayed."""
        assert self._base is not None
        self._strange.append((frame.sequence, frame.time_s, matrix))
        if len(self._strange) < self._confirm:
            return []
        onset, time_s, _ = self._strange[0]
        note = f"lattice {_words(self._base)} before, {_words(matrix)} now"
        self._base, self._strange = matrix, []
        self._samples.clear()
        return [Event("grain change", frame.sequence, onset, onset - 1, time_s, unit="deg", note=note)]

    def _step(self, frame: Frame) -> list[Event]:
        before, newest = list(self._samples)[: -self._confirm], list(self._samples)[-self._confirm :]
        if len(before) < LEAST_BEFORE:
            return []
        offsets, error = _against_line(before, newest)
        mean = offsets.mean(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            even = (offsets / mean).min(axis=0) >= EVEN
        sure = even & (np.abs(mean) > STEP_SIGMAS * error) & (np.abs(mean) >= LEAST_STEP)
        if not sure.any():
            return []
        self._samples.clear()
        self._samples.extend(newest)
        onset = newest[0]
        turn, turn_sigma = float(np.degrees(mean[3])), float(np.degrees(error[3]))
        told = Event("lattice-parameter step", frame.sequence, onset.sequence, before[-1].sequence, onset.time_s)
        if sure[3] and abs(turn) >= GRAIN_TURN_DEG:
            note = f"lattice turned by {turn:+.2f} deg (positive clockwise)"
            return [
                replace(
                    told, kind="grain change", size=turn, size_sigma=turn_sigma, unit="deg",
                    significance=abs(turn) / turn_sigma, note=note,
                )
            ]  # fmt: skip
        if not sure[:3].any():
            return []
        worst = int(np.argmax(np.where(sure[:3], np.abs(mean[:3]) / error[:3], 0.0)))
        note = ", ".join(
            f"{name} {100 * m:+.3f} +- {100 * e:.3f} %" for name, m, e in zip(NAMES, mean[:3], error, strict=False)
        )
        size, sigma = float(mean[worst]), float(error[worst])
        return [replace(told, size=size, size_sigma=sigma, significance=abs(size) / sigma, note=note)]


def _words(matrix: FloatArray) -> str:
    a, b = np.hypot(*matrix)
    angle = np.degrees(np.arccos(matrix[:, 0] @ matrix[:, 1] / (a * b)))
    return f"{a:.1f} x {b:.1f} px, {angle:.1f} deg"


def _against_line(before: list[_Sample], newest: list[_Sample]) -> tuple[FloatArray, FloatArray]:
    """Offsets (m, 4) of the newest samples from the line through those before, and the error (4,) of their mean.

    The scatter of one frame comes from differences of successive frames; to it comes what an uneven drift may have bent.
    """
    at, later = np.array([s.sequence for s in before], float), np.array([s.sequence for s in newest], float)
    values, late = np.array([s.value for s in before]), np.array([s.value for s in newest])
    away, n = at - at.mean(), len(at)
    slope = away @ values / (away @ away)
    ahead = later - at.mean()
    offsets = late - values.mean(axis=0) - ahead[:, None] * slope
    rest = values - values.mean(axis=0) - away[:, None] * slope
    scatter = np.maximum(np.sqrt((rest**2).sum(axis=0) / max(n - 2, 1)), FLOOR)
    bent = np.std([s.drift_sigma for s in (*before, *newest)], axis=0)
    mean_ahead = ahead.mean()
    error = scatter * np.sqrt(1 / len(newest) + 1 / n + mean_ahead**2 / (away @ away))
    return np.asarray(offsets), np.asarray(np.hypot(error, bent))
