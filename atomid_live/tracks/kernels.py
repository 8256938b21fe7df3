"""The sums over all sites of a frame, compiled: tests of place and brightness, tests of the state, means (numba, serial)."""

from __future__ import annotations

import numba
import numpy as np

from atomid_live.tracks.change import MOST_PUSH, SLACK

CALM = 3.0
MEMORY = 20


@numba.njit(nogil=True, cache=True)
def place_all(home, shift, bend, centre, low, high, margin_low, margin_high):  # type: ignore[no-untyped-def]
    """Row numbers and places of the homes that fall into a frame, and whether they lie inside its margin."""
    row, place, inner = np.empty(len(home), np.int64), np.empty((len(home), 2)), np.empty(len(home), np.bool_)
    count = 0
    for i in range(len(home)):
        dy, dx = home[i, 0] - centre[0], home[i, 1] - centre[1]
        y = home[i, 0] + shift[0] + bend[0, 0] * dy + bend[0, 1] * dx
        x = home[i, 1] + shift[1] + bend[1, 0] * dy + bend[1, 1] * dx
        if low <= y < high[0] and low <= x < high[1]:
            row[count], place[count, 0], place[count, 1] = i, y, x
            inner[count] = margin_low <= y <= margin_high[0] and margin_low <= x <= margin_high[1]
            count += 1
    return row[:count].copy(), place[:count].copy(), inner[:count].copy()


@numba.njit(nogil=True, cache=True)
def off_all(row, use, offset, offset_sigma, amplitude, amplitude_sigma, mean):  # type: ignore[no-untyped-def]
    """Deviations (K, 3) of y, x and brightness from the sites' means, their standard errors, and which of `use` are known."""
    off, sigma, known = np.empty((len(row), 3)), np.empty((len(row), 3)), use.copy()
    for k in range(len(row)):
        for c in range(2):
            off[k, c], sigma[k, c] = offset[k, c], offset_sigma[k, c]
        off[k, 2], sigma[k, 2] = amplitude[k] - mean[row[k]], amplitude_sigma[k]
        for c in range(3):
            known[k] = known[k] and np.isfinite(off[k, c])
    return off, sigma, known


@numba.njit(nogil=True, cache=True)
def over_all(row, use, push, limit):  # type: ignore[no-untyped-def]
    """Rows of `use` whose sums of place, and of brightness, are over the limit."""
    far, bright = np.zeros(len(row), np.bool_), np.zeros(len(row), np.bool_)
    for k in range(len(row)):
        if use[k]:
            i = row[k]
            far[k] = np.hypot(push[i, 0], push[i, 1]) > limit
            bright[k] = abs(push[i, 2]) > limit
    return np.flatnonzero(far), np.flatnonzero(bright)


@numba.njit(nogil=True, cache=True)
def push_all(row, use, off, sigma, push, run, run_frames, onset, hot, sequence):  # type: ignore[no-untyped-def]
    """Crosier's sums of place (axes 0, 1) and brightness (axis 2) after one frame; `change.pushed` is its reference.

    A run begins when a sum leaves zero, and again at a deviation of three standard errors after a calm frame, which is where
    a sudden change began.
    """
    for k in range(len(row)):
        if not use[k]:
            continue
        i = row[k]
        for part in range(2):
            first, last = (0, 2) if part == 0 else (2, 3)
            size = 0.0
            for c in range(first, last):
                size += (off[k, c] / sigma[k, c]) ** 2
            size = np.sqrt(size)
            bound = min(1.0, (MOST_PUSH + SLACK) / max(size, 1e-12))
            length, was = 0.0, False
            for c in range(first, last):
                was = was or push[i, c] != 0.0
                push[i, c] += off[k, c] / sigma[k, c] * bound
                length += push[i, c] ** 2
            length = np.sqrt(length)
            keep = max(0.0, 1.0 - SLACK / max(length, 1e-12))
            for c in range(first, last):
                push[i, c] *= keep
            loud = size > CALM
            if keep > 0.0 and (not was or (loud and not hot[i, part])):
                for c in range(first, last):
                    run[i, c] = 0.0
                run_frames[i, part], onset[i, part] = 0, sequence
            hot[i, part] = loud
            if keep > 0.0:
                for c in range(first, last):
                    run[i, c] += off[k, c]
                run_frames[i, part] += 1


@numba.njit(nogil=True, cache=True)
def doubt_all(row, use, part, nats, vacant, held, doubt, doubt_run, doubt_onset, sequence):  # type: ignore[no-untyped-def]
    """Evidence against the state of each site after one frame; `nats` speaks for a vacancy, `part` is relative brightness."""
    for k in range(len(row)):
        if not use[k]:
            continue
        i = row[k]
        against = -nats[k] if vacant[i] else nats[k]
        if against <= 0:
            held[i] += 1
        before = doubt[i]
        doubt[i] = max(0.0, before + against)
        if doubt[i] == 0.0:
            doubt_run[i, 0] = doubt_run[i, 1] = 0.0
            continue
        if before == 0.0:
            doubt_run[i, 0] = doubt_run[i, 1] = 0.0
            doubt_onset[i] = sequence
        doubt_run[i, 0] += part[k]
        doubt_run[i, 1] += 1.0


@numba.njit(nogil=True, cache=True)
def learn_all(row, use, off, sigma, hits, home, amplitude, place_variance, amplitude_variance, established):  # type: ignore[no-untyped-def]
    """Means and spreads of calm sites after one frame, over the last twenty or so."""
    for k in range(len(row)):
        if not use[k]:
            continue
        i = row[k]
        calm = True
        for c in range(3):
            calm = calm and abs(off[k, c]) <= CALM * sigma[k, c]
        if not calm and hits[i] >= established:
            continue
        n = min(hits[i] + 1, MEMORY)
        place_variance[i] += ((off[k, 0] ** 2 + off[k, 1] ** 2) / 2 - place_variance[i]) / n
        amplitude_variance[i] += (off[k, 2] ** 2 - amplitude_variance[i]) / n
        home[i, 0] += off[k, 0] / n
        home[i, 1] += off[k, 1] / n
        amplitude[i] += off[k, 2] / n
        hits[i] += 1


@numba.njit(nogil=True, cache=True)
def gather_all(column, place, flags, yx, height, poor, reach, usable, mean):  # type: ignore[no-untyped-def]
    """Per site in view: offset (y, x) and height of its column, NaN where it has no good one; whether it shows what is usual.

    `usable` says which sites are known well enough for that; `values` holds offset and relative height of those that show it.
    """
    n = len(column)
    offset, amplitude = np.full((n, 2), np.nan), np.full(n, np.nan)
    good, near = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    values = np.empty((n, 3))
    count = 0
    for k in range(n):
        c = column[k]
        if c < 0 or flags[c] & poor:
            continue
        good[k] = True
        dy, dx = yx[c, 0] - place[k, 0], yx[c, 1] - place[k, 1]
        offset[k, 0], offset[k, 1], amplitude[k] = dy, dx, height[c]
        if usable[k] and mean[k] > 0 and dy * dy + dx * dx < reach * reach:
            near[k] = True
            values[count, 0], values[count, 1], values[count, 2] = dy, dx, height[c] / mean[k]
            count += 1
    return offset, amplitude, good, near, values[:count].copy()
