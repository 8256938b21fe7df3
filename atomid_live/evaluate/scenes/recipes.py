"""What each scene shows, as functions of random numbers and a shape; the catalogue gives them names and seeds."""

from __future__ import annotations

from dataclasses import replace
from math import radians

import numpy as np
from scipy.spatial import cKDTree

from atomid_live.evaluate.scenes.expose import Conditions, coloured, digitise, photograph, truth_of
from atomid_live.evaluate.scenes.expose import expose as expose_layout
from atomid_live.evaluate.scenes.layout import (
    Layout,
    bright_only,
    crystal_layout,
    joined,
    nowhere,
    pixel_grid,
    stacked,
)
from atomid_live.evaluate.scenes.optics import Aberrations
from atomid_live.evaluate.scenes.truth import SceneImage
from atomid_live.simulate.crystals import Crystal, cross_section_A2, crystal_named, make
from atomid_live.simulate.defects import adatoms
from atomid_live.simulate.scan import ScanErrors

Name = tuple[str, str, int]
Shape = tuple[int, int]
Rng = np.random.Generator

RES2_PX_NM, MOS2_PX_NM = 0.0131, 0.0124
ATOM_PX_NM = 0.0248


def _varied(rng: Rng, c: Conditions) -> Conditions:
    """Width of a column a little different from image to image, and 8 or 16 bits."""
    return replace(c, sigma_nm=c.sigma_nm * float(rng.uniform(0.93, 1.07)), bits=int(rng.choice([8, 16])))


def _material(name: str) -> Crystal:
    if name == "reo3":
        return make("reo3", 0.3748, 0.3748, 90.0, (("Re+O", 0.0, 0.0), ("O", 0.5, 0.0), ("O", 0.0, 0.5)), 8)
    return crystal_named(name)


def plain(rng: Rng, shape: Shape, name: Name, *, crystal: str, c: Conditions, metal: bool = True) -> SceneImage:
    """A perfect crystal; `metal` asks for its bright columns alone, at any dose."""
    c = _varied(rng, c)
    layout = crystal_layout(rng, _material(crystal), shape, c.pixel_size_nm)
    return photograph(rng, bright_only(layout) if metal else layout, c, shape, name)


def realistic(rng: Rng, shape: Shape, name: Name) -> SceneImage:
    """ReS2 as the real frames show it: background, 5 % shear, row jitter, contamination, correlated noise."""
    shear = np.eye(2) + rng.normal(0.0, 0.02, (2, 2)).clip(-0.05, 0.05)
    jitter = rng.uniform(8.0, 25.0, 2) / 1000 / RES2_PX_NM
    scan = ScanErrors((float(jitter[0]), float(jitter[1])), float(rng.uniform(3, 20)))
    c = Conditions(
        RES2_PX_NM, dose=float(rng.uniform(0.7, 1.3)), detector_e=float(rng.uniform(9, 14)), dirt=float(rng.uniform(0.2, 0.8)),
        scan=scan, noise_correlation_yx=(0.08, 0.13), bits=8,
    )  # fmt: skip
    layout = crystal_layout(rng, crystal_named("res2"), shape, RES2_PX_NM, shear)
    return photograph(rng, bright_only(layout), c, shape, name)


def contaminated(rng: Rng, shape: Shape, name: Name, *, dirt: float) -> SceneImage:
    """MoS2 under patches of contamination of `dirt` times the column height, grained like amorphous carbon."""
    c = _varied(rng, Conditions(MOS2_PX_NM, dirt=dirt, dirt_nm=float(rng.uniform(1, 4)), carbon_nm=dirt, detector_e=2.0))
    return photograph(rng, bright_only(crystal_layout(rng, crystal_named("mos2"), shape, MOS2_PX_NM)), c, shape, name)


def shaken(rng: Rng, shape: Shape, name: Name, *, jitter_px: float) -> SceneImage:
    """Row jitter, mains hum and fly-back."""
    scan = ScanErrors((jitter_px, jitter_px), 6.0, (0.3, 0.3), 50.0, 1e-5, 1.1e-5 * shape[1], 1.0, 20.0)
    return plain(rng, shape, name, crystal="mos2", c=Conditions(MOS2_PX_NM, scan=scan))


