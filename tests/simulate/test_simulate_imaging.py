"""The image holds the right electrons in the right pixels, and the as-scanned truth is where the columns are seen."""

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.special import erf

from atomid_live.simulate.imaging import Probe, as_scanned, render
from atomid_live.simulate.scan import ScanErrors, ScanPath, scan_path

SHAPE = (240, 320)
GRID = np.array([(y, x) for y in np.arange(45.0, 210.0, 45.0) for x in np.arange(35.0, 300.0, 50.0)])


def spots(seed: int = 3) -> np.ndarray:
    """Well separated columns at odd places."""
    return GRID + np.random.default_rng(seed).uniform(-2, 2, GRID.shape)


def window(image: np.ndarray, at: np.ndarray, half: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut a window around a position: pixels, rows, columns."""
    r, c = np.round(at).astype(int)
    rows, cols = np.mgrid[r - half : r + half + 1, c - half : c + half + 1]
    return image[rows, cols].astype(float), rows, cols


def centre_of_gravity(image: np.ndarray, at: np.ndarray, half: int) -> np.ndarray:
    """First moment of a window."""
    w, rows, cols = window(image, at, half)
    return np.array([(w * rows).sum(), (w * cols).sum()]) / w.sum()


def fitted(image: np.ndarray, at: np.ndarray, half: int) -> np.ndarray:
    """Least-squares Gaussian with free height, width and floor."""
    w, rows, cols = window(image, at, half)

    def misfit(p: np.ndarray) -> np.ndarray:
        return (p[4] + p[2] * np.exp(-((rows - p[0]) ** 2 + (cols - p[1]) ** 2) / (2 * p[3] ** 2)) - w).ravel()

    return np.asarray(least_squares(misfit, [*at, w.max(), 3.0, 0.0]).x[:2])


def test_a_column_is_a_pixel_integrated_gaussian() -> None:
    image = render(np.array([[20.3, 31.8]]), np.array([500.0]), 2.2, (41, 60))
    edges_y, edges_x = np.arange(42) - 0.5, np.arange(61) - 0.5
    along_y = np.diff(0.5 * erf((edges_y - 20.3) / (2.2 * 2**0.5)))
    along_x = np.diff(0.5 * erf((edges_x - 31.8) / (2.2 * 2**0.5)))
    np.testing.assert_allclose(image, 500 * np.outer(along_y, along_x), atol=500 * 6e-6)


@pytest.mark.parametrize("sigma", [0.8, 1.6, 3.5])
def test_electrons_are_conserved(sigma: float) -> None:
    image = render(spots(), np.full(len(GRID), 100.0), Probe(sigma, 1.3, 0.7, 0.2), SHAPE)
    assert image.sum() == pytest.approx(100 * len(GRID), rel=2e-4)


def test_columns_beyond_the_border_leave_their_part() -> None:
    image = render(np.array([[-0.5, 30.0], [500.0, 500.0]]), np.array([100.0, 100.0]), 3.0, (40, 60))
    assert image.sum() == pytest.approx(50.0, rel=1e-3)


def test_adds_to_the_image_given() -> None:
    out = np.full((40, 60), 7.0, np.float32)
    result = render(np.array([[20.0, 30.0]]), np.array([100.0]), 3.0, (40, 60), out=out)
    assert result is out
    assert out.sum() == pytest.approx(7 * 2400 + 100, rel=1e-4)


def test_ellipse_has_the_moments_asked_for() -> None:
    probe = Probe(3.0, 1.4, 0.5)
    image = render(np.array([[50.3, 60.7]]), np.array([1000.0]), probe, (101, 121)).astype(float)
    y, x = np.mgrid[:101, :121]
    dy, dx = y - 50.3, x - 60.7
    total = image.sum()
    yy, xx, xy = ((image * m).sum() / total for m in (dy * dy, dx * dx, dx * dy))
    lengths = np.sqrt(np.linalg.eigvalsh([[xx, xy], [xy, yy]]))
    # A pixel adds 1/12 to the variance, and the ridge of the ellipse is followed row by row, not within a row.
    np.testing.assert_allclose(lengths, [3 / 1.4**0.5, 3 * 1.4**0.5], rtol=0.01)
    assert 0.5 * np.arctan2(2 * xy, xx - yy) == pytest.approx(0.5, abs=0.01)


PATHS = {
    "straight": (ScanErrors(), 0.0, 2.0),
    "drift": (ScanErrors(), 24.0, 4.0),
    "drift, narrow": (ScanErrors(), 24.0, 1.7),
    "hum": (ScanErrors(hum_yx_px=(0.2, 0.4), line_time_s=0.0101), 6.0, 3.0),
    "flyback": (ScanErrors(flyback_px=1.2), 0.0, 2.0),
    "jitter": (ScanErrors(jitter_yx_px=(0.4, 0.8), jitter_rows=4.0), 12.0, 3.0),
    "tail": (ScanErrors(jitter_yx_px=(0.3, 0.3)), 3.0, 2.0),
}


@pytest.mark.parametrize("name", list(PATHS))
def test_truth_is_the_centre_of_gravity_of_each_noise_free_column(name: str) -> None:
    errors, drift, sigma = PATHS[name]
    path = scan_path(np.random.default_rng(5), SHAPE[0], errors)
    path = path.with_drift(np.linspace(-0.5, 0.5, SHAPE[0])[:, None] * [0.2 * drift, drift])
    probe = Probe(sigma, 1.1, 0.3, 0.15 if name == "tail" else 0.0)
    yx = spots()
    image = render(yx, np.full(len(yx), 1000.0), probe, SHAPE, path)
    truth = as_scanned(yx, probe, path)
    measured = np.array([centre_of_gravity(image, at, 22) for at in truth])
    np.testing.assert_allclose(measured, truth, atol=2e-3)
    if name != "straight":
        assert np.abs(truth - yx).max() > 0.1


@pytest.mark.parametrize("name", ["straight", "drift", "drift, narrow", "flyback"])
def test_truth_is_what_a_gaussian_fit_finds_on_a_smooth_scan(name: str) -> None:
    errors, drift, sigma = PATHS[name]
    path = scan_path(np.random.default_rng(5), SHAPE[0], errors)
    path = path.with_drift(np.linspace(-0.5, 0.5, SHAPE[0])[:, None] * [0.2 * drift, drift])
    yx = spots()
    image = render(yx, np.full(len(yx), 1000.0), sigma, SHAPE, path)
    truth = as_scanned(yx, sigma, path)
    np.testing.assert_allclose([fitted(image, at, 18) for at in truth], truth, atol=0.01)


def test_rows_are_those_of_a_specimen_that_moves_while_it_is_scanned() -> None:
    """Brute force: for every row render the specimen where it is at that time, keep that row alone."""
    yx, counts = spots(), np.full(len(GRID), 200.0)
    moved = np.linspace(-0.5, 0.5, SHAPE[0])[:, None] * np.array([7.0, -15.0])
    brute = np.zeros(SHAPE, np.float32)
    for row in range(0, SHAPE[0], 7):
        brute[row] = render(yx + moved[row], counts, 2.5, SHAPE)[row]
    image = render(yx, counts, 2.5, SHAPE, ScanPath.straight(SHAPE[0]).with_drift(moved))
    np.testing.assert_allclose(image[::7], brute[::7], atol=1e-3)


def test_drift_within_the_frame_looks_like_strain() -> None:
    """A specimen drifting by (sy, sx) px per frame of R rows: eyy = sy/R and shear du_x/dy = sx/R to first order."""
    sy, sx = 5.0, -9.0
    rows = SHAPE[0]
    path = ScanPath.straight(rows).with_drift(((np.arange(rows) + 0.5) / rows - 0.5)[:, None] * [sy, sx])
    yx = spots()
    seen = as_scanned(yx, 2.0, path)
    centred = np.column_stack([yx, np.ones(len(yx))])
    gradient = np.linalg.lstsq(centred, seen, rcond=None)[0][:2].T - np.eye(2)
    ky, kx = sy / rows, sx / rows
    np.testing.assert_allclose(gradient, [[ky / (1 - ky), 0], [kx / (1 - ky), 0]], atol=1e-6)
