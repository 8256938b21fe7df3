"""Our network's confidence map on the pixels of the frame, for decodes that are not ours."""

from __future__ import annotations

from time import perf_counter

import cv2
import numpy as np
from numpy.typing import NDArray

from atomid_live.detect.local_contrast import local_contrast
from atomid_live.detect.look import padded
from atomid_live.detect.normalise import prepare
from atomid_live.detect.resample import to_canonical
from atomid_live.detect.spacing import estimate_scale
from atomid_live.protocols import Network
from atomid_live.types import Frame


def frame_map(frame: Frame, network: Network) -> tuple[NDArray[np.float32] | None, float]:
    """Map of the frame's shape, values 0 to 1, and the ms it took with normalisation, scale and resampling.

    None when the frame gave no scale: then our detector does not ask the network either.
    """
    start = perf_counter()
    prepared = prepare(frame.pixels)
    scale = estimate_scale(prepared.image)
    if not scale.found:
        return None, 1e3 * (perf_counter() - start)
    canonical = to_canonical(prepared.image, scale.column_sigma_px)
    maps = network.infer(padded(local_contrast(canonical.image)))
    origin, unit = canonical.to_frame(np.array([[0.0, 0.0], [1.0, 1.0]]))
    step = unit - origin
    shift = 0.5 * (maps.stride - 1)
    # frame pixel -> canonical pixel -> map pixel
    y, x = ((((np.arange(n) - origin[axis]) / step[axis]) - shift) / maps.stride for axis, n in enumerate(prepared.image.shape))
    grid_x, grid_y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    large = cv2.remap(np.asarray(maps.confidence, np.float32), grid_x, grid_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(large, np.float32), 1e3 * (perf_counter() - start)
