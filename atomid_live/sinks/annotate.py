"""The frame with its columns, as people see it: contrast, a thin ring per column, and a strip of numbers underneath.

Pure functions from a frame and its result to an RGB picture; files, window and browser share them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from atomid_live.sinks.footer import draw_footer
from atomid_live.sinks.rings import stamp
from atomid_live.types import FloatArray, Frame, Result

Picture = NDArray[np.uint8]

_LEAST_SIDE_PX = 512
_SUBSAMPLE = 65536
_LOW, _HIGH = 0.3, 99.8
_RING_OF_SPACING, _LEAST_RADIUS, _MOST_RADIUS = 0.34, 1.6, 18.0
_NO_SPACING_RADIUS = 6.0

# Low score to high; 0.5 is where a detector is in two minds.
SCORE_ANCHORS = ((255, 64, 96), (255, 184, 56), (56, 226, 214))
# Compression blue, none near-white, tension red.
STRAIN_ANCHORS = ((44, 112, 255), (120, 176, 255), (246, 246, 240), (255, 148, 110), (244, 48, 52))
UNKNOWN_RGB = (150, 150, 150)


@dataclass(frozen=True, slots=True)
class Look:
    """How to draw.

    Attributes
    ----------
    component : str
        Strain component that colours the columns once strain is valid: exx, eyy, exy or hydrostatic; "score" for never.
    strain_range : float
        Strain at both ends of the colours; fixed, so that frames compare.
    max_side_px : int
        Larger frames are shrunk to this; 0 keeps them.
    """

    component: str = "hydrostatic"
    strain_range: float = 0.02
    max_side_px: int = 0


def ramp(anchors: tuple[tuple[int, int, int], ...]) -> NDArray[np.uint8]:
    """Return 256 colours, shape (256, 3) RGB, linear between equally spaced anchors."""
    at = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, np.arange(len(anchors)), [anchor[channel] for anchor in anchors]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def _limits(pixels: NDArray[Any]) -> tuple[float, float]:
    """Return the grey values shown black and white, from percentiles of a subsample."""
    step = max(1, math.isqrt(pixels.size // _SUBSAMPLE))
    sample = np.asarray(pixels[::step, ::step], dtype=np.float32).ravel()
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        return 0.0, 1.0
    low_at, high_at = (int(percent / 100 * (len(sample) - 1)) for percent in (_LOW, _HIGH))
    ordered = np.partition(sample, (low_at, high_at))
    low, high = float(ordered[low_at]), float(ordered[high_at])
    return (low, high) if high > low else (low, low + 1.0)


def grey(pixels: NDArray[Any]) -> Picture:
    """Return the frame as grey values 0 to 255, shape (rows, cols) uint8; NaN is black."""
    low, high = _limits(pixels)
    scaled = np.subtract(pixels, np.float32(low), dtype=np.float32, casting="unsafe")
    scaled *= np.float32(255 / (high - low))
    np.clip(scaled, 0, 255, out=scaled)
    return np.asarray(np.nan_to_num(scaled, copy=False, nan=0.0).astype(np.uint8))


def _scale_for(shape: tuple[int, int], max_side_px: int) -> float:
    longest = max(shape)
    if max_side_px and longest > max_side_px:
        return max_side_px / longest
    return float(math.ceil(_LEAST_SIDE_PX / longest)) if longest < _LEAST_SIDE_PX else 1.0


def _resized(image: Picture, scale: float) -> Picture:
    if scale == 1.0:
        return image
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA), dtype=np.uint8)


def preview(frame: Frame, max_side: int) -> Picture:
    """Return the bare frame in grey, shape (rows, cols) uint8, its longer side at most `max_side` pixels."""
    longest = max(frame.shape)
    step = max(1, longest // max_side) if max_side else 1
    if step > 2:  # far too large: thinning first is what makes a 4096 frame cheap, the rest is averaged
        return _resized(grey(frame.pixels[:: step // 2, :: step // 2]), min(1.0, max_side / math.ceil(longest / (step // 2))))
    return _resized(grey(frame.pixels), min(1.0, max_side / longest) if max_side else 1.0)


def ring_radius_px(spacing_px: float, scale: float) -> float:
    """Return a radius that surrounds a column without touching the next: a third of the spacing, within bounds."""
    radius = _RING_OF_SPACING * spacing_px * scale if math.isfinite(spacing_px) else _NO_SPACING_RADIUS
    return float(min(max(radius, _LEAST_RADIUS), _MOST_RADIUS))


def coloured_by(result: Result, look: Look) -> str:
    """Return what the colours mean in this frame: a strain component, or "score"."""
    usable = result.strain.valid and len(result.strain.exx) == len(result.detections)
    return look.component if usable and look.component != "score" else "score"


def colours(result: Result, look: Look) -> NDArray[np.uint8]:
    """Return the colour of each column, shape (N, 3) RGB; grey where the strain is unknown."""
    by = coloured_by(result, look)
    if by == "score":
        values: FloatArray = result.detections.score
        table = ramp(SCORE_ANCHORS)
    else:
        values = (getattr(result.strain, by) / look.strain_range + 1) / 2
        table = ramp(STRAIN_ANCHORS)
    known = np.isfinite(values)
    out: NDArray[np.uint8] = table[np.clip(np.where(known, values, 0.0) * 255, 0, 255).astype(np.intp)]
    out[~known] = UNKNOWN_RGB
    return out


def annotate(frame: Frame, result: Result, look: Look | None = None) -> Picture:
    """Draw a frame with its columns and its numbers.

    Parameters
    ----------
    frame : Frame
    result : Result
        Of the same frame.
    look : Look, optional

    Returns
    -------
    ndarray, shape (rows', cols', 3), uint8
        RGB; the frame on top, small frames enlarged by a whole factor, and the strip of numbers beneath it.
    """
    look = look or Look()
    scale = _scale_for(frame.shape, look.max_side_px)
    image = np.ascontiguousarray(np.repeat(_resized(grey(frame.pixels), scale)[:, :, None], 3, axis=2))
    centres = (result.detections.yx_px + 0.5) * scale - 0.5
    stamp(image, centres, colours(result, look), ring_radius_px(result.detections.spacing_px, scale))
    by = coloured_by(result, look)
    key = (ramp(SCORE_ANCHORS), "score", "0", "1") if by == "score" else _strain_key(by, look)
    return np.vstack([image, draw_footer(result, image.shape[1], scale, key)])


def _strain_key(component: str, look: Look) -> tuple[NDArray[np.uint8], str, str, str]:
    percent = f"{look.strain_range * 100:g} %"
    return ramp(STRAIN_ANCHORS), component, f"-{percent}", f"+{percent}"


def encode_png(picture: Picture) -> bytes:
    """Return an RGB or grey picture as PNG, compressed lightly because speed is what counts here."""
    return _encode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def encode_jpeg(picture: Picture, quality: int = 80) -> bytes:
    """Return an RGB or grey picture as JPEG."""
    return _encode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])


def _encode(kind: str, picture: Picture, options: list[int]) -> bytes:
    good, data = cv2.imencode(kind, picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    if not good:
        raise ValueError(f"a picture of shape {picture.shape} could not be encoded as {kind}")
    return bytes(data.tobytes())
