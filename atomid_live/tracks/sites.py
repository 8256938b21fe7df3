"""The memory of the tracks: one row per place of the specimen that holds, held or should hold a column."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from atomid_live.types import FloatArray, IntArray

OCCUPIED, VACANT = 0, 1


def _floats(*shape: int) -> FloatArray:
    return np.zeros((0, *shape))


def _integers(*shape: int) -> IntArray:
    return np.zeros((0, *shape), np.int64)


@dataclass(slots=True, eq=False)
class Sites:
    """Arrays of one length, a row per site.

    Attributes
    ----------
    track_id, state : ndarray, shape (N,), int64
        Number of the site's column; `OCCUPIED` or `VACANT`.
    home_yx_px : ndarray, shape (N, 2)
        Mean place with drift and straight distortion taken out, in pixels of the frame in which ids began.
    hits, held : ndarray, shape (N,), int64
        Frames that its position and brightness were learned from; frames that agreed with its state.
    amplitude, amplitude_variance : ndarray, shape (N,)
        Mean brightness with each frame's gain taken out, and the variance of one frame's value about it.
    place_variance : ndarray, shape (N,)
        Variance of one frame's position per axis in square pixels.
    doubt, doubt_run, doubt_onset : ndarray, shapes (N,), (N, 2), (N,)
        Evidence that the state is wrong in nats, since it began: sum of relative brightness and frames, and first frame.
    push, run, run_frames, onset : ndarray, shapes (N, 3), (N, 3), (N, 2), (N, 2)
        Sums that grow while y, x or brightness are off: the tests' own in standard errors, the plain ones, their frames, and
        the frame in which they began; the last axis of the latter two is (place, brightness).
    hot : ndarray, shape (N, 2), int64
        Whether place and brightness were far off in the frame before.
    turned : ndarray, shape (N,), int64
        Frame in which the state changed last, -1 for never.
    """

    track_id: IntArray = field(default_factory=_integers)
    state: IntArray = field(default_factory=_integers)
    home_yx_px: FloatArray = field(default_factory=lambda: _floats(2))
    hits: IntArray = field(default_factory=_integers)
    held: IntArray = field(default_factory=_integers)
    amplitude: FloatArray = field(default_factory=_floats)
    amplitude_variance: FloatArray = field(default_factory=_floats)
    place_variance: FloatArray = field(default_factory=_floats)
    doubt: FloatArray = field(default_factory=_floats)
    doubt_run: FloatArray = field(default_factory=lambda: _floats(2))
    doubt_onset: IntArray = field(default_factory=_integers)
    push: FloatArray = field(default_factory=lambda: _floats(3))
    run: FloatArray = field(default_factory=lambda: _floats(3))
    run_frames: IntArray = field(default_factory=lambda: _integers(2))
    onset: IntArray = field(default_factory=lambda: _integers(2))
    hot: IntArray = field(default_factory=lambda: _integers(2))
    turned: IntArray = field(default_factory=_integers)

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self.track_id)

    def add(self, track_id: IntArray, home_yx_px: FloatArray, amplitude: FloatArray, state: int) -> None:
        """Append new sites; a site that begins with a column has one hit."""
        count = len(track_id)
        if not count:
            return
        known = {
            "track_id": track_id,
            "home_yx_px": home_yx_px,
            "amplitude": amplitude,
            "state": np.full(count, state, np.int64),
            "hits": np.full(count, int(state == OCCUPIED), np.int64),
            "turned": np.full(count, -1, np.int64),
        }
        for part in fields(self):
            old = getattr(self, part.name)
            new = known.get(part.name, np.zeros((count, *old.shape[1:]), old.dtype))
            setattr(self, part.name, np.concatenate([old, new]))

    def keep(self, which: NDArray[np.bool_]) -> None:
        """Forget all other sites."""
        rows = np.flatnonzero(which)
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name).take(rows, axis=0))

    def settle_place(self, rows: IntArray, sequence: int) -> None:
        """End the test of the place of some sites."""
        self.push[rows, :2] = self.run[rows, :2] = 0.0
        self.run_frames[rows, 0], self.onset[rows, 0] = 0, sequence

    def settle_brightness(self, rows: IntArray, sequence: int) -> None:
        """End the test of the brightness of some sites."""
        self.push[rows, 2] = self.run[rows, 2] = 0.0
        self.run_frames[rows, 1], self.onset[rows, 1] = 0, sequence

    def settle_state(self, rows: IntArray) -> None:
        """End the test of the state of some sites."""
        self.doubt[rows], self.doubt_run[rows] = 0.0, 0.0
