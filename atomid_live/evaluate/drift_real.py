"""The tracker on real frames: closure of direct registrations, a tracker that fails beside it, and paths known by cutting.

Nothing of the frames is kept but numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from atomid_live.drift.prepare import Preparer
from atomid_live.drift.register import register
from atomid_live.evaluate.drift_runs import UNSURE, Follower
from atomid_live.types import NAN, FloatArray, Frame, FrameMeta, Origin

LAGS = (1, 3, 8)
WINDOW = (448, 416)
STEPS = 24
DOSE_E = 12.0
LAG_REACH_PX = 6.0
# the file tells no times; a second a frame is what such films usually take
GRAPHENE_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class RealRow:
    """One series: what was done, and numbers by name."""

    name: str
    frames: int
    numbers: dict[str, float]


def frames_of(images: Sequence[NDArray[Any]], pixel_nm: float, interval_s: float = 10.0) -> list[Frame]:
    """Wrap images as frames taken at a steady pace."""
    return [
        Frame(
            k, image, 1.7e9 + interval_s * k, Origin("series"), "sender", 0.01,
            pixel_size_yx_nm=(pixel_nm, pixel_nm), scale_source="file", meta=FrameMeta(detector="HAADF"),
        )
        for k, image in enumerate(images)
    ]  # fmt: skip


def followed(frames: Sequence[Frame]) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Totals (N, 2), stated errors (N, 2) and whether each frame was unsure (N,)."""
    follower = Follower()
    estimates = [follower.update(frame) for frame in frames]
    totals = np.array([e.total_yx_px for e in estimates])
    sigmas = np.array([e.sigma_yx_px for e in estimates])
    return totals, sigmas, np.array([bool(e.flags & UNSURE) for e in estimates])


def closure(frames: Sequence[Frame], totals: FloatArray, sure: NDArray[np.bool_]) -> dict[str, float]:
    """Rms per axis, px, of the difference of totals minus a direct registration of the two frames, for each lag in `LAGS`.

    The direct one looks within a few pixels of what the totals say, so this tests the fine shift, not the lattice vector.
    """
    prepare = Preparer(frames[0].shape).prepare
    bin_px = Preparer(frames[0].shape).bin_px
    images = [prepare(frame.pixels).image.copy() for frame in frames]
    out = {}
    for lag in LAGS:
        misses = []
        for k in range(lag, len(frames)):
            if not (sure[k] and sure[k - lag]):
                continue
            expected = (totals[k] - totals[k - lag]) / bin_px
            got = register(images[k - lag], images[k], (float(expected[0]), float(expected[1])), LAG_REACH_PX)
            if got.quality > 0:
                misses.append((np.array(got.shift_yx_px) - expected) * bin_px)
        out[f"closure_{lag}_px"] = float(np.sqrt(np.mean(np.square(misses)))) if misses else NAN
    return out


def graphene(path: Path) -> RealRow:
    """48 frames with a bright Si atom that hops: ours beside a tracker that follows the brightest spot."""
    with np.load(path) as file:
        images = [np.asarray(image) for image in file["frames"]]
    frames = frames_of(images, 0.0078, GRAPHENE_INTERVAL_S)
    totals, _, unsure = followed(frames)
    bright = np.array([_brightest(image) for image in images], float)
    steps, other = np.diff(totals, axis=0), np.diff(bright, axis=0)
    both = ~unsure[1:] & ~unsure[:-1]
    cell_px = 0.246 / 0.0078
    apart = np.hypot(*(steps - other).T)[both]
    numbers = {
        "unsure_frames": float(unsure.sum()),
        "step_median_px": float(np.median(np.hypot(*steps[both].T))),
        "bright_step_median_px": float(np.median(np.hypot(*other.T))),
        "bright_wrong_share": float(np.mean(apart > cell_px / 4)),
        "agreement": _agreement(images, totals),
        "bright_agreement": _agreement(images, bright),
    }
    return RealRow("graphene with a hopping Si atom", len(frames), numbers | closure(frames, totals, ~unsure))


def _brightest(image: NDArray[Any]) -> tuple[int, int]:
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 4.0)
    y, x = divmod(int(smooth.argmax()), image.shape[1])
    return y, x


def _agreement(images: Sequence[NDArray[Any]], totals: FloatArray) -> float:
    """Mean correlation of each frame with the one before over what the totals say they share, to whole pixels.

    Clipped at the 95th percentile, so that one bright atom does not decide.
    """
    flat = [np.minimum(cv2.GaussianBlur(i.astype(np.float32), (0, 0), 2.0), np.quantile(i, 0.95)) for i in images]
    rows, cols = images[0].shape
    found = []
    for before, now, step in zip(flat[:-1], flat[1:], np.diff(totals, axis=0), strict=True):
        if not np.isfinite(step).all():
            continue
        dy, dx = (round(float(v)) for v in step)
        here = now[max(0, dy) : rows + min(0, dy), max(0, dx) : cols + min(0, dx)]
        there = before[max(0, -dy) : rows + min(0, -dy), max(0, -dx) : cols + min(0, -dx)]
        if min(here.shape) > 32:
            found.append(float(np.corrcoef(here.ravel(), there.ravel())[0, 1]))
    return float(np.mean(found)) if found else NAN


