"""Sessions as displays see them: a drifting, straining specimen of known numbers, and a source that hands out snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from atomid_live.flags import Flag
from atomid_live.sinks.view import History, Snapshot
from atomid_live.types import (
    Detections,
    DriftEstimate,
    FrameState,
    Origin,
    Reading,
    Refused,
    Result,
    SessionStatus,
    SourceStatus,
    StrainField,
    Summary,
)

ROWS, COLS = 900, 1200
SPACING_PX = 25.6
PIXEL_NM = 0.0124
FRAME_S = 2.0
DRIFT_YX_PX = (-0.8, 1.5)
START_S = 1_763_842_500.0


class FixedClock:
    """A clock that stands 754 s after the start, until it is moved."""

    def __init__(self) -> None:
        self.seconds = START_S + 754.0

    def time_ns(self) -> int:
        return int(self.seconds * 1e9)

    def monotonic(self) -> float:
        return self.seconds


def columns(strain: float = 0.0) -> tuple[Detections, StrainField]:
    """Return a tilted square lattice with a smooth strain field of that amplitude, and 20 columns without strain."""
    half = int(max(ROWS, COLS) / SPACING_PX)
    i, j = np.mgrid[-half:half, -half:half].reshape(2, -1)
    cos, sin = np.cos(0.21), np.sin(0.21)
    yx = np.stack([cos * i + sin * j, -sin * i + cos * j], axis=1) * SPACING_PX + (ROWS / 2, COLS / 2)
    yx = yx[((yx > 8) & (yx < (ROWS - 8, COLS - 8))).all(axis=1)]
    yx = yx[np.lexsort((yx[:, 1], yx[:, 0]))]
    n = len(yx)
    field = strain * np.sin(yx[:, 1] / 190) * np.cos(yx[:, 0] / 230)
    field[::90] = np.nan
    zero = np.zeros(n, np.int64)
    score = 0.5 + 0.5 * np.exp(-(((yx - (ROWS / 2, COLS / 2)) / 500) ** 2).sum(axis=1))
    sigma = np.full((n, 2), 0.05)
    found = Detections(yx, score, sigma, np.full(n, 300.0), zero, SPACING_PX, 4.1)
    strained = StrainField(
        field, 1.2 * field, 0.1 * field, 20 * field, np.full(n, 1e-3), zero, "first:5", 0.5, 0.5 / PIXEL_NM, True, ""
    )
    return found, strained


def pixels(found: Detections, seed: int = 3) -> np.ndarray:
    """Return counts with a Gaussian on every column and Poisson noise."""
    image = np.zeros((ROWS, COLS), np.float32)
    span = np.arange(-10, 11)
    for y, x in found.yx_px:
        rows, cols = round(y) + span, round(x) + span
        rows, cols = rows[(rows >= 0) & (rows < ROWS)], cols[(cols >= 0) & (cols < COLS)]
        image[np.ix_(rows, cols)] += np.outer(np.exp(-((rows - y) ** 2) / 34), np.exp(-((cols - x) ** 2) / 34))
    return np.random.default_rng(seed).poisson(20 + 180 * image).astype(np.uint16)


def reading(mean: float, frame: int) -> Reading:
    """Return a strain reading in which the reference is pending for five frames."""
    if frame < 5:
        return Reading(reason=f"reference: {frame + 1} of 5 frames", reference="first:5", flags=int(Flag.REFERENCE_PENDING))
    wobble = 1e-4 * np.sin(frame * 1.7)
    strain = {
        "exx": Summary(0.9 * mean, 2e-3, 2e-4),
        "eyy": Summary(1.1 * mean, 2e-3, 2e-4),
        "exy": Summary(-0.1 * mean, 1e-3, 1e-4),
        "rotation_mrad": Summary(1.25, 0.8, 0.05),
        "hydrostatic": Summary(mean + wobble, 1.4e-3, 3e-4),
    }
    gpa = {"exx": Summary(0.92 * mean), "eyy": Summary(1.07 * mean)}
    return Reading(strain, gpa, slope_per_min={"hydrostatic": 4e-5}, valid=True, reason="", reference="first:5", window_nm=0.5)


def result(frame: int, strain: float = 0.0012, calibrated: bool = True, found: Detections | None = None) -> Result:
    """Return frame number `frame` of a specimen that drifts by `DRIFT_YX_PX` a frame with a slow curve."""
    detections, field = columns(strain)
    dy, dx = DRIFT_YX_PX
    total = (dy * frame, dx * frame + 6 * np.sin(frame / 9))
    size = (PIXEL_NM, PIXEL_NM) if calibrated else (np.nan, np.nan)
    per_s = (dy / FRAME_S, (dx + 6 / 9 * np.cos(frame / 9)) / FRAME_S)
    drift = DriftEstimate(
        step_yx_px=DRIFT_YX_PX,
        total_yx_px=total,
        sigma_yx_px=(0.04, 0.05),
        velocity_yx_nm_min=(60 * per_s[0] * size[0], 60 * per_s[1] * size[1]),
        sigma_velocity_nm_min=0.05 * size[0] / PIXEL_NM,
        velocity_yx_px_s=per_s,
        quality=0.93,
        reference_sequence=0,
    )
    detections = detections if found is None else found
    return Result(
        sequence=frame,
        shape=(ROWS, COLS),
        time_s=START_S + FRAME_S * frame,
        time_source="sender",
        origin=Origin(f"/data/tracking session/HAADF {frame:04d}.emd", "a1b2", frame, "", ""),
        detections=detections,
        pixel_size_yx_nm=size,
        scale_source="file" if calibrated else "unknown",
        segment_reason="first frame" if frame == 0 else "",
        drift=drift,
        strain=field if len(detections) == len(field.exx) else StrainField.none_for(len(detections), "no columns"),
        reading=reading(strain, frame),
        timings_ms={"detect": 21.0, "drift": 3.5, "process": 31.0},
        flags=0 if calibrated else int(Flag.UNCALIBRATED),
    )


def status(processed: int, **changes: object) -> SessionStatus:
    """Return the state of a healthy session after that many frames."""
    healthy = SessionStatus(
        received=processed + 2,
        counts={"processed": processed, "dropped": 0, "skipped": 1, "failed": 0, "quarantined": 1},
        source=SourceStatus(name="folder /data/tracking session", mode="events + rescan"),
        latency_p50_ms=31.2,
        latency_p95_ms=38.4,
        latency_p99_ms=44.0,
        age_s=0.4,
        frames_per_s=0.5,
        recording=True,
        disk_free_bytes=412_000_000_000,
        session_dir="/data/sessions/20261122T201501Z",
        model="dog",
        started_ns=int(START_S * 1e9),
    )
    return replace(healthy, **changes)  # type: ignore[arg-type]


def refused(frame: int, reason: str = "truncated: 1.2 of 3.4 MB") -> Refused:
    """Return a quarantined file."""
    return Refused(frame, FrameState.QUARANTINED, reason, Origin(f"/data/bad {frame}.emd"), START_S)


def history(frames: int = 120, **how: object) -> History:
    """Return the memory of a session of that many frames; `how` goes to `result`."""
    memory = History()
    for frame in range(frames):
        memory.add(result(frame, **how), latency_ms=30.0 + frame % 5)  # type: ignore[arg-type]
    return memory


def snapshot(frames: int = 120, picture: bool = False, **how: object) -> Snapshot:
    """Return what a display sees after that many frames."""
    memory = history(frames, **how)
    if picture:
        newest = result(frames, **how)  # type: ignore[arg-type]
        memory.add(newest, pixels(newest.detections), 31.0)
    return memory.snapshot(status(frames), preview=picture)


class ScriptedSource:
    """Hands out snapshots one after the other; the last one is repeated, of a session that has ended."""

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self.snapshots = list(snapshots)
        self.asked = 0

    def snapshot(self, *, preview: bool = False) -> Snapshot:
        self.asked += 1
        if self.asked < len(self.snapshots):
            return self.snapshots[self.asked - 1]
        last = self.snapshots[-1]
        return replace(last, status=replace(last.status, running=False))
