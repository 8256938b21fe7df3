"""The shipped network finds columns of crystals it was never told of, and nothing where there is nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from atomid_live.backends import open_network
from atomid_live.backends.engine import Engine, find_engine, load_engine
from atomid_live.detect import dog
from atomid_live.detect.judge import LEAST_P
from atomid_live.detect.look import map_peaks, padded
from atomid_live.detect.spacing import Scale
from atomid_live.detect.unet import UnetDetector
from atomid_live.flags import Flag
from atomid_live.protocols import Maps
from atomid_live.settings import DetectSettings
from atomid_live.simulate.crystals import crystal_named
from atomid_live.simulate.imaging import electrons_per_column, render
from atomid_live.simulate.lattices import fill
from atomid_live.simulate.noise import Camera, record
from atomid_live.types import Frame, Origin

SHAPE = (288, 352)


@pytest.fixture(scope="module")
def engine() -> Engine:
    folder = find_engine()
    assert folder is not None
    return load_engine(folder)


@pytest.fixture(scope="module")
def detector(engine: Engine) -> UnetDetector:
    return UnetDetector(open_network(engine, "openvino", 1), engine)


def _frame(pixels: NDArray[np.generic]) -> Frame:
    return Frame(0, pixels, 0.0, Origin("test"))


def _crystal(name: str, pixel_nm: float, seed: int, background: float = 2.0) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    crystal = crystal_named(name)
    columns = fill(crystal, SHAPE, pixel_nm, rng.uniform(0, 6), margin_px=30)
    electrons = electrons_per_column(columns.cross_section_A2, (pixel_nm, pixel_nm))
    expected = render(columns.yx_px, electrons, 0.062 / pixel_nm, SHAPE) + np.float32(background)
    metal = np.isin(columns.site, crystal.brighter_than(0.5)) & columns.inside(SHAPE, 8)
    return record(rng, expected, Camera(10.0, 100.0, 0.3)), columns.yx_px[metal]


def _missed_and_far(found: NDArray[np.float64], truth: NDArray[np.float64], radius: float) -> tuple[int, float]:
    distance = np.hypot(*(found[None] - truth[:, None]).transpose(2, 0, 1)).min(1)
    return int((distance > radius).sum()), float(np.sqrt(np.mean(distance[distance <= radius] ** 2) / 2))


@pytest.mark.parametrize(("name", "pixel_nm"), [("mos2", 0.0124), ("res2", 0.0176), ("res2", 0.0248), ("srtio3", 0.0100)])
def test_every_metal_column_is_found_to_a_fraction_of_a_pixel(detector: UnetDetector, name: str, pixel_nm: float) -> None:
    pixels, truth = _crystal(name, pixel_nm, 11)
    found = detector.detect(_frame(pixels))
    missed, rms = _missed_and_far(found.yx_px, truth, 0.08 / pixel_nm)
    assert missed <= 0.005 * len(truth)
    assert rms < 1.0
    assert (found.score >= LEAST_P).all() and found.score.mean() > 0.95 and np.isfinite(found.yx_px).all()
    assert found.column_sigma_px == pytest.approx(0.062 / pixel_nm, rel=0.25)


@pytest.mark.parametrize("blur", [0.0, 0.7, 1.5])
def test_noise_of_any_colour_is_empty(detector: UnetDetector, blur: float) -> None:
    from cv2 import GaussianBlur

    false = 0
    for seed in range(4):
        noise = np.random.default_rng(seed).poisson(6.0, SHAPE).astype(np.float32)
        found = detector.detect(_frame(GaussianBlur(noise, (0, 0), blur) if blur else noise))
        false += len(found)
        assert not len(found) or not found.frame_flags & Flag.EMPTY
    assert false == 0


def test_constant_frame_says_why_it_is_empty(detector: UnetDetector) -> None:
    found = detector.detect(_frame(np.full(SHAPE, 7, np.uint16)))
    assert len(found) == 0 and found.frame_flags & Flag.CONSTANT and found.frame_flags & Flag.EMPTY


def test_gain_and_offset_change_nothing(detector: UnetDetector) -> None:
    pixels, _ = _crystal("mos2", 0.0124, 3)
    plain = detector.detect(_frame(pixels))
    other = detector.detect(_frame(pixels.astype(np.float64) * 3.7 + 5000))
    assert len(plain) == len(other)
    assert np.abs(plain.yx_px - other.yx_px).max() < 0.02
    assert other.amplitude / plain.amplitude == pytest.approx(3.7, rel=0.01)


def test_a_higher_threshold_keeps_a_part(engine: Engine, detector: UnetDetector) -> None:
    pixels, _ = _crystal("mos2", 0.0248, 5)
    strict = UnetDetector(open_network(engine, "openvino", 1), engine, DetectSettings(threshold=0.8))
    few, many = strict.detect(_frame(pixels)), detector.detect(_frame(pixels))
    assert 0 < len(few) < len(many) or few.score.min() >= 0.8
    assert few.score.min() >= 0.8


@pytest.mark.parametrize("wrong", [0.65, 1.6])
def test_a_wrong_scale_costs_no_column(detector: UnetDetector, monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    pixels, truth = _crystal("res2", 0.0131, 7)
    original = dog.estimate_scale

    def mistaken(image: NDArray[np.float32], *levels: Any) -> Scale:
        scale = original(image, *levels)
        return replace(scale, column_sigma_px=scale.column_sigma_px * wrong)

    monkeypatch.setattr(dog, "estimate_scale", mistaken)
    missed, _ = _missed_and_far(detector.detect(_frame(pixels)).yx_px, truth, 6.0)
    assert missed <= 0.01 * len(truth)


def test_both_runtimes_and_precisions_find_the_same(engine: Engine) -> None:
    pixels, _ = _crystal("res2", 0.0176, 9)
    answers = [
        UnetDetector(open_network(engine, backend, 1, precision), engine).detect(_frame(pixels))
        for backend, precision in (("openvino", "fp32"), ("onnxruntime", "fp32"), ("openvino", "int8"))
    ]
    for answer in answers[1:]:
        assert abs(len(answer) - len(answers[0])) <= 0.01 * len(answers[0])
        missed, rms = _missed_and_far(answer.yx_px, answers[0].yx_px, 2.0)
        assert missed <= 0.01 * len(answers[0]) and rms < 0.1


def test_least_separation_merges(engine: Engine) -> None:
    pixels, _ = _crystal("mos2", 0.0124, 3)
    wide = UnetDetector(open_network(engine, "openvino", 1), engine, DetectSettings(min_separation="20px")).detect(
        _frame(pixels)
    )
    distance = np.hypot(*(wide.yx_px[None] - wide.yx_px[:, None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(wide))
    assert distance.min() >= 20.0


def test_peaks_lie_between_the_pixels_of_the_image() -> None:
    y, x = np.mgrid[0:60, 0:80]
    places = np.array([[31.3, 40.8], [70.9, 99.2]])
    heat = sum(np.exp(-0.5 * ((2 * y + 0.5 - p) ** 2 + (2 * x + 0.5 - q) ** 2) / 4) for p, q in places)
    heat = heat * np.where(x < 35, 1.0, 0.5)
    yx, height, sharpness = map_peaks(Maps(heat.astype(np.float32), 2), (119, 157), 1.9)
    assert yx == pytest.approx(places, abs=0.12)
    assert height[0] > height[1] > 0.4
    assert sharpness == pytest.approx(1.0 - np.exp(-0.5 * 4 / 4), abs=0.1)


def test_padding_is_zero_and_keeps_the_corner() -> None:
    image = np.random.default_rng(0).random((70, 129), dtype=np.float32)
    out = padded(image)
    assert out.shape == (128, 192) and np.array_equal(out[:70, :129], image)
    assert not out[70:].any() and not out[:, 129:].any()


def test_a_frame_the_network_does_not_know_goes_to_the_classical_detector(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atomid_live.detect import unet
    from atomid_live.detect.limits import OutOfRange

    pixels, _ = _crystal("mos2", 0.0124, 3)
    frame = _frame(pixels)
    monkeypatch.setattr(unet, "out_of_range", lambda *_: OutOfRange(texture=1.3))
    detector = UnetDetector(open_network(engine, "openvino", 1), engine)
    found, classical = detector.detect(frame), dog.DogDetector().detect(frame)
    assert found.frame_flags & Flag.MODEL_OUT_OF_RANGE
    assert np.array_equal(found.yx_px, classical.yx_px)
    monkeypatch.setattr(unet, "out_of_range", lambda *_: OutOfRange(dose=1.3))
    faint = detector.detect(frame)
    assert faint.frame_flags & Flag.MODEL_OUT_OF_RANGE and not np.array_equal(faint.score, classical.score)


def test_a_lattice_of_which_the_network_sees_nothing_goes_to_the_classical_detector() -> None:
    from atomid_live.detect.unet import LEAST_OF_LATTICE, sees_nothing

    lattice, none = Scale(4.0, 20.0, 50.0, "lattice", 0.9, 20.0), Scale()
    assert sees_nothing(lattice, 0) and not sees_nothing(lattice, LEAST_OF_LATTICE) and not sees_nothing(none, 0)
