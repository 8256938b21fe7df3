"""Pictures: where the rings are, what the colours and the scale bar say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from atomid_live.sinks import annotate as draw
from atomid_live.sinks.footer import draw_footer, facts, length_label, nice_length_nm
from atomid_live.sinks.rings import stamp
from atomid_live.types import Detections, Frame, Origin, Reading, Result, StrainField

Make = Callable[..., Result]
KEY = (draw.ramp(draw.SCORE_ANCHORS), "score", "0", "1")


def frame_of(pixels: np.ndarray) -> Frame:
    return Frame(0, pixels, 0.0, Origin("x"))


@pytest.mark.parametrize("centre", [(20.0, 30.0), (20.24, 30.49), (19.6, 30.9)])
@pytest.mark.parametrize("radius", [1.75, 4.5, 9.0])
def test_a_ring_lies_around_its_point_and_leaves_the_middle_free(centre: tuple[float, float], radius: float) -> None:
    image = np.zeros((41, 63, 3), np.uint8)
    stamp(image, np.array([centre]), np.array([[200, 100, 50]], np.uint8), radius)
    weight = image[:, :, 0].astype(float)
    rows, cols = np.indices(weight.shape)
    assert (weight * rows).sum() / weight.sum() == pytest.approx(centre[0], abs=0.2)  # phases are a quarter pixel apart
    assert (weight * cols).sum() / weight.sum() == pytest.approx(centre[1], abs=0.2)  # phases are a quarter pixel apart
    distance = np.hypot(rows - centre[0], cols - centre[1])
    assert (weight * distance).sum() / weight.sum() == pytest.approx(radius, abs=0.2)
    assert not weight[distance < radius - 1.6].any() and not weight[distance > radius + 1.6].any()
    assert len(np.unique(weight)) - 2 > 0  # antialiased
    np.testing.assert_allclose(image[:, :, 2], weight / 4, atol=1)


def test_rings_at_the_border_and_beyond_are_clipped() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    far = np.array([[0.0, 0.0], [19.4, 29.4], [-50.0, 5.0], [math.nan, 3.0], [1e300, 1.0]])
    stamp(image, far, np.full((5, 3), 255, np.uint8), 4.0)
    assert image[:6, :6].any() and image[14:, 24:].any()
    assert not image[8:12, 10:20].any()


def test_radius_follows_the_spacing_within_bounds() -> None:
    assert draw.ring_radius_px(20.0, 1.0) == pytest.approx(6.8)
    assert draw.ring_radius_px(20.0, 2.0) == pytest.approx(13.6)
    assert draw.ring_radius_px(2.0, 1.0) == 1.6
    assert draw.ring_radius_px(500.0, 1.0) == 18.0
    assert draw.ring_radius_px(math.nan, 1.0) == 6.0


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", ">u2", "uint32", "float32", "float64"])
def test_grey_spans_the_percentiles_of_any_dtype(dtype: str) -> None:
    pixels = np.linspace(10, 110, 60 * 40).reshape(40, 60)
    pixels[0, 0] = 120
    shown = draw.grey(pixels.astype(dtype))
    assert shown.dtype == np.uint8 and shown.shape == (40, 60)
    assert shown.min() == 0 and shown.max() == 255
    assert int(shown[20, 0]) == pytest.approx(127, abs=4)


def test_grey_of_awkward_frames() -> None:
    holed = np.full((20, 30), 5.0)
    holed[3, 4], holed[5, 6], holed[7, 8] = math.nan, math.inf, 6.0
    shown = draw.grey(holed)
    assert shown[3, 4] == 0 and shown[5, 6] == 255
    assert not draw.grey(np.full((20, 30), 7, np.uint16)).any()
    assert not draw.grey(np.full((4, 5), math.nan)).any()


def test_preview_is_no_larger_than_asked() -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (700, 1100)).astype(np.uint16)
    for side in (64, 100, 512, 1100, 4000):
        shown = draw.preview(frame_of(pixels), side)
        assert max(shown.shape) == min(side, 1100)
        assert shown.shape[1] / shown.shape[0] == pytest.approx(1100 / 700, rel=0.02)


def test_colours_mean_score_until_strain_is_valid(result: Make) -> None:
    made = result(0)
    found = replace(made.detections, score=np.array([0.0, 0.5, 1.0, math.nan, 2.0]))
    waiting = replace(made, detections=found, strain=StrainField.none_for(5, "pending"))
    shown = draw.colours(waiting, draw.Look())
    np.testing.assert_allclose(shown[:3], draw.SCORE_ANCHORS, atol=3)
    assert tuple(shown[3]) == draw.UNKNOWN_RGB and tuple(shown[4]) == draw.SCORE_ANCHORS[2]
    exx = np.array([-0.02, 0.0, 0.02, math.nan, 0.5])
    strained = replace(made, strain=replace(made.strain, exx=exx, valid=True))
    shown = draw.colours(strained, draw.Look(component="exx"))
    np.testing.assert_allclose(shown[:3], [draw.STRAIN_ANCHORS[at] for at in (0, 2, 4)], atol=3)
    assert tuple(shown[3]) == draw.UNKNOWN_RGB and tuple(shown[4]) == draw.STRAIN_ANCHORS[4]
    assert draw.coloured_by(strained, draw.Look(component="score")) == "score"


def test_small_frames_are_enlarged_and_markers_go_along() -> None:
    yx = np.array([[10.0, 40.0]])
    found = Detections(yx, np.ones(1), np.zeros((1, 2)), np.ones(1), np.zeros(1, np.int64), 12.0)
    made = Result(0, (64, 96), 0.0, "arrival", Origin("x"), found)
    picture = draw.annotate(frame_of(np.zeros((64, 96), np.uint8)), made)
    assert picture.shape[1] == 96 * 6 and picture.shape[0] > 64 * 6
    rows, cols = np.nonzero(picture[: 64 * 6].any(axis=2))
    assert rows.mean() == pytest.approx((10 + 0.5) * 6 - 0.5, abs=0.3)
    assert cols.mean() == pytest.approx((40 + 0.5) * 6 - 0.5, abs=0.3)


def test_the_specimen_is_not_covered_by_the_strip() -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (600, 640)).astype(np.uint8)
    made = Result(0, (600, 640), 0.0, "arrival", Origin("x"), Detections.empty())
    picture = draw.annotate(frame_of(pixels), made)
    np.testing.assert_array_equal(picture[:600, :, 1], draw.grey(pixels))


def test_large_frames_can_be_shrunk(result: Make) -> None:
    made = replace(result(0), shape=(900, 1200))
    picture = draw.annotate(frame_of(np.zeros((900, 1200), np.uint16)), made, draw.Look(max_side_px=600))
    assert picture.shape[1] == 600


@pytest.mark.parametrize(
    ("longest", "nice"), [(0.9, 0.5), (1.0, 1.0), (1.99, 1.0), (2.0, 2.0), (4.9, 2.0), (5.0, 5.0), (37.0, 20.0), (0.0312, 0.02)]
)
def test_scale_bars_have_nice_lengths(longest: float, nice: float) -> None:
    assert nice_length_nm(longest) == pytest.approx(nice)


def test_scale_labels() -> None:
    assert [length_label(nm) for nm in (0.05, 0.5, 1.0, 20.0, 2000.0)] == ["50 pm", "500 pm", "1 nm", "20 nm", "2 um"]


@pytest.mark.parametrize(("pixel_x", "scale"), [(0.0125, 1.0), (0.0131, 2.0), (1.3, 0.5)])
def test_the_scale_bar_is_as_long_as_it_says(result: Make, pixel_x: float, scale: float) -> None:
    made = replace(result(0), pixel_size_yx_nm=(pixel_x * 3, pixel_x))
    strip = draw_footer(made, 800, scale, KEY)
    white = (strip == np.array([238, 241, 245])).all(axis=2)
    longest = 0
    for row in white:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(int)))
        longest = max(longest, *(np.diff(edges)[::2] if len(edges) else [0]))
    nm = longest * pixel_x / scale
    nice = min((n * 10.0**p for n in (1, 2, 5) for p in range(-3, 4)), key=lambda n: abs(n - nm))
    assert nm == pytest.approx(nice, abs=pixel_x / scale)


def test_without_calibration_there_is_no_bar_and_no_nm(result: Make) -> None:
    made = replace(result(0), pixel_size_yx_nm=(math.nan, math.nan))
    assert " pm" not in {label: value for label, value, _ in facts(made)}["spacing"]
    strip = draw_footer(made, 800, 1.0, KEY)
    white = (strip == np.array([238, 241, 245])).all(axis=2)
    assert max(map(len, "".join("x" if w else " " for w in white[-12]).split()), default=0) < 20


def test_facts_tell_strain_or_why_not(result: Make) -> None:
    told = {label: value for label, value, _ in facts(result(0))}
    assert told["exx"] == "+0.100 ± 0.030 %" and told["flags"] == "segment start" and told["columns"] == "5"
    told = {label: value for label, value, _ in facts(result(1, strained=False))}
    assert told["strain"] == "not valid: =pending, 2 of 5" and "exx" not in told
    told = {label: value for label, value, _ in facts(replace(result(2), reading=Reading(alarm="exx rising")))}
    assert told["ALARM"] == "exx rising"


def test_long_and_foreign_text_stays_inside(result: Make) -> None:
    made = replace(result(0, strained=False), reading=Reading(reason="Ж" * 20 + "very long " * 60))
    strip = draw_footer(made, 512, 1.0, KEY)
    assert strip.shape[1] == 512
    ground = strip[3, 0]
    assert (strip[2:, -4:] == ground).all()


def test_encoded_pictures_decode_to_the_same(result: Make) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    decoded = cv2.imdecode(np.frombuffer(draw.encode_png(picture), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded[:, :, ::-1], picture)
    assert draw.encode_jpeg(picture[:, :, 0])[:2] == b"\xff\xd8"
