"""Frame after frame: reference, drift, hops, verdicts and alarms, on points and through the whole chain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from crystal_points import crystal, deform, seen
from strain_images import frame_of, render

from atomid_live.errors import SettingsError
from atomid_live.flags import Flag
from atomid_live.lattice import find_lattice
from atomid_live.settings import StrainSettings
from atomid_live.strain import StrainTracker
from atomid_live.strain.gpa import gpa
from atomid_live.types import COMPONENTS, DriftEstimate, FrameMeta, Lattice

SHAPE = (420, 520)
PX = 0.0125


@dataclass
class Series:
    """Points of one crystal, frame by frame, with noise, drift and false columns; drift totals hop a cell now and then."""

    name: str = "hexagonal"
    sigma_px: float = 0.5
    drift: tuple[float, float] = (1.7, -2.3)
    hop_every: int = 0
    pixel_nm: tuple[float, float] = (PX, PX)
    seed: int = 0

    def __post_init__(self):
        points, _ = crystal(self.name, (2 * SHAPE[0], 2 * SHAPE[1]), PX, 11)
        self.points = points - np.array(SHAPE) / 2
        self.rng = np.random.default_rng(self.seed)

    def frame(self, k, meta=None, **strain):
        moved = deform(self.points, SHAPE, **strain) + np.array(self.drift) * k
        detections, _ = seen(moved, SHAPE, self.sigma_px, self.rng, 0.005, 2)
        lattice = find_lattice(detections, SHAPE)
        total = np.array(self.drift) * k
        if self.hop_every and k % self.hop_every == 3:
            total = total + np.array(lattice.a_yx_px)
        frame = frame_of(np.broadcast_to(np.uint8(0), SHAPE), self.pixel_nm, k, 2.0 * k, meta=meta or FrameMeta())
        return frame, detections, lattice, DriftEstimate(total_yx_px=tuple(total))


def run(tracker, series, strains, **more):
    return [tracker.update(*series.frame(k, **more, **strain)) for k, strain in enumerate(strains)]


@pytest.mark.parametrize("name", ["hexagonal", "res2"])
def test_ramp_is_followed_while_the_specimen_drifts_and_hops(name):
    """0 to 1 % hydrostatic over 40 frames: slope 1 within 3 %, error bars that cover, an alarm that comes and stays."""
    truth = np.r_[np.zeros(5), 0.01 * np.arange(41) / 40]
    series = Series(name, hop_every=7)
    rows = run(StrainTracker(StrainSettings()), series, [{"xx": t, "yy": t} for t in truth])
    readings = [reading for _, reading in rows]
    for reading in readings[:5]:
        assert not reading.valid and "reference pending" in reading.reason and reading.flags & Flag.REFERENCE_PENDING
    measured = np.array([r.strain["hydrostatic"].mean for r in readings[5:]])
    assert all(r.valid for r in readings[5:])
    assert np.polyfit(truth[5:], measured, 1)[0] == pytest.approx(1.0, abs=0.03)
    sem = np.mean([r.strain["hydrostatic"].sem for r in readings[5:]])
    assert np.sqrt(np.mean((measured - truth[5:]) ** 2)) < 2.5 * sem
    loud = [k for k, r in enumerate(readings) if r.alarm]
    assert loud and 6 <= loud[0] <= 20 and loud == list(range(loud[0], 46))
    assert readings[-1].slope_per_min["hydrostatic"] == pytest.approx(0.01 / 40 * 30, rel=0.1)


def test_columns_error_bars_cover_with_a_reference_of_five():
    """Spread of strain at zero strain is what sigma says, the reference's own noise included (sqrt(1 + 1/N))."""
    rows = run(StrainTracker(StrainSettings()), Series("res2", drift=(0.0, 0.0)), [{}] * 12)
    z = np.concatenate([(field.exx + field.eyy) / np.sqrt(2) / field.sigma for field, _ in rows[5:]])
    assert np.nanstd(z) == pytest.approx(1.0, abs=0.15)
    sigma = [np.nanmedian(field.sigma) for field, _ in rows[5:]]
    alone = StrainTracker(StrainSettings(reference="frame")).update(*Series("res2", drift=(0.0, 0.0)).frame(0))[0]
    assert np.mean(sigma) / np.nanmedian(alone.sigma) == pytest.approx(np.sqrt(1.2), rel=0.05)


def test_a_lost_drift_does_not_matter():
    tracker, series = StrainTracker(StrainSettings(reference="first:3")), Series("res2", drift=(0.4, 0.3))
    rows = run(tracker, series, [{}] * 3)
    frame, detections, lattice, _ = series.frame(3, xx=0.006)
    field, reading = tracker.update(frame, detections, lattice, DriftEstimate())
    assert reading.valid
    assert reading.strain["exx"].mean == pytest.approx(0.006, abs=5 * reading.strain["exx"].sem)
    assert len(field.exx) == len(detections) and rows[0][0].exx.shape == rows[0][0].flags.shape


