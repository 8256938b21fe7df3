"""The classical detector on crystals with known truth, and on frames without any column."""

from __future__ import annotations

import numpy as np
import pytest
from lattice_frames import frame, hexagonal, lattice, render
from scipy.ndimage import gaussian_filter

from atomid_live.detect.dog import DogDetector, separation_px
from atomid_live.detect.normalise import prepare
from atomid_live.detect.spacing import estimate_scale
from atomid_live.errors import UsageError
from atomid_live.evaluate.metrics import match
from atomid_live.evaluate.points import read_points, score_points
from atomid_live.flags import Flag
from atomid_live.settings import DetectSettings, FrameSettings

SHAPE = (300, 372)
RES2 = ((5.0, 25.0), (22.0, -13.0)), ((0.06, 0.05, 1), (0.45, 0.0, 1), (0.0, 0.43, 1), (0.55, 0.55, 1))


def crystal(
    spacing=13.0, sigma=2.5, electrons=400, background=3, angle=0.3, basis=((0, 0, 1),), shape=SHAPE, seed=0, cell=None
):
    columns = lattice(shape, *(cell or hexagonal(spacing, angle)), basis)
    expected = render(shape, columns, sigma, electrons, background)
    return columns, np.random.default_rng(seed).poisson(expected).astype(np.uint16)


def score(detections, columns, shape=SHAPE):
    return score_points(detections.yx_px, columns[:, :2], frame_size_xy=(shape[1], shape[0]))


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.9, 1.4])
@pytest.mark.parametrize(("spacing", "sigma"), [(9.0, 1.75), (13.0, 2.5), (26.0, 5.0)])
def test_finds_a_crystal_at_any_scale_and_angle_without_being_told(spacing, sigma, angle):
    columns, pixels = crystal(spacing, sigma, electrons=45 * sigma**2, angle=angle)
    found = DogDetector().detect(frame(pixels))
    report = score(found, columns)
    assert report["at_0.5d"]["f1"] > 0.99
    assert report["at_0.25d"]["f1"] > 0.985
    assert found.column_sigma_px == pytest.approx(sigma, rel=0.15)
    assert found.spacing_px == pytest.approx(spacing, rel=0.08)
    assert not found.frame_flags


def test_finds_a_square_lattice_along_the_axes():
    columns, pixels = crystal(sigma=3.0, cell=((0.0, 16.0), (16.0, 0.0)))
    assert score(DogDetector().detect(frame(pixels)), columns)["at_0.5d"]["f1"] > 0.99


def test_site_bias_of_unequal_neighbours_is_removed_and_errors_are_honest():
    shape = (420, 500)
    columns, pixels = crystal(sigma=2.5, electrons=346, background=9, cell=RES2[0], basis=RES2[1], shape=shape)
    found = DogDetector().detect(frame(pixels))
    i, j = match(found.yx_px, columns[:, :2], 3.0)
    inner = (found.flags[i] & int(Flag.EDGE)) == 0
    error = found.yx_px[i] - columns[j, :2]
    for site in range(4):
        assert np.abs(error[inner & (columns[j, 3] == site)].mean(0)).max() < 0.12
    z = (error / found.sigma_yx_px[i])[inner]
    assert 0.8 < z.std() < 1.25


def test_answer_is_ordered_and_repeatable():
    _, pixels = crystal()
    detector = DogDetector()
    first, second = detector.detect(frame(pixels)), detector.detect(frame(pixels))
    assert np.array_equal(first.yx_px, second.yx_px)
    assert np.array_equal(np.lexsort((first.yx_px[:, 1], first.yx_px[:, 0])), np.arange(len(first)))
    assert first.score.min() >= 0.5 and first.score.max() < 1


@pytest.mark.parametrize(
    "change", [lambda p: p.astype(np.float64) * 1e6 - 3e8, lambda p: p / 5e4, lambda p: p.astype(np.int32) * 900]
)
def test_gain_offset_and_type_do_not_matter(change):
    _, pixels = crystal()
    before, after = DogDetector().detect(frame(pixels)), DogDetector().detect(frame(change(pixels)))
    assert len(before) == len(after)
    assert np.abs(before.yx_px - after.yx_px).max() < 0.05


def noises():
    rng = np.random.default_rng(5)
    shape = (480, 544)
    yield "white", rng.normal(100, 10, shape)
    for blur in (0.3, 0.6, 1.0, 2.0, 3.0):
        yield f"blurred {blur}", gaussian_filter(rng.normal(0, 1, shape), blur)
    for electrons in (0.02, 0.1, 2, 14):
        yield f"vacuum {electrons}", rng.poisson(electrons, shape).astype(np.uint16)
    yield "lines", rng.normal(0, 1, shape) + rng.normal(0, 1, (shape[0], 1))
    yield "field", rng.poisson(np.clip(8 + 3 * gaussian_filter(rng.normal(0, 1, shape), 4) * 14, 0, None)).astype(float)


@pytest.mark.parametrize(("kind", "pixels"), list(noises()), ids=lambda v: v if isinstance(v, str) else "")
def test_noise_has_no_columns_and_no_scale(kind, pixels):
    found = DogDetector().detect(frame(pixels))
    assert len(found) == 0, kind
    assert found.frame_flags & Flag.EMPTY and found.frame_flags & Flag.NO_SCALE
    assert not estimate_scale(prepare(pixels).image).found


