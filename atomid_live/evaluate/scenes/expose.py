"""From a layout to an image with its truth: background, columns on the scan's path, noise, grey values, roles."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

from atomid_live.evaluate.scenes.layout import Layout
from atomid_live.evaluate.scenes.optics import Aberrations, defocused
from atomid_live.evaluate.scenes.truth import SceneImage, SceneTruth, in_crystal_bound, resolved, roles, visible_limit
from atomid_live.simulate.acquire import detectability
from atomid_live.simulate.crystals import cross_section_A2
from atomid_live.simulate.defects import adatoms
from atomid_live.simulate.imaging import (
    COLUMN_SIGMA_NM,
    FloatImage,
    as_scanned,
    electrons_per_column,
    electrons_per_pixel,
    render,
)
from atomid_live.simulate.noise import Camera, record, to_eight_bit
from atomid_live.simulate.scan import ScanErrors, ScanPath, scan_path
from atomid_live.simulate.support import contamination, random_field
from atomid_live.types import NAN, FloatArray

CURRENT_PA, DWELL_US = 15.0, 10.0
CARBON_PER_NM3 = 100.0
CLIPPED = 0.0025
GREY_PER_ELECTRON = 10.0


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a layout is imaged; lengths in nm unless they say px.

    Attributes
    ----------
    dose : float
        Relative to 15 pA and 10 us per pixel.
    beam_share, detector_e : float
        Background: a share of the beam's electrons, and electrons per pixel that do not depend on the dose.
    dirt, dirt_nm : float
        Contamination in units of the brightest column's height, and its correlation length.
    carbon_nm : float
        Thickness of amorphous carbon, atom by atom.
    noise_correlation_yx : (float, float)
        Of neighbouring pixels.
    bits : int
        8 (stretched as a display export does, 0.25 % clipped) or 16.
    least_d_prime : float
        Detectability from which a column is a target.
    """

    pixel_size_nm: float = 0.0124
    sigma_nm: float = COLUMN_SIGMA_NM
    dose: float = 1.0
    beam_share: float = 0.002
    detector_e: float = 0.0
    dirt: float = 0.0
    dirt_nm: float = 3.0
    carbon_nm: float = 0.0
    scan: ScanErrors = field(default_factory=ScanErrors)
    noise_correlation_yx: tuple[float, float] = (0.0, 0.0)
    aberrations: Aberrations | None = None
    bits: int = 16
    least_d_prime: float = visible_limit()

    @property
    def sigma_px(self) -> float:
        """Width of a column in pixels."""
        return self.sigma_nm / self.pixel_size_nm

    @property
    def background_e(self) -> float:
        """Flat background in electrons per pixel."""
        return self.beam_share * electrons_per_pixel(CURRENT_PA, DWELL_US) * self.dose + self.detector_e

    def electrons(self, section_A2: FloatArray) -> FloatArray:
        """Expected electrons of columns of these cross-sections in square angstrom, shape (N,)."""
        pair = (self.pixel_size_nm, self.pixel_size_nm)
        return np.asarray(self.dose * electrons_per_column(section_A2, pair, CURRENT_PA, DWELL_US))


@dataclass(frozen=True, slots=True, eq=False)
class Exposure:
    """Expected electrons per pixel (rows, cols), the part of it that is no column, and where columns are seen (N, 2)."""

    expected: FloatImage
    background: FloatImage
    seen_yx_px: FloatArray


def column_height(electrons: FloatArray | float, sigma_px: float) -> FloatArray:
    """Peak electrons per pixel of Gaussian columns."""
    return np.asarray(np.asarray(electrons) / (2 * np.pi * sigma_px**2))