def test_static_strain_of_the_specimen_is_not_a_change():
    """A specimen that bends from the start reads zero against its own first frames, but not against the mean lattice."""
    points, _ = crystal("hexagonal", SHAPE, PX, 11)
    bent = points + np.stack([np.zeros(len(points)), 1e-4 * (points[:, 1] - 260) ** 2 / 2], axis=1)
    rng = np.random.default_rng(0)

    def frame(k):
        detections, _ = seen(bent, SHAPE, 0.1, rng)
        drift = DriftEstimate(total_yx_px=(0.0, 0.0))
        return frame_of(np.broadcast_to(np.uint8(0), SHAPE), (PX, PX), k, k), detections, find_lattice(detections, SHAPE), drift

    live, own = StrainTracker(StrainSettings(reference="first:2")), StrainTracker(StrainSettings(reference="frame"))
    for k in range(3):
        against_first, _ = live.update(*frame(k))
    against_mean, reading = own.update(*frame(3))
    assert np.nanstd(against_first.exx) < 1.3 * np.nanmedian(against_first.sigma)
    assert np.nanstd(against_mean.exx) > 10 * np.nanstd(against_first.exx)
    assert reading.strain["exx"].mean == pytest.approx(0, abs=1e-3)


def test_what_drifts_in_is_compared_with_the_mean_lattice_and_said():
    series = Series("hexagonal", drift=(0.0, 40.0), sigma_px=0.3)
    rows = run(StrainTracker(StrainSettings(reference="first:1")), series, [{}] + [{"xx": 0.01}] * 6)
    field, reading = rows[-1]
    assert reading.valid and "outside the reference area" in reading.reason
    assert np.isfinite(field.exx).mean() > 0.95
    assert reading.strain["exx"].mean == pytest.approx(0.01, abs=6e-4)


def test_material_gives_absolute_strain():
    tracker = StrainTracker(StrainSettings(reference="material:MoS2"))
    frame, detections, lattice, drift = Series("hexagonal", sigma_px=0.2).frame(0, xx=0.01, yy=0.004)
    _, reading = tracker.update(frame, detections, lattice, drift)
    offset = 0.316 / 0.3161 - 1
    assert reading.valid and reading.reference == "material:MoS2"
    assert reading.strain["exx"].mean == pytest.approx(0.01 + offset, abs=4e-4)
    assert reading.strain["eyy"].mean == pytest.approx(0.004 + offset, abs=4e-4)


