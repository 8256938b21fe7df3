"""The table of the scale estimate's errors."""

from __future__ import annotations

import numpy as np
import pytest

from atomid_live.evaluate.scale import ScaleError, dose_for, error_line, measured, scene_errors
from atomid_live.evaluate.scenes import make_image, scene_named
from atomid_live.evaluate.scenes.expose import Conditions
from atomid_live.evaluate.scenes.recipes import plain


def test_a_clear_lattice_is_within_a_tenth():
    scene = scene_named("S02")
    one = measured(make_image(scene, scene.variants[0], 0, (288, 352), offset=10_000_000))
    assert one.kind == "lattice" and one.scene == "S02"
    assert one.ratio == pytest.approx(1.0, abs=0.1)


def test_empty_frames_give_no_scale():
    scene = scene_named("S15")
    image = make_image(scene, scene.variants[0], 0, (288, 352), offset=10_000_000)
    assert measured(image).kind == "none" and np.isnan(measured(image).ratio)


@pytest.mark.parametrize("d_prime", [1.5, 3.0])
def test_dose_gives_the_detectability_asked_for(d_prime):
    c = Conditions(0.0124, dose=dose_for("ws2", d_prime, 0.0124))
    image = plain(np.random.default_rng(1), (200, 220), ("test", "ws2", 1), crystal="ws2", c=c)
    assert np.median(image.truth.d_prime[image.truth.target]) == pytest.approx(d_prime, rel=0.1)


def test_line_counts_what_is_off_and_what_is_missing():
    errors = [ScaleError("S", "v", ratio, "lattice") for ratio in (1.0, 0.95, 1.3, float("nan"))]
    assert error_line("S", errors) == "| S | 4 | 1.00 (0.95 to 1.30) | 2 | 1 |"
    assert error_line("S", errors[3:]) == "| S | 1 | - | 0 | 1 |"


def test_images_that_ask_for_nothing_are_left_out():
    scene = scene_named("S05")
    kept = {one.variant for one in scene_errors(scene, 1)}
    assert "+2 nm" in kept and "+10 nm" not in kept
