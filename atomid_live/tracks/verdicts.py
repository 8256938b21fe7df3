"""From evidence to memory and events: what a frame teaches about each site, and which changes are confirmed by it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atomid_live.tracks.change import limit_for, vacant_nats
from atomid_live.tracks.kernels import doubt_all, learn_all, off_all, over_all, push_all
from atomid_live.tracks.sites import OCCUPIED, VACANT, Sites
from atomid_live.tracks.view import ESTABLISHED, BoolArray, Evidence, Seen
from atomid_live.types import FloatArray, IntArray

LEAST_PART = 0.6
LEAST_JUMP_SPACINGS, LARGE_JUMP_SPACINGS = 0.05, 0.15
LEAST_BRIGHTNESS, LARGE_BRIGHTNESS = 0.1, 0.35
NEIGHBOUR_SPACINGS = 1.6


@dataclass(frozen=True, slots=True)
class Change:
    """A confirmed change of one site: kind, site number, first frame, size with error and unit, words."""

    kind: str
    row: int
    onset: int
    size: float
    sigma: float
    unit: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """Frames that must agree, nearest distance of columns, and the frame's number."""

    confirm: int
    spacing_px: float
    sequence: int


def _off(sites: Sites, seen: Seen, evidence: Evidence, use: BoolArray) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Deviations (K, 3) of y, x and brightness from the sites' means, their standard errors, and which of `use` are known."""
    off, sigma, known = off_all(
        seen.row, use, evidence.offset_yx_px, evidence.offset_sigma_px, evidence.amplitude, evidence.amplitude_sigma,
        sites.amplitude,
    )  # fmt: skip
    return off, sigma, known


def learn(sites: Sites, seen: Seen, evidence: Evidence) -> None:
    """Move means and spreads of calm sites; a site that is being pushed keeps what it was."""
    off, sigma, use = _off(sites, seen, evidence, evidence.good & (sites.state[seen.row] == OCCUPIED))
    learn_all(
        seen.row, use, off, sigma, sites.hits, sites.home_yx_px, sites.amplitude, sites.place_variance,
        sites.amplitude_variance, ESTABLISHED,
    )  # fmt: skip


def judge(sites: Sites, seen: Seen, evidence: Evidence, rules: Rules) -> tuple[list[Change], BoolArray]:
    """Add this frame's evidence to each test; returns confirmed changes and which sites turned out to be none."""
    turned, never = _states(sites, seen, evidence, rules)
    moved = _moves(sites, seen, evidence, rules)
    return turned + moved, never


def _states(sites: Sites, seen: Seen, evidence: Evidence, rules: Rules) -> tuple[list[Change], BoolArray]:
    use = seen.inner & np.isfinite(evidence.amplitude) & (evidence.good | (seen.column < 0))
    row, expected = seen.row, sites.amplitude[seen.row]
    nats = vacant_nats(evidence.amplitude, expected, evidence.amplitude_sigma, LEAST_PART)
    doubt_all(
        row, use, evidence.amplitude / expected, nats, sites.state == VACANT, sites.held, sites.doubt, sites.doubt_run,
        sites.doubt_onset, rules.sequence,
    )  # fmt: skip
    over = np.flatnonzero(use & (sites.doubt[row] >= limit_for(rules.confirm)))
    changes, never = [], np.zeros(len(sites), np.bool_)
    for k in over:
        change = _turn(sites, int(row[k]), float(evidence.amplitude_sigma[k] / expected[k]), rules)
        if change is None:
            never[row[k]] = sites.state[row[k]] == OCCUPIED and sites.hits[row[k]] < ESTABLISHED
        else:
            changes.append(change)
    return changes, never


def _turn(sites: Sites, row: int, sigma: float, rules: Rules) -> Change | None:
    """Change the state of one site; None where it was never known well enough for that to be an event."""
    part, frames = sites.doubt_run[row, 0] / sites.doubt_run[row, 1], int(sites.doubt_run[row, 1])
    onset, error = int(sites.doubt_onset[row]), sigma / float(np.sqrt(frames))
    was_vacant = sites.state[row] == VACANT
    known = sites.held[row] >= rules.confirm if was_vacant else sites.hits[row] >= ESTABLISHED
    sites.settle_state(np.array([row]))
    if not was_vacant and not known:
        return None
    sites.state[row] = OCCUPIED if was_vacant else VACANT
    sites.settle_place(np.array([row]), rules.sequence)
    sites.settle_brightness(np.array([row]), rules.sequence)
    if was_vacant:
        sites.hits[row], sites.held[row] = frames, frames
        sites.amplitude[row] *= part
        sites.turned[row] = rules.sequence if known else -1
        note = f"a column of {100 * part:.0f} % of the brightness expected, in {frames} frames"
        return Change("vacancy heals", row, onset, float(part), error, "1", note) if known else None
    sites.held[row], sites.turned[row] = frames, rules.sequence
    note = f"{100 * part:.0f} % of the column's brightness is left, in {frames} frames"
    return Change("vacancy appears", row, onset, float(part - 1), error, "1", note)