def _edged(rng: Rng, layout: Layout, shape: Shape, c: Conditions) -> Layout:
    """Cut an edge through the image and a hole into what is left; remember vacuum and rim."""
    angle = rng.uniform(0, 2 * np.pi)
    normal = np.array([np.sin(angle), np.cos(angle)])
    centre = (np.array(shape) - 1) / 2
    through = centre - normal * 0.22 * min(shape)
    hole = centre + normal * 0.12 * min(shape) + rng.uniform(-0.1, 0.1, 2) * min(shape)
    radius = 0.1 * min(shape) * float(rng.uniform(0.8, 1.4))

    def depth(yx: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.asarray(np.minimum((yx - through) @ normal, np.hypot(*(yx - hole).T) - radius))

    deep = depth(layout.columns.yx_px)
    kept = layout.take(deep >= 0)
    spacing = 0.316 / c.pixel_size_nm
    vacuum = (depth(pixel_grid(shape)) < -4 * c.sigma_px).reshape(shape)
    return replace(kept, groups={"edge": deep[deep >= 0] < spacing}, areas={"vacuum": vacuum})


def edge(rng: Rng, shape: Shape, name: Name, *, crystal: str) -> SceneImage:
    """A vacuum edge and a hole."""
    c = _varied(rng, Conditions(MOS2_PX_NM))
    layout = _edged(rng, crystal_layout(rng, crystal_named(crystal), shape, c.pixel_size_nm), shape, c)
    return photograph(rng, bright_only(layout), c, shape, name)


def vacant(rng: Rng, shape: Shape, name: Name, *, fraction: float) -> SceneImage:
    """MoS2 without a fraction of its metal columns."""
    c = _varied(rng, Conditions(MOS2_PX_NM))
    layout = bright_only(crystal_layout(rng, crystal_named("mos2"), shape, c.pixel_size_nm))
    assert layout.asked is not None
    gone = layout.asked & (rng.random(len(layout.columns)) < fraction)
    holes = layout.columns.yx_px[gone]
    kept = layout.take(~gone)
    if len(holes):
        near = cKDTree(holes).query(kept.columns.yx_px)[0] < 1.2 * 0.316 / c.pixel_size_nm
        kept = replace(kept, groups={"vacancy_neighbours": near})
    border = 0.5 * 0.316 / c.pixel_size_nm
    inside = np.all((holes > border) & (holes < np.array(shape) - 1 - border), axis=1)
    return photograph(rng, replace(kept, vacancies_yx_px=holes[inside]), c, shape, name)


def boundary(rng: Rng, shape: Shape, name: Name, *, angle_deg: float, crystal: str) -> SceneImage:
    """Two grains that meet in a straight line; columns too close to the other grain's are left out."""
    c = _varied(rng, Conditions(MOS2_PX_NM))
    angle = float(rng.uniform(0, 2 * np.pi))
    grains = [
        crystal_layout(rng, crystal_named(crystal), shape, c.pixel_size_nm, angle_rad=angle + radians(turn))
        for turn in (0.0, angle_deg)
    ]
    normal = np.array([np.sin(angle), np.cos(angle)])
    side = [(grain.columns.yx_px - (np.array(shape) - 1) / 2) @ normal for grain in grains]
    halves = [grains[0].take(side[0] >= 0), grains[1].take(side[1] < 0)]
    least = 0.62 * 0.316 / c.pixel_size_nm
    heavy = [half.columns.cross_section_A2 > 0.5 * half.columns.cross_section_A2.max() for half in halves]
    crowded = cKDTree(halves[0].columns.yx_px[heavy[0]]).query(halves[1].columns.yx_px)[0] < least
    layout = joined(halves[0], halves[1].take(~crowded))
    distance = np.abs((layout.columns.yx_px - (np.array(shape) - 1) / 2) @ normal)
    layout = replace(layout, groups={"boundary": distance < 1.0 / c.pixel_size_nm})
    return photograph(rng, bright_only(layout), c, shape, name)


def bilayer(rng: Rng, shape: Shape, name: Name, *, twist_deg: float, shift: tuple[float, float] = (0.0, 0.0)) -> SceneImage:
    """Two MoS2 layers, twisted, or shifted by fractions of the cell; every column of d' 4 and more is asked for."""
    c = replace(_varied(rng, Conditions(MOS2_PX_NM)), least_d_prime=4.0)
    crystal, angle = crystal_named("mos2"), float(rng.uniform(0, 2 * np.pi))
    lower = crystal_layout(rng, crystal, shape, c.pixel_size_nm, angle_rad=angle)
    upper = crystal_layout(rng, crystal, shape, c.pixel_size_nm, angle_rad=angle + radians(twist_deg))
    if not 0.1 < twist_deg % 60 < 59.9:
        first = np.flatnonzero(lower.columns.site == 0)
        anchor = first[np.argmin(np.hypot(*(lower.columns.yx_px[first] - np.array(shape) / 2).T))]
        second = np.flatnonzero(upper.columns.site == 0)
        nearest = second[np.argmin(np.hypot(*(upper.columns.yx_px[second] - lower.columns.yx_px[anchor]).T))]
        cell = _cell_vectors(lower)
        move = lower.columns.yx_px[anchor] - upper.columns.yx_px[nearest] + np.asarray(shift) @ cell
        upper = replace(upper, columns=replace(upper.columns, yx_px=upper.columns.yx_px + move))
    layout = stacked(joined(lower, upper), 0.35 * c.sigma_px)
    return photograph(rng, layout, c, shape, name)


def _cell_vectors(layout: Layout) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Cell vectors (2, 2), one per row, (row, column) in px, from the columns of site 0."""
    chosen = layout.columns.take(layout.columns.site == 0)
    design = np.column_stack([chosen.cell, np.ones(len(chosen))])
    return np.asarray(np.linalg.lstsq(design, chosen.yx_px, rcond=None)[0][:2])


def single_atoms(rng: Rng, shape: Shape, name: Name) -> SceneImage:
    """70 platinum atoms per 512 x 512 on amorphous carbon, d' 6 to 8."""
    c = Conditions(
        ATOM_PX_NM, dose=float(rng.uniform(0.75, 1.05)), detector_e=14.0, carbon_nm=3.0, bits=int(rng.choice([8, 16]))
    )
    count = round(70 * shape[0] * shape[1] / 512**2)
    atoms = adatoms(rng, count, shape, cross_section_A2("Pt"))
    layout = Layout(atoms, np.full(count, "Pt"), periodic=False)
    return photograph(rng, layout, c, shape, name)


def empty(rng: Rng, shape: Shape, name: Name, *, kind: str) -> SceneImage:
    """Nothing to find: vacuum, white or coloured noise and textures, amorphous carbon."""
    c = Conditions(ATOM_PX_NM, beam_share=0.0, bits=int(rng.choice([8, 16])))
    layout, correlation = nowhere(rng), 0.0
    if kind.startswith("vacuum"):
        return photograph(rng, layout, replace(c, detector_e=float(kind.split()[1])), shape, name)
    if kind.startswith("amorphous"):
        c = replace(c, detector_e=2.0, carbon_nm=float(kind.split()[1]), beam_share=0.002)
        return photograph(rng, layout, c, shape, name)
    c = replace(c, detector_e=20.0)
    correlation = float(kind.split()[1])
    exposure = expose_layout(rng, layout, c, shape)
    texture = coloured(rng, shape, c, correlation, 0.5)
    return SceneImage(*name, digitise(rng, texture, c), c.pixel_size_nm, c.sigma_px, truth_of(layout, exposure, c, shape))


def aberrated(
    rng: Rng, shape: Shape, name: Name, *, defocus: float = 0.0, astigmatism: float = 0.0, coma: float = 0.0
) -> SceneImage:
    """MoS2 out of focus, with twofold astigmatism or with coma, lengths in nm."""
    turned = float(rng.uniform(0, np.pi))
    c = replace(_varied(rng, Conditions(MOS2_PX_NM)), aberrations=Aberrations(defocus, astigmatism, turned, coma, turned))
    layout = crystal_layout(rng, crystal_named("mos2"), shape, MOS2_PX_NM)
    return photograph(rng, bright_only(layout), c, shape, name)


def uncertain(rng: Rng, shape: Shape, name: Name, *, crystal: str) -> SceneImage:
    """Any dose and background: for sigma and score."""
    c = Conditions(
        float(rng.uniform(0.011, 0.022)), dose=float(np.exp(rng.uniform(np.log(0.15), np.log(2.0)))),
        detector_e=float(rng.uniform(0, 14)),
    )  # fmt: skip
    return plain(rng, shape, name, crystal=crystal, c=c)
