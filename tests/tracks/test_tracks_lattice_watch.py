"""Steps of the lattice and changes of grain: told when they are real, once, and not when drift or a slow ramp explains them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from atomid_live.flags import Flag
from atomid_live.tracks.lattice_watch import LatticeWatch, deformation
from atomid_live.types import DriftEstimate, Event, FloatArray, Frame, Lattice, Origin, Reading

BASE = np.array([[0.0, 13.9], [16.0, 8.0]])
PIXELS = np.zeros((400, 520), np.uint8)
Gradient = Callable[[int], FloatArray]


def lattice(matrix_yx: FloatArray, flags: int = 0) -> Lattice:
    (ay, by), (ax, bx) = matrix_yx
    return Lattice((ay, ax), (by, bx), (200.0, 260.0), flags=flags)


def run(
    gradient: Gradient, frames: int = 30, noise: float = 5e-5, flags: Gradient | None = None, swap: bool = False
) -> list[Event]:
    watch, rng, told = LatticeWatch(3), np.random.default_rng(1), []
    for k in range(frames):
        matrix = gradient(k) @ BASE + rng.normal(0, noise * 16, (2, 2))
        if swap and k % 2:
            matrix = matrix @ np.array([[1, 1], [0, 1]])
        frame = Frame(k, PIXELS, 10.0 * k, Origin(""), pixel_size_yx_nm=(0.02, 0.02))
        own = lattice(matrix, int(flags(k)) if flags else 0)
        told += watch.update(frame, own, Reading(), DriftEstimate(step_yx_px=(0.5, -0.4)))
    return told


def stretched(exx: float, eyy: float = 0.0) -> FloatArray:
    return np.diag([1 + eyy, 1 + exx])


def turned(deg: float) -> FloatArray:
    c, s = np.cos(np.radians(deg)), np.sin(np.radians(deg))
    return np.array([[c, s], [-s, c]])


@pytest.mark.parametrize("size", [0.004, -0.002])
def test_a_step_is_told_once_with_its_size(size: float) -> None:
    told = run(lambda k: stretched(size if k >= 15 else 0.0))
    assert len(told) == 1
    event = told[0]
    assert event.kind == "lattice-parameter step" and event.onset_sequence == 15 and event.before_sequence == 14
    assert event.size == pytest.approx(size, abs=4 * event.size_sigma) and event.size_sigma < 3e-4
    assert "exx" in event.note and event.track_id == -1


def test_the_choice_of_basis_vectors_does_not_matter() -> None:
    assert run(lambda k: np.eye(2), swap=True) == []
    assert [event.kind for event in run(lambda k: stretched(0.004 if k >= 15 else 0.0), swap=True)] == [
        "lattice-parameter step"
    ]


def test_noise_and_a_slow_ramp_are_no_steps() -> None:
    assert run(lambda k: np.eye(2), frames=300) == []
    assert run(lambda k: stretched(2.5e-4 * max(k - 5, 0)), frames=40) == []


def test_what_drift_within_the_frame_explains_is_no_step() -> None:
    """The apparent stretch and shear of a specimen that drifts faster from frame 15 on."""
    watch, told = LatticeWatch(3), []
    for k in range(30):
        stretch, shear = (0.004, 0.002) if k >= 15 else (0.0, 0.0)
        matrix = np.array([[1 + stretch, 0.0], [2 * shear, 1.0]]) @ BASE
        frame = Frame(k, PIXELS, 10.0 * k, Origin(""), pixel_size_yx_nm=(0.02, 0.02))
        reading = Reading(drift_shear_exy=shear, drift_stretch_eyy=stretch)
        told += watch.update(frame, lattice(matrix), reading, DriftEstimate(step_yx_px=(400 * stretch, 800 * shear)))
    assert told == []


def test_another_grain_is_told_by_its_turn() -> None:
    small = run(lambda k: turned(2.0 if k >= 15 else 0.0))
    assert [event.kind for event in small] == ["grain change"]
    assert small[0].size == pytest.approx(2.0, abs=0.1) and small[0].unit == "deg"
    large = run(lambda k: turned(17.0 if k >= 15 else 0.0))
    assert [event.kind for event in large] == ["grain change"] and large[0].onset_sequence == 15


def test_a_second_lattice_must_stay_to_be_told() -> None:
    several = int(Flag.SEVERAL_LATTICES)
    assert run(lambda k: np.eye(2), flags=lambda k: several if k in (10, 11, 20) else 0) == []
    told = run(lambda k: np.eye(2), flags=lambda k: several if 10 <= k < 20 else 0)
    assert [event.onset_sequence for event in told] == [10, 20]
    assert "one lattice before, more than one lattice now" in told[0].note


def test_a_lattice_that_is_gone_is_told() -> None:
    watch, told = LatticeWatch(3), []
    for k in range(12):
        own = lattice(BASE) if k < 6 else Lattice.none_for(0, "amorphous")
        told += watch.update(Frame(k, PIXELS, float(k), Origin("")), own, Reading(), DriftEstimate())
    assert [event.note.split(",")[0] for event in told] == ["one lattice before"]


def test_a_deformation_is_found_between_any_two_bases_of_a_lattice() -> None:
    gradient = stretched(0.01, -0.02) @ turned(1.0)
    other = gradient @ BASE @ np.array([[2, 1], [1, 1]])
    np.testing.assert_allclose(deformation(other, BASE), gradient, atol=1e-9)
    assert deformation(turned(20.0) @ BASE, BASE) is None
    assert deformation(BASE * 2, BASE) is None
    assert replace(lattice(BASE), reason="").found