def _background(rng: np.random.Generator, shape: tuple[int, int], c: Conditions, tallest_e: float) -> FloatImage:
    image = np.full(shape, c.background_e, np.float32)
    if c.dirt > 0:
        # half a standard deviation is cut off, and what is left of a field reaches about 2
        strength = c.dirt * tallest_e / 2.0
        image += contamination(rng, shape, c.dirt_nm / c.pixel_size_nm, strength, 0.5)
    if c.carbon_nm > 0:
        area = (shape[0] + 60) * (shape[1] + 60) * c.pixel_size_nm**2
        atoms = adatoms(rng, int(CARBON_PER_NM3 * c.carbon_nm * area), shape, cross_section_A2("C"), 30.0)
        render(atoms.yx_px, c.electrons(atoms.cross_section_A2), c.sigma_px, shape, out=image)
    return image


def expose(rng: np.random.Generator, layout: Layout, c: Conditions, shape: tuple[int, int]) -> Exposure:
    """Image a layout without noise."""
    electrons = c.electrons(layout.columns.cross_section_A2)
    tallest = float(column_height(electrons, c.sigma_px).max(initial=1.0))
    background = _background(rng, shape, c, tallest)
    path = scan_path(rng, shape[0], c.scan)
    if c.aberrations is not None:
        return _aberrated(layout, c, shape, background, electrons)
    expected = render(layout.columns.yx_px, electrons, c.sigma_px, shape, path, background.copy())
    return Exposure(expected, background, as_scanned(layout.columns.yx_px, c.sigma_px, path))


def _aberrated(
    layout: Layout, c: Conditions, shape: tuple[int, int], background: FloatImage, electrons: FloatArray
) -> Exposure:
    """Columns of the source's width on a larger image, blurred by the probe; a perfect scan."""
    margin = int(min(0.8 / c.pixel_size_nm, 56))
    large = (shape[0] + 2 * margin, shape[1] + 2 * margin)
    # In focus the probe of 21 mrad adds about 20 pm to the width; what is left is source and thermal motion.
    source_px = np.sqrt(c.sigma_nm**2 - 0.020**2) / c.pixel_size_nm
    sharp = render(layout.columns.yx_px + margin, electrons, float(source_px), large, ScanPath.straight(large[0]))
    assert c.aberrations is not None
    return Exposure(background + defocused(sharp, c.aberrations, c.pixel_size_nm, margin), background, layout.columns.yx_px)


def _shown(exposure: Exposure, c: Conditions, reach_px: float) -> FloatArray:
    """Detectability of each column as the blurred image shows it: 0 where there is no maximum within a quarter of the spacing.

    Height is the maximum above the lowest point within one spacing; noise is that of the electrons there.
    """
    image = exposure.expected
    near = maximum_filter(image, 2 * max(1, round(0.25 * reach_px)) + 1)
    far = maximum_filter(image, 2 * max(1, round(0.5 * reach_px)) + 1)
    low = minimum_filter(image, 2 * max(1, round(reach_px)) + 1)
    y = np.clip(np.rint(exposure.seen_yx_px[:, 0]).astype(int), 0, image.shape[0] - 1)
    x = np.clip(np.rint(exposure.seen_yx_px[:, 1]).astype(int), 0, image.shape[1] - 1)
    height = (near - low)[y, x].astype(np.float64)
    noise = np.sqrt(0.5 * height + low[y, x])
    return np.asarray(np.where(near[y, x] >= far[y, x] * 0.999, height * np.sqrt(np.pi) * c.sigma_px / noise, 0.0))


