"""How far labels made by the thesis's annotation protocol lie from the truth: a simulated group of ten frames of one region.

The protocol, in our words: ten frames of one region at varied current and defocus are aligned by cross-correlation; the best
is annotated by FindFoci, its points are refined by a Gaussian fit each, and the labels are carried to the other nine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from atomid_live.detect.refine import refine
from atomid_live.evaluate.metrics import eligible, match
from atomid_live.evaluate.rivals.findfoci import findfoci_best
from atomid_live.evaluate.scenes.expose import Conditions, photograph
from atomid_live.evaluate.scenes.layout import Layout, bright_only, crystal_layout
from atomid_live.evaluate.scenes.optics import Aberrations
from atomid_live.evaluate.scenes.recipes import RES2_PX_NM
from atomid_live.evaluate.scenes.truth import SceneImage
from atomid_live.evaluate.scoring import HALF, QUARTER, counts_at, site_bias, spacing_of
from atomid_live.simulate.crystals import crystal_named
from atomid_live.types import FloatArray

FRAMES, SHAPE, SEED = 10, (496, 528), 90_000
WALK_PX = 9.0


@dataclass(frozen=True, slots=True)
class LabelError:
    """Labels of one frame of a group against its truth; px unless a name says otherwise.

    `shift_error` is the length of what the alignment is off, `rms` the error per axis of labels within a quarter of the
    spacing, `site_bias` the part of it that is the same for all columns of a site, `cd_floor` the chamfer distance that a
    perfect detector would be told it has.
    """

    frame: int
    dose: float
    defocus_nm: float
    annotated: bool
    f1: float
    f1_quarter: float
    rms_px: float
    site_bias_px: float
    cd_floor_px: float
    shift_error_px: float


def _moved(layout: Layout, shift_yx: FloatArray) -> Layout:
    return replace(layout, columns=replace(layout.columns, yx_px=layout.columns.yx_px + shift_yx))


def group(seed: int = SEED, crystal: str = "res2") -> tuple[list[SceneImage], list[Conditions], FloatArray]:
    """Ten frames of one region, their conditions, and where each has drifted to, shape (10, 2) in px (row, column)."""
    rng = np.random.Generator(np.random.PCG64(seed))
    layout = bright_only(crystal_layout(rng, crystal_named(crystal), SHAPE, RES2_PX_NM))
    shift = np.cumsum(rng.normal(0.0, WALK_PX / 2, (FRAMES, 2)), axis=0)
    shift -= shift[0]
    images, conditions = [], []
    for number in range(FRAMES):
        focus = Aberrations(float(rng.uniform(-5.0, 5.0)) if number else 0.0)
        dose = float(rng.uniform(10.0, 20.0)) / 15.0 * float(np.exp(rng.uniform(np.log(0.3), 0.0)))
        c = Conditions(RES2_PX_NM, dose=dose, detector_e=9.0, aberrations=focus, bits=8)
        name = ("protocol", crystal, seed + number)
        images.append(photograph(rng, _moved(layout, shift[number]), c, SHAPE, name))
        conditions.append(c)
    return images, conditions, shift


def correlation_shift(image: NDArray[np.generic], reference: NDArray[np.generic]) -> FloatArray:
    """Shift (row, column) in px of `image` against `reference`, at the maximum of their cross-correlation, by parabolas."""
    a, b = (np.asarray(each, np.float64) for each in (image, reference))
    taper = np.hanning(a.shape[0])[:, None] * np.hanning(a.shape[1])
    a, b = (a - a.mean()) * taper, (b - b.mean()) * taper
    score = fft.irfft2(fft.rfft2(a) * np.conj(fft.rfft2(b)), s=a.shape)
    peak = np.unravel_index(int(np.argmax(score)), score.shape)
    out = []
    for axis in (0, 1):
        line = np.take(score, peak[1 - axis], 1 - axis)
        before, top, after = (float(line[(peak[axis] + step) % len(line)]) for step in (-1, 0, 1))
        place = peak[axis] + 0.5 * (before - after) / (before + after - 2 * top)
        out.append(place - len(line) * (place > len(line) / 2))
    return np.array(out)


def best_frame(images: list[SceneImage], conditions: list[Conditions]) -> int:
    """Number of the frame a person would take: the highest dose among those within 2 nm of focus."""
    sharp = [n for n, c in enumerate(conditions) if c.aberrations is not None and abs(c.aberrations.defocus_nm) <= 2.0]
    return max(sharp or range(len(images)), key=lambda n: conditions[n].dose)


def annotate(image: SceneImage) -> FloatArray:
    """Labels (N, 2) of one frame: FindFoci at its best parameters, then a Gaussian fit of each point, neighbours left in."""
    points = findfoci_best(image).yx_px
    return refine(np.asarray(image.pixels, np.float32), points, image.sigma_px, fit_width=False, subtract=False).yx_px


def label_errors(seed: int = SEED, crystal: str = "res2") -> list[LabelError]:
    """Run the protocol on a group and compare the labels of each frame with its truth."""
    images, conditions, true_shift = group(seed, crystal)
    best = best_frame(images, conditions)
    labels = annotate(images[best])
    told = []
    for number, (image, c) in enumerate(zip(images, conditions, strict=True)):
        shift = np.zeros(2) if number == best else correlation_shift(image.pixels, images[best].pixels)
        wrong = float(np.hypot(*(shift - (true_shift[number] - true_shift[best]))))
        told.append(_compare(image, c, labels + shift, number, number == best, wrong))
    return told


def _compare(image: SceneImage, c: Conditions, labels: FloatArray, number: int, annotated: bool, wrong: float) -> LabelError:
    d, (rows, cols) = spacing_of(image), image.pixels.shape
    # columns that have come into view since the annotated frame have no label and are not counted
    border = 3.0 * WALK_PX
    said = labels[eligible(labels, (cols, rows), border, ())]
    wanted = image.truth.target & eligible(image.truth.yx_px, (cols, rows), border, ())
    truth = image.truth.yx_px[wanted]
    i, j = match(said, truth, QUARTER * d)
    error = said[i] - truth[j]
    assert c.aberrations is not None
    dont_care = image.truth.yx_px[image.truth.dont_care]
    half, quarter = (counts_at(said, truth, dont_care, part * d, image.sigma_px).f1 for part in (HALF, QUARTER))
    return LabelError(
        number, c.dose, c.aberrations.defocus_nm, annotated, half, quarter,
        float(np.sqrt(np.mean(error**2))) if len(i) else float("nan"), site_bias(error, image.truth.site[wanted][j]),
        2.0 * float(np.hypot(*error.T).mean()) if len(i) else float("nan"), wrong,
    )  # fmt: skip
