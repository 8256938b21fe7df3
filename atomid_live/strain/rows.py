"""Row jitter: the random displacement that all columns on the same rows share, and what it does to strain.

The probe does not start every line at the same place. Columns on a row are displaced together, those some rows further down by
something else, so the displacement shows in the covariance of residuals of columns that share rows, whatever their distance
along x; the columns' independent errors do not enter it. What columns that share a *pixel column* have in common is taken off:
a specimen's own unevenness knows no fast axis.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numba
import numpy as np

from atomid_live.types import NAN, FloatArray, Jitter

SMOOTH_DEGREE = 4
LEAST_COLUMNS = 60
LEAST_ROWS = 96
OUTLIER_SPREADS = 5.0
LONGEST_ROWS = 60
BANDS = 16
ACROSS_PX = 8
REMEMBERED = 12
WINDOW_LENGTHS = 1.5
CHANCE_SIGMAS = 2.0
LEAST_OWN = 0.02
ROUNDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class RowCovariance:
    """Covariance of both coordinates' residuals by distance in rows, as sums over bands of rows.

    Attributes
    ----------
    product, pairs : ndarray, shape (2, BANDS, LONGEST_ROWS + 1)
        For y and x: sum over pairs of columns k rows apart of the product of their residuals, and number of pairs.
    across : ndarray, shape (2, 2, BANDS)
        For y and x: the same two sums over columns less than nine pixel columns apart, by bands of pixel columns.
    lost : float
        Share of the displacement that the smooth terms took away, per row of correlation.
    total : ndarray, shape (2,)
        Variance of all residuals.
    """

    product: FloatArray = field(repr=False)
    pairs: FloatArray = field(repr=False)
    across: FloatArray = field(repr=False)
    lost: float
    total: FloatArray = field(default_factory=lambda: np.zeros(2))


@numba.njit(nogil=True, cache=True)
def _by_row(place, rest, length, bands, lags):  # type: ignore[no-untyped-def]
    """Sums over pairs of different columns, per band of `length` // bands rows and distance in rows."""
    count, total = np.zeros(length), np.zeros(length)
    product, pairs = np.zeros((bands, lags + 1)), np.zeros((bands, lags + 1))
    for i in range(len(place)):
        at = min(max(int(np.rint(place[i])), 0), length - 1)
        count[at] += 1
        total[at] += rest[i]
        band = at * bands // length
        product[band, 0] -= rest[i] * rest[i]
        pairs[band, 0] -= 1
    for at in range(length):
        band = at * bands // length
        for k in range(min(lags, length - 1 - at) + 1):
            product[band, k] += total[at] * total[at + k]
            pairs[band, k] += count[at] * count[at + k]
    return product, pairs


