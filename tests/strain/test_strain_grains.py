"""Several grains in one frame: each has its reference, its strain and its alarm; references by region; GPA place by place."""

from __future__ import annotations

import numpy as np
import pytest
from crystal_points import crystal, deform, seen
from strain_images import frame_of, render

from atomid_live.flags import Flag
from atomid_live.lattice import find_lattice
from atomid_live.settings import StrainSettings
from atomid_live.strain import StrainTracker
from atomid_live.strain.gpa import gpa
from atomid_live.types import DriftEstimate

SHAPE = (420, 520)
PX = 0.0125
BLANK = np.broadcast_to(np.uint8(0), SHAPE)


def two_grains(k, rng, left=None, right=None, turn=15, drift=(0.9, -1.4)):
    """Frame k of two grains that meet at x = 262 and strain apart; which columns are the left one's."""
    one, _ = crystal("hexagonal", SHAPE, PX, 3)
    two, _ = crystal("hexagonal", SHAPE, PX, 3 + turn)
    one, two = deform(one, SHAPE, **(left or {})), deform(two, SHAPE, **(right or {}))
    one, two = one[one[:, 1] < 257], two[two[:, 1] >= 267]
    points = np.concatenate([one, two]) + np.array(drift) * k
    detections, who = seen(points, SHAPE, 0.3, rng, 0.005)
    frame = frame_of(BLANK, (PX, PX), k, 2.0 * k)
    return (
        frame,
        detections,
        find_lattice(detections, SHAPE),
        DriftEstimate(total_yx_px=tuple(np.array(drift) * k)),
    ), who < len(one)


def test_each_grain_against_its_own_first_frames():
    tracker, rng = StrainTracker(StrainSettings(reference="first:4")), np.random.default_rng(0)
    alarms = []
    for k in range(14):
        strain = {"xx": 0.006} if k >= 9 else {}
        arrived, left = two_grains(k, rng, right=strain)
        field, reading = tracker.update(*arrived)
        alarms.append(reading.alarm)
    assert reading.valid and reading.flags & Flag.SEVERAL_LATTICES and "2 lattices" in reading.reason
    assert len(reading.grains) == 2
    numbers = [np.bincount(field.grain[mine & (field.grain >= 0)]).argmax() for mine in (left, ~left)]
    assert sorted(numbers) == [0, 1]
    by_number = {each.grain: each for each in reading.grains}
    still, strained = (by_number[number].strain["exx"] for number in numbers)
    assert still.mean == pytest.approx(0.0, abs=5 * still.sem)
    assert strained.mean == pytest.approx(0.006, abs=5 * strained.sem)
    assert np.nanmedian(field.exx[left]) == pytest.approx(0.0, abs=1e-3)
    assert np.nanmedian(field.exx[~left]) == pytest.approx(0.006, abs=1e-3)
    assert not any(alarms[:10]) and "exx +0." in alarms[-1]
    assert ("grain 1" in alarms[-1]) == (numbers[1] == 1)


def test_grains_against_a_material_and_against_the_frame():
    arrived, left = two_grains(0, np.random.default_rng(1), left={"xx": 0.01, "yy": 0.01})
    field, reading = StrainTracker(StrainSettings(reference="material:MoS2")).update(*arrived)
    offset = 0.316 / 0.3161 - 1
    hydrostatic = (field.exx + field.eyy) / 2
    assert reading.valid
    assert np.nanmedian(hydrostatic[left]) == pytest.approx(0.01 + offset, abs=6e-4)
    assert np.nanmedian(hydrostatic[~left]) == pytest.approx(offset, abs=6e-4)
    own, _ = StrainTracker(StrainSettings(reference="frame")).update(*arrived)
    assert np.nanmedian(own.exx[left]) == pytest.approx(0, abs=6e-4)


def test_layers_on_top_of_each_other_are_not_valid():
    one, _ = crystal("hexagonal", SHAPE, PX, 3)
    two, _ = crystal("hexagonal", SHAPE, PX, 15)
    detections, _ = seen(np.concatenate([one, two]), SHAPE, 0.3)
    frame = frame_of(BLANK, (PX, PX))
    _, reading = StrainTracker(StrainSettings(reference="frame")).update(
        frame, detections, find_lattice(detections, SHAPE), DriftEstimate()
    )
    assert not reading.valid and reading.reason