def test_pixels_twice_as_high_as_wide():
    """Shear and rotation are those of the specimen, not of the pixel grid."""
    series = Series("hexagonal", sigma_px=0.1)
    tracker = StrainTracker(StrainSettings(reference="first:1"))
    for k, strain in enumerate([{}, {"xy": 0.01, "turn_mrad": 8}]):
        moved = deform(series.points, SHAPE, **strain) * [0.5, 1.0]
        shape = (SHAPE[0] // 2, SHAPE[1])
        detections, _ = seen(moved, shape, 0.05, series.rng)
        frame = frame_of(np.broadcast_to(np.uint8(0), shape), (2 * PX, PX), k, k)
        _, reading = tracker.update(frame, detections, find_lattice(detections, shape), DriftEstimate(total_yx_px=(0.0, 0.0)))
    assert reading.strain["exy"].mean == pytest.approx(0.01, abs=3e-4)
    assert reading.strain["rotation_mrad"].mean == pytest.approx(8, abs=0.3)


REFUSED = [
    ("material:MoS2", {"pixel_nm": (float("nan"), float("nan"))}, "needs a pixel size"),
    ("material:MoS2", {"pixel_nm": (1.12 * PX, 1.12 * PX)}, "check the pixel size"),
    ("material:ReS2", {}, "is not that of material:ReS2"),
]


@pytest.mark.parametrize(("reference", "more", "said"), REFUSED)
def test_refusals_in_the_words_of_a_microscopist(reference, more, said):
    frame, detections, lattice, drift = Series(**more).frame(0)
    field, reading = StrainTracker(StrainSettings(reference=reference)).update(frame, detections, lattice, drift)
    assert said in reading.reason and not reading.valid and not field.valid
    assert reading.flags & Flag.STRAIN_INVALID
    assert np.isnan(field.exx).all() and len(field.exx) == len(detections)


def test_no_lattice_narrow_window_and_few_columns():
    frame, detections, lattice, drift = Series().frame(0)
    own = StrainTracker(StrainSettings(reference="frame"))
    _, reading = own.update(frame, detections, Lattice.none_for(len(detections), "columns are a mess"), drift)
    assert reading.reason == "columns are a mess" and reading.vacancies == -1
    narrow = StrainTracker(StrainSettings(reference="frame", window_nm=0.05))
    field, reading = narrow.update(frame, detections, lattice, drift)
    assert "widen strain.window_nm" in reading.reason and not reading.valid
    assert (field.flags[lattice.site >= 0] & Flag.FEW_NEIGHBOURS).all()
    with pytest.raises(SettingsError):
        StrainTracker(StrainSettings(reference="whatever"))


def test_another_lattice_than_the_reference_is_refused():
    tracker = StrainTracker(StrainSettings(reference="first:1"))
    tracker.update(*Series("hexagonal").frame(0))
    _, reading = tracker.update(*Series("square").frame(1))
    assert "differs from the reference" in reading.reason


def test_uncalibrated_frames_still_get_strain():
    nan = float("nan")
    rows = run(StrainTracker(StrainSettings(reference="first:2")), Series(pixel_nm=(nan, nan)), [{}, {}, {"xx": 0.01}])
    field, reading = rows[-1]
    assert reading.valid and reading.flags & Flag.UNCALIBRATED
    assert np.isnan(field.window_nm) and field.window_px == pytest.approx(1.5 * 0.316 / PX, rel=0.02)
    assert reading.strain["exx"].mean == pytest.approx(0.01, abs=6 * reading.strain["exx"].sem)


def test_reset_forgets():
    tracker, series = StrainTracker(StrainSettings(reference="first:2")), Series()
    rows = run(tracker, series, [{}, {}, {"xx": 0.01}])
    assert rows[-1][1].valid
    tracker.reset("pixel size changed")
    _, reading = tracker.update(*series.frame(3, xx=0.01))
    assert "1 of 2" in reading.reason and np.isnan(reading.rolling_mean["exx"])


def test_drift_within_the_frame_is_told_and_not_alarmed():
    """The specimen starts to drift: the stretch it seems to have is explained, and no alarm is raised."""
    tracker, series = StrainTracker(StrainSettings(reference="first:3", window_nm=0.5)), Series(drift=(0.0, 0.0))
    meta = FrameMeta(line_time_s=0.01)
    for k in range(12):
        stretch = 0.005 if k > 5 else 0.0
        down = max(k - 5, 0) * (stretch / (1 + stretch) / 0.01) * 2.0
        series.drift = (down / max(k, 1), 0.0)
        frame, detections, lattice, drift = series.frame(k, meta=meta, yy=stretch)
        _, reading = tracker.update(frame, detections, lattice, drift)
    assert reading.drift_stretch_eyy == pytest.approx(0.005, rel=0.01)
    assert reading.drift_shear_exy == pytest.approx(0, abs=1e-6)
    assert reading.strain["eyy"].mean == pytest.approx(0.005, abs=1e-3)
    assert reading.strain_corrected["eyy"].mean == pytest.approx(0, abs=1e-3) and reading.correction == "corrected for drift"
    assert reading.alarm == "" and reading.flags & Flag.DRIFT_EXPLAINS


def test_step_is_seen_in_two_frames():
    """0.5 % at frame 20 with a window of 1 nm: an alarm within two frames, none before."""
    strains = [{"xx": 0.005} if k >= 20 else {} for k in range(26)]
    rows = run(StrainTracker(StrainSettings(window_nm=1.0)), Series("hexagonal", drift=(0.3, -0.2)), strains)
    loud = [k for k, (_, r) in enumerate(rows) if r.alarm]
    assert loud[0] in (20, 21) and loud == list(range(loud[0], 26))
    assert "exx" in rows[-1][1].alarm


def _pictures(strains, settings):
    points, _ = crystal("hexagonal", SHAPE, PX, 13)
    tracker, rows = StrainTracker(settings), []
    for k, strain in enumerate(strains):
        moved = deform(points, SHAPE, **strain)
        frame = frame_of(render(moved, SHAPE, 5.0), (PX, PX), k, float(k))
        detections, _ = seen(moved, SHAPE, 0.1, np.random.default_rng(k))
        lattice = find_lattice(detections, SHAPE)
        drift = DriftEstimate(total_yx_px=(0.0, 0.0))
        rows.append(tracker.update(frame, detections, lattice, drift, gpa(frame, lattice, settings)))
    return rows


@pytest.mark.parametrize("reference", ["first:2", "material:MoS2", "frame"])
def test_gpa_is_told_against_the_same_reference(reference):
    strains = [{}, {}, {"xx": 0.01, "xy": 0.003}]
    _, reading = _pictures(strains, StrainSettings(reference=reference))[-1]
    assert set(reading.gpa) == set(COMPONENTS)
    for name in ("exx", "eyy", "exy"):
        assert reading.gpa[name].mean == pytest.approx(reading.strain[name].mean, abs=6e-4)
    assert not reading.flags & Flag.GPA_DISAGREES


def test_columns_that_lie_are_caught_by_gpa():
    """Positions that are 1 % too far apart along x, as a wrong model would give: both methods differ, and it is said."""
    settings = StrainSettings(reference="material:MoS2")
    points, _ = crystal("hexagonal", SHAPE, PX, 13)
    frame = frame_of(render(points, SHAPE, 5.0))
    detections, _ = seen(deform(points, SHAPE, xx=0.01), SHAPE, 0.1)
    true, _ = seen(points, SHAPE, 0.1)
    field = gpa(frame, find_lattice(true, SHAPE), settings)
    _, reading = StrainTracker(settings).update(frame, true, find_lattice(true, SHAPE), DriftEstimate(), field)
    assert not reading.flags & Flag.GPA_DISAGREES
    lattice = find_lattice(detections, SHAPE)
    _, reading = StrainTracker(settings).update(frame, detections, lattice, DriftEstimate(), gpa(frame, lattice, settings))
    assert reading.flags & Flag.GPA_DISAGREES
