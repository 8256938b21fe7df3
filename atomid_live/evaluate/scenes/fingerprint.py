"""Scenes held still: a hash of every image, and a coarse picture of it for machines whose arithmetic differs slightly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from atomid_live.evaluate.scenes.truth import SceneImage

HASHES = Path(__file__).with_name("hashes.json")
CELLS = 4
GREY_TOLERANCE, PLACE_TOLERANCE_PX = 2e-3, 2e-3


def processor() -> str:
    """Name of the processor's kind: the same code and random numbers give the same bits on the same kind."""
    import llvmlite.binding as llvm  # type: ignore[import-untyped]

    return f"{llvm.get_host_cpu_name()}, numpy {np.__version__}"


@lru_cache(maxsize=1)
def _stored() -> Mapping[str, str]:
    """Hashes of the benchmark's images, or none when they were made on another kind of processor."""
    if not HASHES.is_file():
        return {}
    told = json.loads(HASHES.read_text(encoding="utf-8"))
    images: Mapping[str, str] = told["images"] if told["processor"] == processor() else {}
    return images


def verdict(image: SceneImage) -> str:
    """Tell whether an image of full size is the one stored: "same", "changed", or "unknown"."""
    stored = _stored().get(image.name)
    return "unknown" if stored is None else "same" if stored == image.sha256 else "changed"


def fingerprint(image: SceneImage) -> dict[str, Any]:
    """Hashes of pixels and of truth (positions to 1/100 px, and roles), and means that hardly change with rounding."""
    truth = image.truth
    places = np.round(truth.yx_px, 2).tobytes() + truth.target.tobytes() + truth.dont_care.tobytes()
    coarse = cv2.resize(image.pixels.astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    return {
        "sha256": image.sha256,
        "truth_sha256": hashlib.sha256(places).hexdigest(),
        "blocks": [round(float(v), 3) for v in coarse.ravel()],
        "columns": len(truth.yx_px),
        "targets": int(truth.target.sum()),
        "centre_yx_px": [round(float(v), 4) for v in truth.yx_px.mean(0)] if len(truth.yx_px) else [],
    }


def difference(found: Mapping[str, Any], stored: Mapping[str, Any], exact: bool) -> str:
    """What differs, in words; "" when the images are the same (to the bit when `exact`)."""
    if exact:
        for key in ("sha256", "truth_sha256"):
            if found[key] != stored[key]:
                return f"{key} is {found[key][:12]}, stored {stored[key][:12]}"
        return ""
    for key in ("columns", "targets"):
        if abs(found[key] - stored[key]) > 1:
            return f"{found[key]} {key}, stored {stored[key]}"
    if not np.allclose(found["blocks"], stored["blocks"], rtol=GREY_TOLERANCE, atol=0.01):
        return "mean grey values of blocks changed"
    if found["columns"] == stored["columns"] and not np.allclose(
        found["centre_yx_px"], stored["centre_yx_px"], atol=PLACE_TOLERANCE_PX
    ):
        return f"centre of all columns is {found['centre_yx_px']}, stored {stored['centre_yx_px']}"
    return ""