def abf_stack(path: Path) -> RealRow:
    """SrTiO3 ABF stack, inverted, against the published phase correlation (which is itself whole pixels or so)."""
    import h5py

    found: list[NDArray[Any]] = []
    with h5py.File(path) as file:
        file.visititems(lambda _, o: found.append(o[...]) if isinstance(o, h5py.Dataset) and o.ndim == 3 else None)
    images = [image.max() - image.astype(np.float32) for image in found[0]]
    frames = frames_of(images, 0.0092)
    totals, _, unsure = followed(frames)
    published = np.array([(0.0, 0.0), (0.2, 2.1), (-3.2, 1.9), (-6.2, 7.2), (-1.8, 6.4)])
    away = totals - published
    numbers = {"unsure_frames": float(unsure.sum()), "to_published_px": float(np.sqrt(np.mean(away[1:] ** 2)))}
    return RealRow("SrTiO3 ABF stack", len(frames), numbers | closure(frames, totals, np.ones(len(frames), bool)))


def _first_frame(path: Path) -> tuple[NDArray[Any], float]:
    from threading import Event

    from atomid_live.settings import FrameSettings, SourceSettings
    from atomid_live.sources.replay import ReplaySource

    source = ReplaySource([path], SourceSettings(), FrameSettings())
    frame = next(arrival for arrival in source.frames(itertools.count(), Event()) if isinstance(arrival, Frame))
    return frame.pixels, frame.pixel_size_yx_nm[1]


def moving_window(name: str, path: Path, seed: int) -> RealRow:
    """A window moved over a Spectra frame along a known sub-pixel path and made noisy again at a low dose.

    The frame is smoothed by 1 px first: its own noise would move with the window and tell the shift by itself.
    """
    from scipy.ndimage import map_coordinates, spline_filter

    image, pixel_nm = _first_frame(path)
    smooth = cv2.GaussianBlur(image.astype(np.float64), (0, 0), 1.0)
    low = float(np.quantile(smooth, 0.02))
    expected = np.maximum(smooth - low, 0) * (DOSE_E / (float(np.quantile(smooth, 0.98)) - low)) + 1.0
    rng = np.random.default_rng(seed)
    totals = np.cumsum(np.vstack([[0, 0], rng.normal((7.3, -5.1), 1.5, (STEPS - 1, 2))]), axis=0)
    sign = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)][seed % 4])
    totals = totals * sign
    start = (np.array(image.shape) - WINDOW) / 2 + (totals.max(axis=0) + totals.min(axis=0)) / 2
    coefficients = spline_filter(expected, order=5)
    y, x = np.mgrid[: WINDOW[0], : WINDOW[1]].astype(float)
    images = []
    for total in totals:
        seen = map_coordinates(coefficients, [y + start[0] - total[0], x + start[1] - total[1]], order=5, prefilter=False)
        images.append(rng.poisson(np.maximum(seen, 0)).astype(np.uint16))
    frames = frames_of(images, pixel_nm)
    found, sigmas, unsure = followed(frames)
    error = (found - totals)[1:][~unsure[1:]]
    right = np.abs(error).max(axis=1) < 3.0
    numbers = {
        "unsure_frames": float(unsure.sum()),
        "wrong_unflagged": float((~right).sum()),
        "rms_px": float(np.sqrt(np.mean(error[right] ** 2))) if right.any() else NAN,
        "rms_pm": float(np.sqrt(np.mean(error[right] ** 2))) * pixel_nm * 1e3 if right.any() else NAN,
        "z": float(np.sqrt(np.mean((error[right] / sigmas[1:][~unsure[1:]][right]) ** 2))) if right.any() else NAN,
    }
    return RealRow(name, len(frames), numbers | closure(frames, found, ~unsure))


def real_rows(folder: Path) -> list[RealRow]:
    """Every series that is there."""
    rows = []
    series, single = folder / "series", folder / "unlabelled"
    if (path := series / "graphene_si_hop_48frames.npz").is_file():
        rows.append(graphene(path))
    if (path := series / "srtio3_abf_5frames.hspy").is_file():
        rows.append(abf_stack(path))
    for name in ("spectra_twin_boundary", "spectra_ws2"):
        if (path := single / f"{name}.emd").is_file():
            for seed in range(4):
                sign = ("+ +", "+ -", "- +", "- -")[seed]
                rows.append(moving_window(f"window over {name}, signs {sign}", path, seed))
    return rows
