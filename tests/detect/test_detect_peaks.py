"""Peaks of any map: the tie rule, the radius, and the answer of a slow and plain version."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atomid_live.detect.peaks import find_peaks, parabola

MAPS = arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 11)), elements=st.integers(0, 4).map(float))


def plain(image, threshold, radius):
    rows, cols = image.shape
    tops = []
    for r in range(rows):
        for c in range(cols):
            around = [(y, x) for y in range(r - 1, r + 2) for x in range(c - 1, c + 2)]
            around = [(y, x) for y, x in around if 0 <= y < rows and 0 <= x < cols and (y, x) != (r, c)]
            if image[r, c] > threshold and all(
                image[r, c] > image[p] or (image[r, c] == image[p] and (r, c) < p) for p in around
            ):
                tops.append((r, c))
    tops.sort(key=lambda p: (-image[p], p))
    kept = []
    for p in tops:
        if radius <= 1 or all((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 >= radius**2 for q in kept):
            kept.append(p)
    return kept


@settings(max_examples=150, deadline=None)
@given(MAPS, st.sampled_from([-1.0, 0.0, 1.0, 3.5]), st.sampled_from([0.0, 1.0, 1.5, 2.0, 2.3, 4.0]))
def test_equals_the_plain_version(image, threshold, radius):
    yx, values = find_peaks(image, threshold, radius)
    assert [tuple(p) for p in yx] == plain(image, threshold, radius)
    assert np.array_equal(values, image[yx[:, 0], yx[:, 1]])


def test_plateau_gives_one_peak_and_nan_none():
    image = np.zeros((6, 8), np.float32)
    image[2:4, 3:6] = 1
    assert find_peaks(image, 0.5, 0.0)[0].tolist() == [[2, 3]]
    image[0, 0] = np.nan
    assert find_peaks(image, 0.5, 0.0)[0].tolist() == [[2, 3]]


def test_parabola_finds_the_top_of_a_parabola():
    y, x = np.mgrid[:9, :11]
    image = (50 - (y - 4.3) ** 2 - 2 * (x - 5.8) ** 2).astype(np.float32)
    assert np.allclose(parabola(image, np.array([[4, 6]])), [[4.3, 5.8]], atol=1e-4)
    assert parabola(image, np.array([[0, 10]])).tolist() == [[0.0, 10.0]]
