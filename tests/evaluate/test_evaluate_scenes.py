"""The scenes are what they say they are, and stay so."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from atomid_live.errors import UsageError
from atomid_live.evaluate.metrics import mean_spacing
from atomid_live.evaluate.scenes import SCENES, SceneImage, make_image, scene_named
from atomid_live.evaluate.scenes.bound import cluster_bound, isolated_bound
from atomid_live.evaluate.scenes.changed import CHANGES, turned
from atomid_live.evaluate.scenes.fingerprint import difference, fingerprint, processor
from atomid_live.evaluate.scenes.optics import Aberrations, transfer
from atomid_live.evaluate.scenes.truth import resolved, roles
from atomid_live.evaluate.suite import SECRET_OFFSET, Plan, planned

SHAPE = (288, 352)
STORED = json.loads((Path(__file__).parent / "scene_hashes.json").read_text(encoding="utf-8"))


def image(scene: str, number: int = 0, k: int = 0, **more: int) -> SceneImage:
    found = scene_named(scene)
    return make_image(found, found.variants[number], k, SHAPE, **more)


def test_every_scene_is_there_with_seeds_of_its_own() -> None:
    assert [scene.name for scene in SCENES] == [f"S{n:02d}" for n in range(1, 19)] + ["U1"]
    assert len({scene.number for scene in SCENES}) == len(SCENES)
    with pytest.raises(UsageError, match="S04"):
        scene_named("S99")


def test_small_set_has_twelve_scenes_and_has_not_drifted() -> None:
    exact = STORED["processor"] == processor()
    seen = set()
    for scene, variant, k, shape in planned(Plan(small=True)):
        made = make_image(scene, variant, k, shape)
        seen.add(scene.name)
        assert made.pixels.shape == SHAPE
        if k == 0:
            assert difference(fingerprint(made), STORED["small"][made.name], exact) == "", made.name
    assert len(seen) == 12


def test_a_change_of_one_grey_value_or_of_a_tenth_of_a_pixel_is_noticed() -> None:
    made = image("S02")
    stored = fingerprint(made)
    pixels = made.pixels.copy()
    pixels[3, 4] += 1
    other = fingerprint(SceneImage(made.scene, made.variant, made.seed, pixels, made.pixel_size_nm, made.sigma_px, made.truth))
    assert difference(other, stored, True) != ""
    made.truth.yx_px.setflags(write=True)
    made.truth.yx_px[:] += 0.1
    assert "centre" in difference(fingerprint(made), stored, False)


def test_images_depend_on_seed_and_offset_alone() -> None:
    assert image("S03").sha256 == image("S03").sha256
    assert len({image("S03").sha256, image("S03", k=1).sha256, image("S03", offset=SECRET_OFFSET).sha256}) == 3


def test_bright_spots_are_where_the_truth_says() -> None:
    for name in ("S01", "S03", "S08", "S13"):
        made = image(name)
        at = made.truth.yx_px[made.truth.target]
        inner = at[np.all((at > 8) & (at < np.array(SHAPE) - 9), axis=1)]
        y, x = np.rint(inner).astype(int).T
        pixels = made.pixels.astype(float)
        bright = np.mean([pixels[y + dy, x + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)], axis=0)
        assert bright.mean() > pixels.mean() + 0.5 * pixels.std(), name


def test_centres_of_gravity_agree_with_the_truth_of_a_shaken_scan() -> None:
    found = scene_named("S08")
    made = make_image(found, found.variants[1], 0, SHAPE)
    shift = made.truth.yx_px - made.truth.ideal_yx_px
    assert 0.3 < shift.std() < 2.0


def test_detectability_falls_with_dose_as_the_root() -> None:
    found = scene_named("S04")
    seen = [float(np.median(t.d_prime[t.target])) for t in (make_image(found, v, 0, SHAPE).truth for v in found.variants)]
    assert seen[0] == pytest.approx(12.0, rel=0.1)
    assert np.allclose(np.array(seen) / seen[0], np.sqrt([1, 0.3, 0.1, 0.03]), rtol=0.15)


def test_both_scorings_of_the_first_scene_show_the_same_image() -> None:
    metal, everything = image("S01", 0), image("S01", 1)
    assert metal.sha256 == everything.sha256
    assert 1.9 < everything.truth.target.sum() / metal.truth.target.sum() < 2.1


def test_vacancies_are_empty_places_at_lattice_points() -> None:
    made = image("S10", 2)
    targets = made.truth.yx_px[made.truth.target]
    d = mean_spacing(targets)
    nearest = cKDTree(targets).query(made.truth.vacancies_yx_px)[0]
    assert len(nearest) > 5
    assert nearest.min() > 0.9 * d


def test_empty_scenes_hold_nothing_and_cover_sixty_megapixels() -> None:
    found = scene_named("S15")
    assert all(len(make_image(found, v, 0, (64, 80)).truth.yx_px) == 0 for v in found.variants)
    assert len(found.variants) * 10 * math.prod(found.shape) >= 60e6


def test_silicon_dumbbells_count_as_one_column_each() -> None:
    found = scene_named("S16")
    variant = next(v for v in found.variants if v.name.startswith("Si"))
    truth = make_image(found, variant, 0, SHAPE).truth
    assert truth.target.sum() == pytest.approx(len(truth.yx_px) / 2, rel=0.02)


def test_contrast_reversed_images_ask_for_nothing() -> None:
    found = scene_named("S05")
    asked = {v.name: int(make_image(found, v, 0, SHAPE).truth.target.sum()) for v in found.variants}
    assert asked["+10 nm"] == 0
    assert asked["+2 nm"] > 100


def test_turning_back_returns_the_points() -> None:
    points = np.random.default_rng(0).uniform(0, [SHAPE[0] - 1, SHAPE[1] - 1], (30, 2))
    for change in CHANGES.values():
        there = turned(points, SHAPE, change)
        assert np.allclose(turned(there, SHAPE, change, back=True), points)


def test_turned_points_lie_where_the_turned_pixels_are() -> None:
    grid = np.zeros(SHAPE)
    grid[20, 300] = 1
    for change in CHANGES.values():
        out = np.rot90(grid, change.turns)
        out = out[:, ::-1] if change.mirrored else out
        assert np.array_equal(turned(np.array([[20.0, 300.0]]), SHAPE, change)[0], np.argwhere(out == 1)[0])


def test_bounds_meet_known_values() -> None:
    assert isolated_bound(np.array([370.0]), 5.0, 2.0)[0] == pytest.approx(0.5836, abs=1e-3)
    alone = cluster_bound(np.array([[0.0, 0.0]]), np.array([370.0]), 5.0, 2.0)
    assert alone == pytest.approx(0.5836, rel=0.03)
    pair = cluster_bound(np.array([[0.0, 0.0], [0.0, 14.0]]), np.array([370.0, 370.0]), 5.0, 2.0)
    assert pair > 1.05 * alone
    noisier = cluster_bound(np.array([[0.0, 0.0], [0.0, 14.0]]), np.array([370.0, 370.0]), 5.0, 2.0, known=1)
    assert alone * 0.99 < noisier < pair


def test_roles_of_close_and_faint_columns() -> None:
    yx = np.array([[0.0, 0.0], [0.0, 2.1], [0.0, 20.0], [0.0, 21.5], [0.0, 40.0]])
    electrons = np.array([100.0, 100.0, 100.0, 30.0, 5.0])
    places, swallowed, vague = resolved(yx, electrons, 1.0)
    assert swallowed.sum() == 2 and swallowed[3]
    assert not np.allclose(places, yx) and np.allclose(places[[2, 4]], yx[[2, 4]])
    target, dont_care = roles(np.array([9.0, 9.0, 9.0, 4.0, 0.5]), swallowed, vague, None, 2.5)
    assert target.sum() == 2 and target[2] and not target[4]
    assert dont_care[3] and not dont_care[4]


def test_of_a_pair_that_is_hardly_two_either_count_is_right() -> None:
    yx = np.array([[0.0, 0.0], [0.0, 2.45], [0.0, 12.0], [0.0, 14.7]])
    places, swallowed, vague = resolved(yx, np.array([100.0, 80.0, 100.0, 80.0]), 1.0)
    assert swallowed.tolist() == [False, True, False, False] and vague.tolist() == [True, True, False, False]
    target, dont_care = roles(np.full(4, 9.0), swallowed, vague, None, 2.5)
    assert target.tolist() == [True, False, True, True] and dont_care.tolist() == [False, True, False, False]
    assert np.array_equal(places, yx)


def test_a_focused_probe_transfers_everything_and_a_defocused_one_reverses() -> None:
    sharp, blurred = (transfer(Aberrations(z), (256, 256), 0.0124) for z in (0.0, 10.0))
    assert sharp[0, 0].real == pytest.approx(1.0, abs=1e-5)
    lattice = round(256 * 0.0124 / 0.2737)
    assert sharp[0, lattice].real > 0.75
    assert blurred[0, lattice].real < 0.0


def test_multislice_cells_lie_where_their_linear_twins_do() -> None:
    from scipy.ndimage import gaussian_filter

    found = scene_named("S18")
    assert len(found.variants) % 2 == 0 and len(found.variants) >= 20
    by_name = {variant.name: variant for variant in found.variants}
    for cell in ("MoS2 x 1", "WS2 x 2"):
        linear, exact = (make_image(found, by_name[name], 0, SHAPE) for name in (f"{cell} linear", cell))
        assert np.allclose(linear.truth.yx_px, exact.truth.yx_px)
        a, b = (gaussian_filter(made.pixels.astype(float), 3) for made in (linear, exact))
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.97
