"""Aligned mean of the last N frames, saved as 32-bit TIFF: what was drifting stands still, and each pixel has its error.

Frames enter only where their drift is known; each is moved by its total, so nothing is blurred. The mean is in the
coordinates of the newest frame. Drawn and written by one thread behind the session, under a name that appears only whole.
"""

from __future__ import annotations

import io
import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomid_live import __version__
from atomid_live.flags import Flag
from atomid_live.sinks.pictures import PictureWriter
from atomid_live.types import Frame, Result

FOLDER = "averages"
UNSURE = Flag.MODULO_LATTICE | Flag.DRIFT_POOR | Flag.DRIFT_LOST

FloatImage = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Average:
    """Mean of aligned frames.

    Attributes
    ----------
    mean, error : ndarray, shape (rows, cols), float32
        In the unit of the pixels, and its standard error per pixel from the scatter of the frames; NaN where no frame, or
        for the error only one, covers the pixel.
    frames : ndarray, shape (rows, cols), float32
        How many frames cover each pixel.
    """

    mean: FloatImage
    error: FloatImage
    frames: FloatImage


def aligned_average(frames: list[tuple[NDArray[Any], tuple[float, float]]]) -> Average:
    """Mean of frames in the coordinates of the last.

    Parameters
    ----------
    frames : list of (ndarray of shape (rows, cols), (float, float))
        Pixels and total drift (row, column) in px.
    """
    import cv2

    rows, cols = frames[-1][0].shape
    last = frames[-1][1]
    mean, square, count = (np.zeros((rows, cols), np.float64) for _ in range(3))
    for pixels, total in frames:
        y, x = total[0] - last[0], total[1] - last[1]
        # a feature at p in the last frame is at p + (total - last) in this one
        move = np.array([[1.0, 0.0, x], [0.0, 1.0, y]])
        how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        image = cv2.warpAffine(pixels.astype(np.float32), move, (cols, rows), flags=how, borderMode=cv2.BORDER_REPLICATE)
        inside = np.zeros((rows, cols), bool)
        inside[_covered(rows, y), _covered(cols, x)] = True
        count += inside
        away = np.where(inside, image - mean, 0.0)
        mean += away / np.maximum(count, 1)
        square += away * np.where(inside, image - mean, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(square / (count - 1) / count)
    error[count < 2] = np.nan
    mean[count < 1] = np.nan
    return Average(mean.astype(np.float32), error.astype(np.float32), count.astype(np.float32))


def _covered(size: int, shift: float) -> slice:
    """Pixels p for which p + shift lies on the frame, with one pixel to spare for the interpolation of a fraction."""
    spare = 0 if float(shift).is_integer() else 1
    return slice(max(0, math.ceil(-shift) + spare), max(0, min(size, math.floor(size - 1 - shift) + 1 - spare)))


def tiff_bytes(average: Average, pixel_size_yx_nm: tuple[float, float], label: str) -> bytes:
    """Three pages of 32-bit floats (mean, standard error, frames), with ImageJ's calibration where it is known."""
    import tifffile

    pages = np.stack([average.mean, average.error, average.frames])
    told: dict[str, Any] = {"axes": "ZYX", "Labels": ["mean", "standard error", "frames"], "Info": label}
    more: dict[str, Any] = {}
    if all(map(math.isfinite, pixel_size_yx_nm)):
        told["unit"] = "nm"
        more["resolution"] = (1 / pixel_size_yx_nm[1], 1 / pixel_size_yx_nm[0])
    out = io.BytesIO()
    tifffile.imwrite(out, pages, imagej=True, metadata=told, software=f"atomid-live {__version__}", **more)
    return out.getvalue()


class AverageSink:
    """Sink that saves the mean of each N frames whose drift is sure as ``averages/NNNNNN.tif``, named after the newest.

    Parameters
    ----------
    session : Path
        Session folder.
    frames : int
        N; a new segment begins a new count.
    lossless : bool
        Wait for the writer (a folder) rather than leave a mean out (a live stream).
    """

    def __init__(self, session: Path, frames: int, *, lossless: bool = False) -> None:
        self._folder, self._frames = session / FOLDER, frames
        self._kept: deque[tuple[NDArray[Any], tuple[float, float]]] = deque(maxlen=frames)
        self._segment = -1
        self._since = 0
        self._writer = PictureWriter(lossless=lossless, queue=1)

    def write(self, frame: Frame, result: Result) -> None:
        """Take a frame in; every N-th has its mean written."""
        if result.segment != self._segment:
            self._segment, self._since = result.segment, 0
            self._kept.clear()
        total = result.drift.total_yx_px
        if result.drift.flags & UNSURE or not math.isfinite(total[0] + total[1]):
            return
        self._kept.append((frame.pixels, total))
        self._since += 1
        if self._since < self._frames:
            return
        self._since = 0
        kept, size = list(self._kept), result.pixel_size_yx_nm
        label = f"mean of {len(kept)} aligned frames up to {result.sequence:06d}, segment {result.segment}"
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"{result.sequence:06d}.tif"
        self._writer.submit(path, lambda: tiff_bytes(aligned_average(kept), size, label))

    @property
    def problem(self) -> str:
        """Why the last mean could not be written, "" when it could."""
        return self._writer.problem

    def close(self) -> None:
        """Write what is handed over, and stop."""
        self._writer.close()
