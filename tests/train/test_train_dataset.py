"""A crop is its number; what it shows stands where its labels say."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from atomid_live.train.dataset import TRAIN_SEED_BASE, Crop, Recipe, make_crop
from atomid_live.train.feed import batches, make_batch

SMALL = Recipe(side_px=96)


@pytest.fixture(scope="module")
def crops() -> list[Crop]:
    return [make_crop(Recipe(), number) for number in range(60)]


def test_crop_depends_on_its_number_alone() -> None:
    first = make_crop(SMALL, 17)
    make_crop(SMALL, 3)
    again = make_crop(SMALL, 17)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.heat, again.heat)
    assert not np.array_equal(first.image, make_crop(SMALL, 18).image)


def test_seeds_begin_where_no_demonstration_or_evaluation_draws() -> None:
    assert Recipe().seed == TRAIN_SEED_BASE >= 10**7


def test_shapes_ranges_and_finiteness(crops: list[Crop]) -> None:
    for crop in crops:
        assert crop.image.shape == (256, 256) and crop.heat.shape == crop.weight.shape == (128, 128)
        assert np.isfinite(crop.image).all() and np.abs(crop.image).max() <= 6
        assert crop.heat.min() >= 0 and crop.heat.max() <= 1
        assert ((crop.wanted >= 0) & (crop.wanted <= 255)).all()


def test_a_quarter_to_half_of_the_crops_ask_for_nothing(crops: list[Crop]) -> None:
    empty = np.mean([len(crop.wanted) == 0 for crop in crops])
    assert 0.2 < empty < 0.5
    colours = [np.corrcoef(c.image[:, 1:].ravel(), c.image[:, :-1].ravel())[0, 1] for c in crops if len(c.wanted) == 0]
    assert max(colours) > 0.8 and min(colours) < 0.4


def test_columns_stand_where_the_labels_say(crops: list[Crop]) -> None:
    """Averaged over many columns, the image is brightest at the label, to a tenth of a pixel."""
    offsets = np.arange(-2, 3)
    stack = np.zeros((5, 5))
    for crop in crops:
        inner = crop.wanted[((crop.wanted > 6) & (crop.wanted < 249)).all(1)][:300]
        for dy in offsets:
            for dx in offsets:
                stack[dy + 2, dx + 2] += map_coordinates(crop.image, (inner + np.array([dy, dx])).T, order=1).sum()
    curve_y, curve_x = stack[1:4, 2], stack[2, 1:4]
    for before, middle, after in (curve_y, curve_x):
        assert middle > max(before, after)
        assert abs(0.5 * (before - after) / (before + after - 2 * middle)) < 0.1


def test_batches_come_in_order_from_other_processes() -> None:
    expected = [make_batch(SMALL, number, 2) for number in range(1, 4)]
    for workers in (0, 2):
        got = list(batches(SMALL, 2, 1, 4, workers))
        assert all(np.array_equal(a.image, b.image) for a, b in zip(got, expected, strict=True))