def half_strained(rng, step=0.02):
    """A square crystal that is `step` longer along x right of x = 260."""
    points, _ = crystal("square", (420, 780), PX, 0)
    x = points[:, 1]
    moved = points + np.stack([0 * x, step * np.maximum(x - 260, 0)], axis=1)
    return seen(moved, SHAPE, 0.15, rng)[0]


def test_region_as_reference():
    """A step of 2 % between substrate and film, read against the substrate: the film's full misfit, and its error."""
    detections = half_strained(np.random.default_rng(2))
    settings = StrainSettings(reference="region:0:230,0:419")
    arrived = frame_of(BLANK, (PX, PX)), detections, find_lattice(detections, SHAPE), DriftEstimate()
    field, reading = StrainTracker(settings).update(*arrived)
    film, substrate = (detections.yx_px[:, 1] > 380), (detections.yx_px[:, 1] < 140)
    assert reading.valid and reading.reference == "region:0:230,0:419"
    assert np.nanmedian(field.exx[film]) == pytest.approx(0.02, abs=6e-4)
    assert np.nanmedian(field.exx[substrate]) == pytest.approx(0.0, abs=4e-4)
    assert np.nanmedian(field.eyy[film]) == pytest.approx(0.0, abs=6e-4)
    _, nothing = StrainTracker(StrainSettings(reference="region:0:20,0:20")).update(*arrived)
    assert not nothing.valid and "at least 12" in nothing.reason


def test_a_region_is_watched():
    """Only the right half strains: its alarm comes from the region, and its number is the region's."""
    settings = StrainSettings(reference="first:5", watch_region="300:519,0:419")
    tracker, rng = StrainTracker(settings), np.random.default_rng(3)
    for k in range(14):
        detections = half_strained(rng, 0.005 if k > 9 else 0.0)
        still = DriftEstimate(total_yx_px=(0.0, 0.0))
        _, reading = tracker.update(frame_of(BLANK, (PX, PX), k, k), detections, find_lattice(detections, SHAPE), still)
        assert bool(reading.alarm) == (k > 10)
    assert reading.alarm.startswith("region: exx +0.4")


def _two_methods(points, brightness, settings, rng=None):
    detections, _ = seen(points, SHAPE, 0.05, rng)
    pixels = np.zeros(SHAPE)
    for value in np.unique(brightness):
        pixels += value * render(points[brightness == value], SHAPE, 4.0)
    lattice = find_lattice(detections, SHAPE)
    frame = frame_of(pixels, (PX, PX))
    return StrainTracker(settings).update(frame, detections, lattice, DriftEstimate(), gpa(frame, lattice, settings))


def test_agreement_of_two_methods_on_a_strain_that_varies():
    points, _ = crystal("square", SHAPE, PX, 5)
    x = points[:, 1] - 260
    bent = points + np.stack([0 * x, 2e-5 * x**2 / 2], axis=1)
    _, reading = _two_methods(bent, np.ones(len(points)), StrainSettings(reference="frame"))
    agreement = reading.agreement
    assert abs(agreement.bias) < 3e-4 and agreement.rms < 5e-4 and agreement.correlation > 0.95
    assert agreement.invalid < 0.1 and agreement.places > 30
    assert not reading.flags & (Flag.GPA_ARTEFACT | Flag.GPA_DISAGREES)


def test_a_change_of_motif_reads_as_strain_in_gpa_alone_and_is_marked():
    """The heavy and the light site change places half way (Peters 2015): no column moves, GPA sees a strained seam."""
    shape_nm = 0.39 / PX
    first, _ = crystal("square", SHAPE, PX, 0)
    second = first + np.array([0.5, 0.35]) * shape_nm
    points = np.concatenate([first, second])
    heavy = np.r_[np.ones(len(first), bool), np.zeros(len(second), bool)] ^ (points[:, 1] > 262)
    field, reading = _two_methods(points, np.where(heavy, 1.0, 0.2), StrainSettings(reference="frame"))
    assert reading.valid and reading.flags & Flag.GPA_ARTEFACT
    marked = (field.flags & Flag.GPA_ARTEFACT) != 0
    where = seen(points, SHAPE, 0.05)[0].yx_px[marked, 1]
    assert np.abs(where - 262).max() < 130 and len(where) > 5
    assert np.nanmax(np.abs(field.exx)) < 0.003
