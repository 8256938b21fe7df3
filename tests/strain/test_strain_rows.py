"""Row jitter against scans of known jitter: rms, correlation, what is no jitter, and error bars that hold it."""

from __future__ import annotations

import numpy as np
import pytest
from crystal_points import as_detections, crystal

from atomid_live.lattice import find_lattice
from atomid_live.settings import StrainSettings
from atomid_live.simulate.imaging import Probe, as_scanned
from atomid_live.simulate.scan import ScanErrors, scan_path
from atomid_live.strain import StrainTracker
from atomid_live.strain.rows import JitterMemory, JitterModel, jitter_of, row_covariance
from atomid_live.types import DriftEstimate, Frame, Origin

SHAPE = (700, 620)
PX = 0.0176


def scanned(seed, rms_yx=(0.3, 0.6), rows=3.0, noise=0.4, name="hexagonal"):
    """Ideal positions, where a jittering scan draws them, and as a detector with independent errors finds them."""
    points, _ = crystal(name, SHAPE, PX, 8.6)
    points = points[((points > 6) & (points < np.array(SHAPE) - 7)).all(axis=1)]
    rng = np.random.default_rng(seed)
    path = scan_path(rng, SHAPE[0], ScanErrors(jitter_yx_px=rms_yx, jitter_rows=rows))
    drawn = as_scanned(points, Probe(0.062 / PX), path) if any(rms_yx) else points
    return points, drawn, drawn + rng.normal(0, noise, drawn.shape)


@pytest.mark.parametrize("rows", [1.0, 6.0])
def test_rms_and_correlation_are_found_with_errors_that_hold(rows):
    found, true, z = [], [], []
    for seed in range(10):
        points, drawn, seen = scanned(seed, rows=rows)
        jitter = jitter_of(row_covariance(points, seen - points, SHAPE))
        here = (drawn - points).std(axis=0)
        found.append([*jitter.rms_yx_px, jitter.rows])
        true.append(here)
        z.append((np.array(jitter.rms_yx_px) - here) / np.array(jitter.sigma_rms_yx_px))
    mean = np.mean(found, axis=0)
    assert mean[:2] == pytest.approx(np.mean(true, axis=0), rel=0.18)
    assert rows < mean[2] < rows + 9  # columns three to four rows wide add theirs
    assert np.sqrt(np.mean(np.square(z))) < 1.5


def test_what_is_no_row_jitter_is_not_called_so():
    """Independent errors, a smooth bend, and an uneven specimen without a fast axis: no more than chance."""
    memory = JitterMemory()
    for seed in range(4):
        points, _, seen = scanned(seed, (0.0, 0.0))
        y, x = (2 * points / np.array(SHAPE) - 1).T
        bend = np.stack([3 * x * y, 2 * y**2 - x**3], axis=1)
        uneven = np.stack([np.sin(13 * y + 2 * x) * np.sin(13 * x - 2 * y)] * 2, axis=1) * 0.3
        covariance = row_covariance(points, seen - points + bend + uneven, SHAPE)
        jitter = jitter_of(covariance)
        assert max(jitter.rms_yx_px) < 0.15
        memory.add(covariance)
    assert np.sqrt(max(memory.model.variance_yx)) < 0.08


def test_too_little_is_said():
    points, _, seen = scanned(0)
    jitter = jitter_of(row_covariance(points[:40], (seen - points)[:40], SHAPE))
    assert "40 columns" in jitter.reason and np.isnan(jitter.rms_yx_px[0])


def test_variance_of_a_sum_is_that_of_correlated_rows():
    """Against 4000 draws of a first-order autoregressive displacement."""
    from atomid_live.simulate.scan import jitter

    rng, weight = np.random.default_rng(1), np.sin(np.arange(200) / 20) / 100
    sums = [weight @ jitter(rng, 200, (0.5, 1.0), 4.0) for _ in range(4000)]
    told = JitterModel((0.25, 1.0), (4.0, 4.0)).of_sum(weight)
    assert told == pytest.approx(np.var(sums, axis=0), rel=0.1)
    assert JitterModel().of_sum(weight) == (0.0, 0.0)


def test_error_bars_cover_a_jittering_scan():
    """15 pm of jitter (E6): 68 +- 5 % of columns within one standard error, for each component, although jitter is shared."""
    tracker, covered = StrainTracker(StrainSettings(reference="material:MoS2")), {}
    for seed in range(16):
        _, _, seen = scanned(seed, (0.85, 0.85), name="hexagonal")
        seen = seen[np.lexsort((seen[:, 1], seen[:, 0]))]
        detections = as_detections(seen, 0.4)
        frame = Frame(seed, np.zeros(SHAPE, np.uint8), float(seed), Origin("x"), pixel_size_yx_nm=(PX, PX))
        drift = DriftEstimate(total_yx_px=(0.0, 0.0))
        field, reading = tracker.update(frame, detections, find_lattice(detections, SHAPE), drift)
        assert reading.jitter.rms_yx_px[1] == pytest.approx(0.5, abs=0.2)
        for name, offset in (("exx", 0.0), ("eyy", 0.0), ("exy", 0.0)):
            value, sigma = getattr(field, name), getattr(field, f"sigma_{name}")
            known = np.isfinite(value)
            cell = 0.316 / 0.3161 - 1 if name != "exy" else offset
            covered.setdefault(name, []).append(np.mean(np.abs(value - cell)[known] < sigma[known]))
    share = {name: float(np.mean(values)) for name, values in covered.items()}
    assert all(0.63 <= value <= 0.73 for value in share.values()), share
