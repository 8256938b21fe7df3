"""`evaluate tracks`: misses and false alarms by kind and scene, ids, loss rate; its own section of the results page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from atomid_live.evaluate.report import place
from atomid_live.evaluate.tables import table
from atomid_live.evaluate.track_runs import Score, run_scene
from atomid_live.evaluate.track_scenes import CALM, SCENES
from atomid_live.evaluate.track_series import Series, series_lines

KINDS = (
    "vacancy appears", "vacancy heals", "column jumps", "intensity step", "lattice-parameter step", "grain change",
)  # fmt: skip
OWNER = "tracks"
SERIES = Path("series") / "graphene_si_hop_48frames.npz"


def _upper(count: int) -> float:
    """Count that is exceeded with 5 % probability by a Poisson process that gave `count` (Garwood's limit)."""
    from scipy.stats import chi2

    return float(chi2.ppf(0.95, 2 * (count + 1)) / 2)


def _events(scores: dict[str, Score]) -> list[str]:
    rows = []
    for name, score in scores.items():
        for kind in KINDS:
            if score.true[kind] or score.false[kind]:
                missed = score.true[kind] - score.found[kind]
                rows.append((name, kind, str(score.true[kind]), str(missed), str(score.false[kind])))
    return table(("scene", "kind", "happened", "missed", "told without reason"), rows)


def _ids(scores: dict[str, Score]) -> list[str]:
    rows = []
    for name, score in scores.items():
        false, thousand = sum(score.false.values()), score.column_frames / 1000
        rows.append(
            (
                name, str(score.frames), str(score.column_frames),
                f"{1000 * score.wrong_ids / max(score.column_frames, 1):.2f}",
                str(score.unsure_frames), str(score.begun), f"{false / thousand:.4f}" if thousand else "",
                f"{_upper(false) / thousand:.4f}" if thousand else "",
            )
        )  # fmt: skip
    head = ("scene", "frames", "columns with an id", "of another column, per 1000", "frames with unsure ids", "ids begun anew",
            "false events per 1000 columns", "95 % limit")  # fmt: skip
    return table(head, rows)


def _times(scores: dict[str, Score]) -> str:
    delay = np.array([d for score in scores.values() for d in score.delay])
    error = np.array([e for score in scores.values() for e in score.onset_error])
    if not len(delay):
        return "No event was found."
    return (
        f"An event is told {np.median(delay):.0f} frames after it began (median of {len(delay)}; nine in ten within "
        f"{np.quantile(delay, 0.9):.0f}); its first frame is right in {100 * np.mean(error == 0):.0f} %, within one in "
        f"{100 * np.mean(np.abs(error) <= 1):.0f} %."
    )


def _loss(scores: dict[str, Score]) -> str:
    rates = scores["damage"].loss_rates if "damage" in scores else []
    if not rates:
        return ""
    told = ", ".join(f"{1000 * rate:.2f} ± {1000 * sigma:.2f}" for rate, sigma in rates)
    return f"Loss rate in the scene damage, per thousand columns and frame: {told}; simulated 1.00."


def evaluate_tracks(seeds: int, page: Path | None, data: Path, tell: Callable[[str], None]) -> str:
    """Run every scene, and the real series where it is; returns the section and writes it to `page`."""
    scores: dict[str, Score] = {}
    for scene in SCENES:
        scores[scene.name] = run_scene(scene, seeds)
        tell(f"{scene.name}: {sum(scores[scene.name].found.values())} of {sum(scores[scene.name].true.values())} found, "
             f"{sum(scores[scene.name].false.values())} false")  # fmt: skip
    series = Series.of(data / SERIES)
    rows, cols = CALM.shape
    lines = [
        "# Columns followed from frame to frame",
        "",
        f"Written by `atomid-live evaluate tracks --seeds {seeds}`: {seeds} sessions per scene of {CALM.frames} frames of "
        f"{cols} x {rows} px, {CALM.crystal.upper()} at {CALM.pixel_size_nm * 1e3:g} pm/px, 15 pA, 40 us, through the whole "
        "chain with the classical detector, three frames to confirm. An event counts as found when its kind is right, its "
        "place is within 0.6 spacings, and it is told within eight frames.",
        "",
        *table(("scene", "what"), [(scene.name, scene.title) for scene in SCENES]),
        "## Events",
        "",
        *_events(scores),
        _times(scores),
        "",
        _loss(scores),
        "",
        "## Ids",
        "",
        *_ids(scores),
        *series_lines(series),
    ]
    section = "\n".join(lines).rstrip() + "\n"
    if page is not None:
        place(page, section, OWNER)
    return section
