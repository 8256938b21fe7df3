"""The whole chain on simulated pictures: simulate, detect (DoG), lattice, drift, GPA, strain."""

from __future__ import annotations

import time

import numpy as np
import pytest

from atomid_live.detect.dog import DogDetector
from atomid_live.drift.tracker import DriftTracker
from atomid_live.flags import Flag
from atomid_live.lattice import find_lattice
from atomid_live.settings import DriftSettings, StrainSettings
from atomid_live.simulate.acquire import Session
from atomid_live.simulate.scan import ScanErrors
from atomid_live.simulate.scenario import Scenario
from atomid_live.strain import StrainTracker, warm_up
from atomid_live.strain.gpa import gpa
from atomid_live.types import Frame, FrameMeta, Origin

QUIET = {"contamination_e": 0.0, "vacancy_fraction": 0.005, "scan": ScanErrors()}


def chain(scenario: Scenario, settings: StrainSettings, only=None):
    """Yield truth, detections, lattice, drift, strain field and reading of each frame."""
    session, detector = Session(scenario), DogDetector()
    drift_tracker, tracker = DriftTracker(DriftSettings()), StrainTracker(settings)
    for k in only or range(scenario.frames):
        made = session.frame(k)
        frame = Frame(
            k,
            made.pixels,
            made.middle_s,
            Origin("simulated"),
            pixel_size_yx_nm=scenario.pixel_size_yx_nm,
            meta=FrameMeta(line_time_s=scenario.line_time_s),
        )
        detections = detector.detect(frame)
        lattice = find_lattice(detections, frame.shape)
        phase = gpa(frame, lattice, settings)
        drift = drift_tracker.update(frame, detections, lattice)
        yield made.truth, detections, lattice, drift, *tracker.update(frame, detections, lattice, drift, phase)


@pytest.mark.slow
def test_ramp_through_the_whole_chain():
    """0 to 1 % hydrostatic over 40 drifting frames: slope 1 within 3 % by columns and by GPA."""
    scenario = Scenario(
        crystal="ws2", shape=(640, 820), frames=45, pixel_size_nm=0.0124, drift_px_per_frame=(0.9, -1.3),
        strain_exx_eyy_exy=(0.01, 0.01, 0.0), strain_from_frame=4, strain_until_frame=44, **QUIET,
    )  # fmt: skip
    truth, columns, phase = [], [], []
    for true, *_, reading in chain(scenario, StrainSettings()):
        if reading.valid:
            truth.append((np.trace(true.deformation) - 2) / 2)
            columns.append(reading.strain["hydrostatic"].mean)
            phase.append(reading.gpa["hydrostatic"].mean)
            assert not reading.flags & Flag.GPA_DISAGREES
    assert len(truth) == 40
    assert np.polyfit(truth, columns, 1)[0] == pytest.approx(1.0, abs=0.03)
    assert np.polyfit(truth, phase, 1)[0] == pytest.approx(1.0, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("crystal", "pixel_nm"), [("ws2", 0.0124), ("res2", 0.018)])
def test_unstrained_spread_is_the_formula(crystal, pixel_nm):
    """Spread inside the crystal within 15 % of sigma / (sqrt(8 pi rho) w^2), sigma from the truth of the positions."""
    from scipy.spatial import cKDTree

    scenario = Scenario(crystal=crystal, shape=(600, 760), frames=5, pixel_size_nm=pixel_nm, **QUIET)
    w = 0.5 / pixel_nm
    spread, formula, claimed = [], [], []
    for true, detections, lattice, _, field, reading in chain(scenario, StrainSettings(reference="frame")):
        assert reading.valid
        away, who = cKDTree(true.seen_yx_px).query(detections.yx_px)
        same = (away < 6) & (lattice.site >= 0)
        sigma = (detections.yx_px - true.seen_yx_px[who])[same].std()
        rho = (lattice.site >= 0).sum() / np.prod(np.array(scenario.shape) - 8)
        formula.append(sigma / (np.sqrt(8 * np.pi * rho) * w * w))
        margin = 3.2 * w
        yx = detections.yx_px
        inner = ((yx > margin) & (yx < np.array(scenario.shape) - margin)).all(axis=1) & np.isfinite(field.exx)
        spread.append((field.exx[inner].std() + field.eyy[inner].std()) / 2)
        claimed.append(np.median(field.sigma[inner]))
    assert np.mean(spread) == pytest.approx(np.mean(formula), rel=0.15)
    assert np.mean(claimed) == pytest.approx(np.mean(formula), rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("drift_yx", [(4.0, 0.0), (0.0, 6.0), (-3.0, 2.5)])
def test_drift_within_the_frame_is_what_the_reading_says(drift_yx):
    """The simulator really moves the specimen under the beam; what is left after the explained part is under 5e-4 (E5)."""
    scenario = Scenario(crystal="ws2", shape=(640, 820), frames=10, pixel_size_nm=0.0124, drift_px_per_frame=drift_yx, **QUIET)
    readings = [reading for *_, reading in chain(scenario, StrainSettings(reference="material:WS2"))][4:]
    offset = np.hypot(*scenario.cell_matrix_px[:, 0]) * 0.0124 / 0.3153 - 1
    left = [
        (
            r.strain["eyy"].mean - r.drift_stretch_eyy - offset,
            r.strain["exy"].mean - r.drift_shear_exy,
            r.strain["exx"].mean - offset,
        )
        for r in readings
    ]
    assert np.mean(left, axis=0) == pytest.approx(0.0, abs=4e-4)
    assert max(abs(readings[0].drift_stretch_eyy), abs(readings[0].drift_shear_exy)) > 0.002


def test_warm_up_leaves_no_trace_and_helps():
    warm_up()
    begin = time.perf_counter()
    warm_up()
    assert time.perf_counter() - begin < 1.0