def _on(yx_px: FloatArray, shape: tuple[int, int]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    y, x = yx_px.T
    return np.asarray((y >= 0) & (x >= 0) & (y <= shape[0] - 1) & (x <= shape[1] - 1))


def _read(image: FloatImage, yx_px: FloatArray) -> FloatArray:
    y = np.clip(np.rint(yx_px[:, 0]).astype(int), 0, image.shape[0] - 1)
    x = np.clip(np.rint(yx_px[:, 1]).astype(int), 0, image.shape[1] - 1)
    return np.asarray(image[y, x], np.float64)


def truth_of(layout: Layout, exposure: Exposure, c: Conditions, shape: tuple[int, int]) -> SceneTruth:
    """Assemble the truth of an exposure; columns outside the image take part in the overlaps and are then left out."""
    electrons = c.electrons(layout.columns.cross_section_A2)
    background = _read(exposure.background, exposure.seen_yx_px)
    d_prime = detectability(electrons, c.sigma_px, 0.0) if not len(electrons) else _local(electrons, c, background)
    places, swallowed, vague = resolved(exposure.seen_yx_px, electrons, c.sigma_px)
    if c.aberrations is not None and len(electrons):
        from atomid_live.evaluate.metrics import mean_spacing

        bright = electrons >= 0.5 * electrons.max()
        d_prime = np.minimum(d_prime, _shown(exposure, c, mean_spacing(places[bright])))
    target, dont_care = roles(d_prime, swallowed, vague, layout.asked, c.least_d_prime)
    if c.aberrations is not None:
        target &= d_prime >= c.least_d_prime
        dont_care |= ~target
    bound = in_crystal_bound(exposure.seen_yx_px, electrons, d_prime, c.sigma_px, background, target)
    bound[vague] = NAN
    if c.aberrations is not None:
        bound[:] = NAN
    inside = _on(places, shape)
    groups, areas = dict(layout.groups), dict(layout.areas)
    if c.dirt > 0 and len(electrons):
        tallest = float(column_height(electrons, c.sigma_px).max())
        areas["contaminated"] = exposure.background - c.background_e > 0.25 * tallest
        groups["contaminated"] = _read(areas["contaminated"].astype(np.float32), exposure.seen_yx_px) > 0
    return SceneTruth(
        places[inside], layout.columns.yx_px[inside], layout.columns.site[inside], layout.element[inside], electrons[inside],
        d_prime[inside], bound[inside], target[inside], dont_care[inside],
        {group: members[inside] for group, members in groups.items()}, layout.vacancies_yx_px, areas, layout.periodic,
    )  # fmt: skip


def _local(electrons: FloatArray, c: Conditions, background_e: FloatArray) -> FloatArray:
    """Detectability over each column's own background."""
    height = column_height(electrons, c.sigma_px)
    return np.asarray(height * np.sqrt(np.pi) * c.sigma_px / np.sqrt(0.5 * height + background_e + 1e-9))


def digitise(rng: np.random.Generator, expected: FloatImage, c: Conditions) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Grey values of an expected image."""
    if c.bits == 8:
        return to_eight_bit(record(rng, expected, Camera(1.0, 0.0, 0.0, c.noise_correlation_yx, 0)), CLIPPED)
    return record(rng, expected, Camera(GREY_PER_ELECTRON, 100.0, 0.0, c.noise_correlation_yx, 16))


def photograph(
    rng: np.random.Generator, layout: Layout, c: Conditions, shape: tuple[int, int], name: tuple[str, str, int]
) -> SceneImage:
    """Image, noise and truth of a layout; `name` is (scene, variant, seed)."""
    exposure = expose(rng, layout, c, shape)
    pixels = digitise(rng, exposure.expected, c)
    return SceneImage(*name, pixels, c.pixel_size_nm, c.sigma_px, truth_of(layout, exposure, c, shape))


def coloured(
    rng: np.random.Generator, shape: tuple[int, int], c: Conditions, correlation_px: float, contrast: float
) -> FloatImage:
    """Flat expected image with a random texture of this correlation length and relative contrast."""
    flat = np.float32(max(c.background_e, 20.0))
    return np.asarray(np.maximum(flat * (1 + np.float32(contrast) * random_field(rng, shape, correlation_px)), 0), np.float32)


def with_areas(layout: Layout, areas: dict[str, np.ndarray[tuple[int, int], np.dtype[np.bool_]]]) -> Layout:
    """Add regions to a layout."""
    return replace(layout, areas={**layout.areas, **areas})
