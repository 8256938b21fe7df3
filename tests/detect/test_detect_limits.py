"""Pixel sizes that cannot be, and how far a frame is from what the network knows."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from lattice_frames import frame

from atomid_live.detect.dog import DogDetector
from atomid_live.detect.limits import OutOfRange, Trained, lattice_d_prime, out_of_range, pixel_size_contradiction
from atomid_live.detect.normalise import prepare
from atomid_live.detect.scale import Scale
from atomid_live.detect.spacing import estimate_scale
from atomid_live.evaluate.scenes import recipes
from atomid_live.evaluate.scenes.expose import Conditions
from atomid_live.flags import Flag
from atomid_live.pipeline import Pipeline
from atomid_live.settings import Settings
from atomid_live.types import Detections

SHAPE = (360, 400)
SEED = 10_000_300


def image_of(crystal, pixel_nm, dose, shape=SHAPE):
    rng = np.random.default_rng(SEED)
    return recipes.plain(rng, shape, ("test", crystal, SEED), crystal=crystal, c=Conditions(pixel_nm, dose=dose))


@pytest.fixture(scope="module")
def lattice_found():
    image = image_of("mos2", 0.0124, 1.0)
    return DogDetector().detect(frame(image.pixels, 0.0124))


def test_a_right_pixel_size_is_not_doubted(lattice_found):
    assert pixel_size_contradiction(lattice_found, (0.0124, 0.0124)) == ""
    assert pixel_size_contradiction(lattice_found, (0.0124 * 1.3, 0.0124 * 1.3)) == ""
    assert pixel_size_contradiction(lattice_found, (float("nan"), float("nan"))) == ""
    assert pixel_size_contradiction(Detections.empty(), (12.4, 12.4)) == ""


@pytest.mark.parametrize("slip", [1e-3, 0.1, 10.0, 1e3])
def test_slips_are_named_with_what_would_follow(lattice_found, slip):
    said = pixel_size_contradiction(lattice_found, (0.0124 * slip, 0.0124 * slip))
    assert "pm wide" in said and "25 to 200 pm" in said


def test_spacing_counts_for_lattices_alone():
    close = Detections(np.zeros((30, 2)), *(np.ones(30),) * 2, np.ones(30), np.zeros(30, np.int64), 5.0, 2.0)
    assert "0.07 nm apart" in pixel_size_contradiction(close, (0.014, 0.014))
    lone = replace(close, spacing_px=200.0)
    assert pixel_size_contradiction(lone, (0.03, 0.03)) == ""


def test_the_frame_is_flagged_and_the_reason_said_once(caplog):
    image = image_of("ws2", 0.0124, 1.0, (240, 260))
    pipeline = Pipeline(DogDetector(), Settings())
    with caplog.at_level(logging.WARNING, "atomid_live.pipeline"):
        results = [pipeline.process(replace(frame(image.pixels, 12.4), sequence=n)) for n in range(2)]
    assert all(one.flags & Flag.PIXEL_SIZE_ODD for one in results)
    assert sum("pm wide" in record.getMessage() for record in caplog.records) == 1
    right = Pipeline(DogDetector(), Settings()).process(frame(image.pixels, 0.0124))
    assert not right.flags & Flag.PIXEL_SIZE_ODD


@pytest.mark.parametrize(("crystal", "pixel_nm", "dose"), [
    ("mos2", 0.0124, 0.03), ("mos2", 0.0124, 0.1), ("mos2", 0.0248, 0.5), ("res2", 0.0131, 0.3), ("ws2", 0.018, 0.05),
    ("srtio3", 0.02, 0.01),
])  # fmt: skip
def test_detectability_is_read_from_the_noise_share(crystal, pixel_nm, dose):
    image = image_of(crystal, pixel_nm, dose, (496, 528))
    true = float(np.median(image.truth.d_prime[image.truth.target]))
    assert lattice_d_prime(estimate_scale(prepare(image.pixels).image)) == pytest.approx(true, rel=0.4)


def test_score_rises_as_the_dose_falls_and_crosses_one():
    high = np.full(200, 0.9)
    worst = []
    for dose in (3.0, 0.3, 0.05, 0.014):
        scale = estimate_scale(prepare(image_of("mos2", 0.0124, dose, (700, 720)).pixels).image)
        assert scale.kind == "lattice"
        worst.append(out_of_range(scale, (700, 720), high).dose)
    assert worst == sorted(worst)
    assert worst[0] < 0.3 and worst[-1] > 1.0


def test_each_number_is_one_at_its_border():
    scale = Scale(2.0, 10.0, 100.0, "lattice", 0.05, 9.0)
    known = np.full(50, 0.8)
    assert out_of_range(scale, (512, 512), known).worst < 1.0
    assert out_of_range(scale, (512, 512), known).reason == ""
    assert out_of_range(replace(scale, column_sigma_px=25.0, plane_px=110.0), (480, 512), known).scale > 1.0
    assert out_of_range(replace(scale, column_sigma_px=1.0), (480, 512), known).scale == pytest.approx(1.15)
    assert out_of_range(replace(scale, plane_px=24.0), (480, 512), known).scale == pytest.approx(24.0 / 22.0)
    low = out_of_range(scale, (512, 512), np.full(50, 0.1))
    assert low.texture == pytest.approx(1.5) and low.reason == "texture"
    # in noise low peaks are what the network gives and should give
    assert out_of_range(replace(scale, noise_fraction=0.6), (512, 512), np.full(50, 0.1)).texture == 0.0
    assert out_of_range(scale, (512, 512), np.empty(0)).texture > 100
    assert out_of_range(scale, (512, 512), known, Trained(least_d_prime=40.0)).reason == "dose"


def test_without_a_lattice_only_the_size_counts():
    assert out_of_range(Scale(), (512, 512), np.empty(0)) == OutOfRange()
    lone = Scale(2.5, 40.0, 30.0, "sparse")
    assert out_of_range(lone, (512, 512), np.empty(0)).worst < 1.0
    assert np.isnan(lattice_d_prime(lone))