def _smooth_rest(yx_px: FloatArray, rest_px: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Take a smooth surface (polynomials to degree 4) off residuals of shape (2, N), outliers bounded."""
    y, x = (2 * yx_px / (np.array(shape) - 1) - 1).T
    ys, xs = [np.ones_like(y)], [np.ones_like(x)]
    for _ in range(SMOOTH_DEGREE):
        ys.append(ys[-1] * y)
        xs.append(xs[-1] * x)
    terms = np.stack([ys[i] * xs[j] for i in range(SMOOTH_DEGREE + 1) for j in range(SMOOTH_DEGREE + 1 - i)])
    square = terms @ terms.T
    rest = rest_px - np.linalg.solve(square, terms @ rest_px.T).T @ terms
    limit = OUTLIER_SPREADS * 1.4826 * np.median(np.abs(rest), axis=1)[:, None]
    if (np.abs(rest) > limit).any():
        rest = np.clip(rest, -limit, limit)
        rest -= np.linalg.solve(square, terms @ rest.T).T @ terms
    return np.asarray(rest)


def row_covariance(yx_px: FloatArray, rest_yx_px: FloatArray, shape: tuple[int, int]) -> RowCovariance | str:
    """Covariance of residuals by distance in rows.

    Parameters
    ----------
    yx_px : ndarray, shape (N, 2)
        Columns of one frame.
    rest_yx_px : ndarray, shape (N, 2)
        Their distances from the straight lattice.
    shape : (int, int)
        Rows and columns of the frame.

    Returns
    -------
    RowCovariance or str
        The reason when there are too few columns or rows.
    """
    rows, cols = shape
    if len(yx_px) < LEAST_COLUMNS or rows < LEAST_ROWS:
        return f"{len(yx_px)} columns on {rows} rows; row jitter needs {LEAST_COLUMNS} columns and {LEAST_ROWS} rows"
    rest = _smooth_rest(yx_px, rest_yx_px.T, shape)
    along = [_by_row(np.ascontiguousarray(yx_px[:, 0]), np.ascontiguousarray(each), rows, BANDS, LONGEST_ROWS) for each in rest]
    other = [_by_row(np.ascontiguousarray(yx_px[:, 1]), np.ascontiguousarray(each), cols, BANDS, ACROSS_PX) for each in rest]
    twice = np.array([0.5] + [1.0] * ACROSS_PX)
    across = np.array([[product @ twice, pairs @ twice] for product, pairs in other])
    product, pairs = np.stack([a[0] for a in along]), np.stack([a[1] for a in along])
    terms = (SMOOTH_DEGREE + 1) * (SMOOTH_DEGREE + 2) // 2
    total = (rest**2).sum(axis=1) / max(rest.shape[1] - terms, 1)
    return RowCovariance(product, pairs, across, (SMOOTH_DEGREE + 1) / rows, total)


@dataclass(frozen=True, slots=True)
class JitterModel:
    """Variance (square pixels, for y and x) of the row-common displacement and the rows over which it is correlated.

    The covariance of columns k rows apart is `variance_yx` exp(-k / `rows_yx`), 0 when there is none. A column draws on other
    rows for its y than for its x, so the two differ. `own_yx` is the variance left to the columns' independent errors.
    """

    variance_yx: tuple[float, float] = (0.0, 0.0)
    rows_yx: tuple[float, float] = (0.0, 0.0)
    own_yx: tuple[float, float] = (NAN, NAN)

    def of_sum(self, coefficient: FloatArray) -> tuple[float, float]:
        """Variance (y, x) that row jitter gives the sum of coefficient (rows,) times the displacement of each row."""
        y, x = (v * _share(coefficient, rows) for v, rows in zip(self.variance_yx, self.rows_yx, strict=True))
        return y, x

    @property
    def any(self) -> bool:
        """Whether there is jitter at all."""
        return max(self.variance_yx) > 0


def _share(coefficient: FloatArray, rows: float) -> float:
    """Variance of a sum over rows of unit variance, correlated over `rows`."""
    if not rows > 0:
        return 0.0
    reach = int(8 * rows) + 1
    shape = np.exp(-np.abs(np.arange(-reach, reach + 1)) / rows)
    return max(float(coefficient @ np.convolve(coefficient, shape)[reach:-reach]), 0.0)


def _model_of(product: FloatArray, pairs: FloatArray, common: FloatArray, lost: float) -> tuple[FloatArray, FloatArray]:
    """Variance (2,) and correlation length in rows, of y, x and both, from sums over pairs (2, LONGEST_ROWS + 1).

    What is `common` (2,) is taken off.
    """
    covariance = product / np.maximum(pairs, 1.0) - common[:, None]
    # columns are wider than a row, so that neighbouring rows tell the same and make the estimate steadier
    near = (product[:, 0] / 2 + product[:, 1]) / np.maximum(pairs[:, 0] / 2 + pairs[:, 1], 1.0) - common
    each = [
        _restored(*pair, lost) for pair in (*zip(covariance, near, strict=True), (covariance.sum(axis=0), float(near.sum())))
    ]
    return np.array([start for start, _ in each[:2]]), np.array([length for _, length in each]) / 2


def _restored(covariance: FloatArray, start: float, lost: float) -> tuple[float, float]:
    """Variance and integral correlation length in rows, after the smooth terms took their share.

    Fitting m smooth terms along y to H rows takes m/H of variance times correlation length off the covariance at every short
    distance, which makes it negative further out; this is put back.
    """
    length, gone = 1.0, 0.0
    for _ in range(ROUNDS):
        length = _length(covariance + gone, start + gone)
        gone = lost * max(start + gone, 0.0) * length
    return start + gone, length


def _length(covariance: FloatArray, start: float) -> float:
    """Integral of the correlation over rows, cut where it has become noise."""
    length, start = 1.0, max(start, 1e-12)
    for k in range(1, len(covariance)):
        length += 2 * float(covariance[k]) / start
        if k >= WINDOW_LENGTHS * length:
            break
    return min(max(length, 1.0), 2.0 * LONGEST_ROWS)


def _ratio(sums: FloatArray) -> FloatArray:
    return np.asarray(sums[:, 0] / np.maximum(sums[:, 1], 1.0))


def _near_error(product: FloatArray, pairs: FloatArray) -> FloatArray:
    """Standard error (2,) of the covariance of nearest rows, from its scatter between bands, sums of shape (2, BANDS, ...)."""
    p, n = (part[:, :, 0] / 2 + part[:, :, 1] for part in (product, pairs))
    total = np.maximum(n.sum(axis=1), 1.0)
    away = p - n * (p.sum(axis=1) / total)[:, None]
    return np.asarray(np.sqrt((away**2).sum(axis=1)) / total)


def jitter_model(covariances: Sequence[RowCovariance]) -> JitterModel:
    """Model for the error bars from the covariances of some frames of one scan; no jitter where it is no more than chance."""
    if not covariances:
        return JitterModel()
    product, pairs = (np.sum([getattr(c, name) for c in covariances], axis=0) for name in ("product", "pairs"))
    common = _ratio(np.sum([c.across for c in covariances], axis=(0, 3)))
    variance, rows = _model_of(product.sum(axis=1), pairs.sum(axis=1), common, covariances[-1].lost)
    if not variance.sum() > CHANCE_SIGMAS * float(np.linalg.norm(_near_error(product, pairs))):
        return JitterModel()
    y, x = np.maximum(variance, 0.0)
    total = np.mean([c.total for c in covariances], axis=0)
    own_y, own_x = np.maximum(total - np.maximum(variance, 0.0), LEAST_OWN * total)
    return JitterModel((float(y), float(x)), (float(rows[0]), float(rows[1])), (float(own_y), float(own_x)))


def jitter_of(found: RowCovariance | str) -> Jitter:
    """Rms and correlation length of one frame, with errors from leaving out one band after the other (jackknife)."""
    if isinstance(found, str):
        return Jitter(reason=found)
    product, pairs, across = found.product.sum(axis=1), found.pairs.sum(axis=1), found.across.sum(axis=2)
    common = _ratio(across)
    variance, rows = _model_of(product, pairs, common, found.lost)
    left = [_model_of(product - found.product[:, b], pairs - found.pairs[:, b], common, found.lost) for b in range(BANDS)]
    others = [_ratio(across - found.across[:, :, b]) for b in range(BANDS)]
    square = (BANDS - 1) * np.var(np.array([[*v, r[2]] for v, r in left]), axis=0)
    square[:2] += (BANDS - 1) * np.var(others, axis=0)
    spread = np.sqrt(square)
    rms = np.sqrt(np.maximum(variance, 0.0))
    # half of what one error of the variance does to its root either way: the derivative has no end at zero
    sigma = (np.sqrt(np.maximum(variance, 0.0) + spread[:2]) - np.sqrt(np.maximum(variance - spread[:2], 0.0))) / 2
    known = bool((variance > 2 * spread[:2]).any())
    return Jitter(
        (float(rms[0]), float(rms[1])),
        (float(sigma[0]), float(sigma[1])),
        float(rows[2]) if known else NAN,
        float(spread[2]) if known else NAN,
        "",
    )


class JitterMemory:
    """The last twelve frames' covariances: jitter belongs to the scan, and one frame tells it only to a tenth or so."""

    def __init__(self) -> None:
        self._kept: deque[RowCovariance] = deque(maxlen=REMEMBERED)

    def add(self, found: RowCovariance | str) -> None:
        """Remember a frame."""
        if not isinstance(found, str):
            self._kept.append(found)

    @property
    def model(self) -> JitterModel:
        """What the error bars hold."""
        return jitter_model(tuple(self._kept))
