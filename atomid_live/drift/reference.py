"""What a frame is registered against: the mean of the last aligned frames, moved on when the specimen leaves it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from atomid_live.drift.landmarks import Landmarks, find_landmarks, search_landmarks
from atomid_live.drift.overlap import Image, accumulate
from atomid_live.drift.periods import Periods
from atomid_live.drift.register import Correlator, Pair, Spectrum

MOST_FRAMES = 16
REFRESH_AT_ONCE = 3
REFRESH_AT = (5, 8, 12)
REFRESH_EVERY = 8


class Reference:
    """Running mean of aligned frames in the coordinates of one of them.

    Never the frame before alone (errors would add up) and never the first frame alone (it leaves the field and the beam
    changes it): each sure frame enters the mean with at most `MOST_FRAMES` remembered. `move` shifts the mean by whole
    pixels, so that moving costs no sharpness and no accuracy.
    """

    def __init__(self, correlator: Correlator, image: Image, spectrum: Spectrum) -> None:
        self._correlator = correlator
        self.mean: Image = image.copy()
        self._count: Image = np.ones_like(image)
        self.spectrum = spectrum
        self.periods: Periods | None = correlator.periods(spectrum)
        self.frames = 1
        self._stale = 0
        self._search: Iterator[Landmarks | None] | None = None
        self.landmarks: Landmarks = find_landmarks(self.mean, self._count, self.periods)

    def prefer(self, periods: Periods | None) -> None:
        """Take lattice vectors from elsewhere (the columns) and look for landmarks again."""
        if periods is not None:
            self.periods, self._search = periods, None
            self.landmarks = find_landmarks(self.mean, self._count, self.periods)

    def add(self, image: Image, shift_yx: Pair) -> None:
        """Let an aligned frame into the mean; landmarks and spectrum follow, over a few frames, when enough has changed."""
        accumulate(self.mean, self._count, image, shift_yx[0], shift_yx[1], MOST_FRAMES)
        self.frames += 1
        self._stale += 1
        if self.frames <= REFRESH_AT_ONCE:
            self._refresh()
        elif self._search is not None:
            self._go_on()
        elif self.frames in REFRESH_AT or self._stale >= REFRESH_EVERY:
            self._stale = 0
            self._search = search_landmarks(self.mean, self._count, self.periods)
            self._go_on()

    def move(self, image: Image, shift_yx: Pair) -> tuple[int, int]:
        """Change to the coordinates of a sure frame seen at `shift_yx`; returns the whole-pixel move.

        A feature at p is at p + move afterwards. What comes into view is filled from the frame.
        """
        dy, dx = (math.floor(s + 0.5) for s in shift_yx)
        mean, count = np.zeros_like(self.mean), np.zeros_like(self._count)
        if abs(dy) < mean.shape[0] and abs(dx) < mean.shape[1]:
            to, source = _overlap(self.mean.shape, dy, dx)
            mean[to], count[to] = self.mean[source], self._count[source]
        fresh = count == 0
        mean[fresh] = image[fresh]
        self.mean, self._count = mean, np.where(fresh, np.float32(1), count)
        self._refresh()
        return dy, dx

    def _go_on(self) -> None:
        """Renew one part a frame, so that no single frame pays for all."""
        found = next(self._search) if self._search is not None else None
        if found is not None:
            self.landmarks, self._search = found, None
            self.spectrum = self._correlator.spectrum(self.mean)

    def _refresh(self) -> None:
        self._stale, self._search = 0, None
        self.spectrum = self._correlator.spectrum(self.mean)
        self.landmarks = find_landmarks(self.mean, self._count, self.periods)


def _overlap(shape: tuple[int, ...], dy: int, dx: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    rows, cols = shape[0], shape[1]
    to = (slice(max(0, dy), min(rows, rows + dy)), slice(max(0, dx), min(cols, cols + dx)))
    source = (slice(max(0, -dy), min(rows, rows - dy)), slice(max(0, -dx), min(cols, cols - dx)))
    return to, source