def test_sparse_atoms_are_found_on_noise():
    rng = np.random.default_rng(2)
    shape = (400, 512)
    spots = np.stack([rng.uniform(10, 390, 60), rng.uniform(10, 500, 60), np.ones(60)], 1)
    pixels = rng.poisson(render(shape, spots, 2.5, 250, 4)).astype(np.uint16)
    found = DogDetector().detect(frame(pixels))
    i, _ = match(found.yx_px, spots[:, :2], 2.5)
    assert len(i) >= 50 and len(found) - len(i) <= 2


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (7, 300), (40, 33)])
def test_small_and_constant_frames_are_empty_answers(shape):
    found = DogDetector().detect(frame(np.full(shape, 7, np.uint8)))
    assert len(found) == 0 and found.frame_flags & Flag.CONSTANT and found.frame_flags & Flag.EMPTY


def test_broken_pixels_are_replaced_and_said():
    columns, pixels = crystal()
    holed = pixels.astype(np.float32)
    holed[100, 100], holed[50:53, 60], holed[200, 210] = np.nan, np.inf, -np.inf
    found = DogDetector().detect(frame(holed))
    assert found.frame_flags & Flag.SANITISED
    assert score(found, columns)["at_0.5d"]["f1"] > 0.98
    nothing = DogDetector().detect(frame(np.full(SHAPE, np.nan)))
    assert len(nothing) == 0 and nothing.frame_flags & Flag.SANITISED


@pytest.mark.parametrize("polarity", ["dark", "auto"])
def test_dark_columns(polarity):
    columns, pixels = crystal()
    inverted = (int(pixels.max()) - pixels).astype(np.uint16)
    found = DogDetector(DetectSettings(), FrameSettings(polarity=polarity)).detect(frame(inverted))
    assert score(found, columns)["at_0.5d"]["f1"] > 0.98


def test_threshold_and_separation_are_heeded():
    _, pixels = crystal(basis=((0, 0, 1), (1 / 3, 2 / 3, 0.33)), spacing=26.0, sigma=4.0, electrons=2000)
    few = DogDetector(DetectSettings(threshold=0.9)).detect(frame(pixels))
    some = DogDetector(DetectSettings(threshold=0.5)).detect(frame(pixels))
    assert len(few) < len(some) and few.score.size == len(few) and (few.score >= 0.9).all()
    apart = DogDetector(DetectSettings(min_separation="30px")).detect(frame(pixels))
    assert apart.spacing_px >= 30 and len(apart) < len(some)


def test_separation_units():
    assert separation_px("5px", 20.0, (0.01, 0.01)) == 5.0
    assert separation_px("0.5d", 20.0, (0.01, 0.01)) == 10.0
    assert separation_px("0.15nm", 20.0, (0.01, 0.01)) == pytest.approx(15.0)
    with pytest.raises(UsageError, match="no pixel size"):
        separation_px("0.15nm", 20.0, (float("nan"), float("nan")))


def test_edge_and_clipped_columns_are_flagged():
    _, pixels = crystal(electrons=900)
    limit = int(np.percentile(pixels, 97))
    found = DogDetector().detect(frame(np.minimum(pixels, limit).astype(np.uint16)))
    at_edge = (found.flags & int(Flag.EDGE)) != 0
    border = np.minimum(found.yx_px, np.asarray(SHAPE) - 1 - found.yx_px).min(1)
    assert (border[at_edge] < 6).all() and at_edge.sum() > 20
    assert ((found.flags & int(Flag.CLIPPED)) != 0).mean() > 0.5
    untouched = DogDetector().detect(frame(pixels))
    assert ((untouched.flags & int(Flag.CLIPPED)) != 0).mean() < 0.02


def test_hole_in_a_crystal_stays_empty():
    columns, _ = crystal()
    centre = np.asarray((150, 186))
    kept = columns[np.hypot(*(columns[:, :2] - centre).T) > 70]
    pixels = np.random.default_rng(3).poisson(render(SHAPE, kept, 2.5, 400, 1)).astype(np.uint16)
    found = DogDetector().detect(frame(pixels))
    assert (np.hypot(*(found.yx_px - centre).T) < 62).sum() == 0


def test_warm_up_takes_any_shape():
    DogDetector().warm_up((40, 70))


def test_labelled_frame_without_parameters(real_data):
    from PIL import Image

    with Image.open(real_data / "labelled" / "res2" / "000.bmp") as picture:
        pixels = np.asarray(picture.convert("L"))
    found = DogDetector().detect(frame(pixels))
    where = {"masks": ((50.0, 215.0, 885.0, 975.0),), "frame_size_xy": (1024.0, 1024.0)}
    labels = read_points(real_data / "labelled" / "res2" / "000.csv")
    joint = read_points(real_data / "labelled" / "res2" / "000_joint.csv")
    report = score_points(found.yx_px, labels, **where)
    # the round window of the fit lets ten faint columns more pass on this frame; on simulated crystals it is the better one
    assert report["at_0.5d"]["f1"] >= 0.994
    assert report["at_0.25d"]["f1"] >= 0.975
    # the joint fit takes all pixels alike; weighed by their noise, fits come nearer to simulated truth and stray from it here
    assert max(score_points(found.yx_px, joint, **where)["localisation"]["rmse_xy_px"]) <= 0.5
