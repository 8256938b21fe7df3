"""Laplacian of Gaussian, difference of Gaussians and determinant of Hessian as scikit-image has them, on frame or map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomid_live.evaluate.rivals.oracle import best, best_threshold
from atomid_live.evaluate.scenes.truth import SceneImage
from atomid_live.evaluate.scoring import Answer
from atomid_live.types import FloatArray

Image = NDArray[np.float64]
WIDTHS = (0.7, 1.0, 1.4)
_RATIO = 1.6


def _responses() -> dict[str, tuple[Callable[..., Any], Callable[[Image, float], Image]]]:
    """Function of scikit-image, and the response that its threshold is compared with."""
    from scipy.ndimage import gaussian_filter, gaussian_laplace
    from skimage.feature import blob_dog, blob_doh, blob_log, hessian_matrix_det

    return {
        "LoG": (blob_log, lambda image, s: -gaussian_laplace(image, s) * s**2),
        "DoG": (blob_dog, lambda image, s: (gaussian_filter(image, s) - gaussian_filter(image, s * _RATIO)) / (_RATIO - 1)),
        "DoH": (blob_doh, lambda image, s: hessian_matrix_det(image, s)),
    }


METHODS = ("LoG", "DoG", "DoH")


def _find(method: Callable[..., Any], image: Image, sigma_px: float, threshold: float, overlap: float) -> FloatArray:
    options: dict[str, Any] = {"min_sigma": sigma_px, "max_sigma": sigma_px, "threshold": threshold, "overlap": overlap}
    if method.__name__ != "blob_dog":
        options["num_sigma"] = 1
    found = method(image, **options)
    return np.asarray(found[:, :2], np.float64).reshape(-1, 2)


def _tallest(response: Image, scene: SceneImage) -> tuple[FloatArray, FloatArray]:
    """Local maxima of a response (N, 2) and their heights, the tallest ones only: more could never be right."""
    from skimage.feature import peak_local_max

    most = int(3 * (scene.truth.target | scene.truth.dont_care).sum()) + 100
    least = np.finfo(np.float32).eps
    # the functions under test look for maxima in just this way, borders included
    found = peak_local_max(response, threshold_abs=least, exclude_border=False, footprint=np.ones((3, 3)), num_peaks=most)
    return found.astype(np.float64), response[found[:, 0], found[:, 1]]


def _tries(name: str, image: Image, scene: SceneImage) -> Iterator[Answer]:
    """One answer per width, each at its best threshold, timed at those settings alone."""
    method, response = _responses()[name]
    for width in WIDTHS:
        sigma = width * scene.sigma_px
        every, height = _tallest(response(image, sigma), scene)
        if not len(every):
            yield Answer(every)
            continue
        threshold = best_threshold(every, height, scene)
        start = perf_counter()
        found = _find(method, image, sigma, threshold * (1 - 1e-9), 1.0)
        yield Answer(found, timings_ms={name: 1e3 * (perf_counter() - start)}, note=f"sigma {sigma:.2f} px, {threshold:.3g}")


def blobs(name: str, image: NDArray[Any], scene: SceneImage) -> Answer:
    """Blobs of an image of the scene's shape (its pixels, or a map of it) with the best width and threshold.

    Parameters
    ----------
    name : str
        "LoG", "DoG" or "DoH".
    image : ndarray, shape (rows, cols)
    scene : SceneImage
    """
    grey = np.asarray(image, np.float64)
    span = float(grey.max() - grey.min())
    scaled = (grey - grey.min()) / span if span > 0 else np.zeros_like(grey)
    chosen = best(_tries(name, scaled, scene), scene)
    return chosen if chosen is not None else Answer(np.empty((0, 2)))
