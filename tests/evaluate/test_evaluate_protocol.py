"""Labels carried from one frame to others are off by what the alignment is off, and the comparison says so."""

import numpy as np
import pytest

from atomid_live.evaluate import protocol
from atomid_live.evaluate.tables import label_protocol


def test_correlation_finds_a_shift_in_every_direction() -> None:
    rng = np.random.default_rng(0)
    field = rng.normal(size=(200, 240))
    spectrum = np.fft.rfft2(field) * np.exp(-((np.hypot(np.fft.fftfreq(200)[:, None], np.fft.rfftfreq(240)) / 0.08) ** 2))
    scene = np.fft.irfft2(spectrum, (200, 240))
    for shift in ((5, 0), (-5, 3), (2, -7)):
        moved = np.roll(scene, shift, (0, 1))
        assert protocol.correlation_shift(moved, scene) == pytest.approx(shift, abs=0.3)


def test_a_group_shows_one_region_under_other_conditions() -> None:
    images, conditions, shift = protocol.group(5)
    assert len(images) == len(conditions) == len(shift) == protocol.FRAMES
    assert np.array_equal(images[0].pixels, protocol.group(5)[0][0].pixels)
    centre = [image.truth.yx_px - moved for image, moved in zip(images, shift, strict=True)]
    first = centre[0][np.argmin(np.hypot(*(centre[0] - 250).T))]
    assert all(np.hypot(*(each - first).T).min() < 0.5 for each in centre)
    assert len({c.dose for c in conditions}) == protocol.FRAMES
    assert conditions[protocol.best_frame(images, conditions)].dose >= np.median([c.dose for c in conditions])


def test_labels_are_best_where_they_were_made() -> None:
    told = protocol.label_errors()
    annotated = [each for each in told if each.annotated]
    carried = [each for each in told if not each.annotated]
    assert len(annotated) == 1 and annotated[0].shift_error_px == 0.0 and annotated[0].f1 > 0.98
    assert annotated[0].rms_px < min(each.rms_px for each in carried)
    for each in carried:
        assert each.rms_px > 0.4 * min(each.shift_error_px, 2.0)
    assert len(label_protocol(told)) == len(told) + 3