def _moves(sites: Sites, seen: Seen, evidence: Evidence, rules: Rules) -> list[Change]:
    use = evidence.good & seen.inner & (sites.state[seen.row] == OCCUPIED) & (sites.hits[seen.row] >= ESTABLISHED)
    off, sigma, use = _off(sites, seen, evidence, use)
    r = seen.row
    push_all(r, use, off, sigma, sites.push, sites.run, sites.run_frames, sites.onset, sites.hot, rules.sequence)
    limit = limit_for(rules.confirm)
    far, other = over_all(r, use, sites.push, limit)
    if not len(far) and not len(other):
        return []
    sources = _changing(sites, seen, rules)
    changes = [_jump(sites, int(r[k]), sigma[k, :2], rules, sources) for k in far]
    changes += [_brightness(sites, int(r[k]), float(sigma[k, 2]), rules, sources) for k in other]
    return [change for change in changes if change is not None]


def _changing(sites: Sites, seen: Seen, rules: Rules) -> IntArray:
    """Sites that are becoming, or just became, another: their neighbours' fits move with them."""
    r = seen.row
    recent = (sites.turned[r] >= 0) & (rules.sequence - sites.turned[r] <= 2 * rules.confirm)
    return np.asarray(r[recent | (sites.doubt[r] >= limit_for(rules.confirm) / 2)])


def _beside(sites: Sites, row: int, sources: IntArray, rules: Rules) -> bool:
    away = sites.home_yx_px[sources] - sites.home_yx_px[row]
    return bool((np.hypot(away[:, 0], away[:, 1]) < NEIGHBOUR_SPACINGS * rules.spacing_px).any())


def _jump(sites: Sites, row: int, sigma: FloatArray, rules: Rules, sources: IntArray) -> Change | None:
    """Give a site its new place; an event only where it is farther off than a strained lattice moves its columns."""
    frames, onset = int(sites.run_frames[row, 0]), int(sites.onset[row, 0])
    moved = sites.run[row, :2] / frames
    size, error = float(np.hypot(*moved)), float(np.sqrt((sigma**2).mean() / frames))
    sites.home_yx_px[row] += moved
    sites.settle_place(np.array([row]), rules.sequence)
    sites.hits[row] = max(frames, ESTABLISHED)
    least = (LARGE_JUMP_SPACINGS if _beside(sites, row, sources, rules) else LEAST_JUMP_SPACINGS) * rules.spacing_px
    if size < least:
        return None
    note = f"by {moved[1]:+.2f}, {moved[0]:+.2f} px (x, y), in {frames} frames"
    return Change("column jumps", row, onset, size, error, "px", note)


def _brightness(sites: Sites, row: int, sigma: float, rules: Rules, sources: IntArray) -> Change | None:
    """Give a site its new brightness; an event only from a tenth of it on."""
    frames, onset, old = int(sites.run_frames[row, 1]), int(sites.onset[row, 1]), float(sites.amplitude[row])
    step = float(sites.run[row, 2]) / frames
    sites.amplitude[row] = old + step
    sites.settle_brightness(np.array([row]), rules.sequence)
    sites.hits[row] = max(frames, ESTABLISHED)
    if abs(step) < (LARGE_BRIGHTNESS if _beside(sites, row, sources, rules) else LEAST_BRIGHTNESS) * abs(old):
        return None
    note = f"to {100 * (1 + step / old):.0f} % of the column's brightness, in {frames} frames"
    return Change("intensity step", row, onset, step / old, sigma / float(np.sqrt(frames)) / abs(old), "1", note)


def state_counts(sites: Sites, rows: IntArray, confirm: int) -> tuple[int, int]:
    """Sites of known state among `rows`, and those of them that hold a column."""
    full = (sites.state[rows] == OCCUPIED) & (sites.hits[rows] >= confirm)
    empty = (sites.state[rows] == VACANT) & (sites.held[rows] >= confirm)
    return int(full.sum() + empty.sum()), int(full.sum())
