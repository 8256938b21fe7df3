"""Rows of numbers as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from atomid_live.evaluate.label_limits import LabelLimit
from atomid_live.evaluate.protocol import LabelError
from atomid_live.evaluate.statistics import Estimate, estimate, paired
from atomid_live.evaluate.suite import Outcome, Row
from atomid_live.evaluate.targets import TARGETS, mean_of

SMALLER_IS_BETTER = ("cd_px", "cd_pm", "rmse_px", "rmse_pm", "ratio", "bias_px", "site_bias_px", "false_per_mpx", "false_fill",
                     "ece", "ms", "moved_px", "f1_change", "f1_from_linear")  # fmt: skip
MEASURES = {
    "S07": ("recall_contaminated", "false_contaminated_share"),
    "S09": ("recall_edge", "false_vacuum_per_mpx"),
    "S10": ("false_fill", "recall_vacancy_neighbours"),
    "S11": ("recall_boundary",),
    "S15": ("false_per_mpx",),
    "S17": ("f1_change", "moved_px"),
    "S18": ("f1_from_linear",),
}


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """Markdown of a table; the first column is text, the others are numbers."""
    rule = ["---"] + ["--:"] * (len(head) - 1)
    return ["| " + " | ".join(cells) + " |" for cells in ([*head], rule, *lines)] + [""]


def shown(value: float, digits: int = 4) -> str:
    """A number, or a dash."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"


def _of(rows: Iterable[Row], who: str, scene: str, number: str, variant: str = "") -> Estimate:
    chosen = [r for r in rows if r.who == who and r.scene == scene and variant in ("", r.variant)]
    values = [r.numbers.get(number, float("nan")) for r in chosen]
    return estimate(values, [r.series for r in chosen], number not in SMALLER_IS_BETTER)


def scenes_in(rows: Iterable[Row]) -> list[str]:
    """Names of scenes in the order in which they were shown."""
    return list(dict.fromkeys(row.scene for row in rows))


def with_interval(e: Estimate, digits: int = 4) -> str:
    """Mean ± standard deviation over images [95 % interval of the mean]."""
    if not e.count:
        return "–"
    band = f" [{e.low:.{digits}f}, {e.high:.{digits}f}]" if np.isfinite(e.low) else ""
    return f"{e.mean:.{digits}f} ± {e.std:.{digits}f}{band}"


def detail(rows: Sequence[Row], who: str) -> list[str]:
    """All numbers of one contestant, scene by scene."""
    head = ("scene", "images", "F1 at 0.5 d [95 %]", "worst", "F1 at 0.25 d [95 %]", "mF1", "P", "R", "Jaccard", "chance F1",
            "CD px", "RMSE px", "x bound", "site bias px", "false / Mpx", "z std", "ECE", "thesis's F1", "ms")  # fmt: skip
    lines = []
    for scene in scenes_in(rows):
        one = {n: _of(rows, who, scene, n) for n in (
            "f1", "f1_quarter", "mf1", "precision", "recall", "jaccard", "chance_f1", "cd_px", "rmse_px", "ratio",
            "site_bias_px", "false_per_mpx", "z_std", "ece", "thesis_f1", "ms",
        )}  # fmt: skip
        mean = {name: e.mean for name, e in one.items()}
        lines.append((
            scene, str(max(one["f1"].count, one["false_per_mpx"].count)), with_interval(one["f1"]), shown(one["f1"].worst),
            with_interval(one["f1_quarter"]),
            *(shown(mean[n], 3) for n in ("mf1", "precision", "recall", "jaccard", "chance_f1", "cd_px", "rmse_px", "ratio")),
            shown(mean["site_bias_px"], 3), shown(mean["false_per_mpx"], 2),
            shown(mean["z_std"], 2), shown(mean["ece"], 3), shown(mean["thesis_f1"], 3), shown(mean["ms"], 1),
        ))  # fmt: skip
    return table(head, lines)


def comparison(rows: Sequence[Row], names: Sequence[str], number: str, digits: int = 4) -> list[str]:
    """Mean of one number per scene and contestant, over the images that all of them saw."""
    seen = [{r.image for r in rows if r.who == name} for name in names]
    common = set.intersection(*seen) if seen else set()
    kept = [r for r in rows if r.image in common]
    lines = []
    for scene in scenes_in(kept):
        found = [_of(kept, name, scene, number) for name in names]
        if any(e.count for e in found):
            lines.append((scene, *(f"{e.mean:.{digits}f} ± {e.std:.{digits}f}" if e.count else "–" for e in found)))
    return table(("scene", *names), lines)


def stages(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Accuracy and time of each contestant over the images that all saw: mean ± std, ms per stage, relative to the first."""
    seen = [{r.image for r in rows if r.who == name} for name in names]
    common = set.intersection(*seen) if seen else set()
    kept = [r for r in rows if r.image in common]
    lines, first_ms = [], float("nan")
    for name in names:
        mine = [r for r in kept if r.who == name]
        one = {n: estimate([r.numbers.get(n, np.nan) for r in mine], [r.series for r in mine]) for n in (
            "cd_px", "jaccard", "f1", "f1_quarter",
        )}  # fmt: skip
        total = float(np.median([r.numbers["ms"] for r in mine])) if mine else float("nan")
        first_ms = total if name == names[0] else first_ms
        each = dict.fromkeys(key for r in mine for key in r.numbers if key.startswith("ms "))
        parts = {key[3:]: float(np.median([r.numbers.get(key, 0.0) for r in mine])) for key in each}
        told = ", ".join(f"{stage} {ms:.1f}" for stage, ms in parts.items() if ms > 0)
        cells = (f"{one[n].mean:.4f} ± {one[n].std:.4f}" for n in ("cd_px", "jaccard", "f1", "f1_quarter"))
        lines.append((name, *cells, told, f"{total:.1f}", f"{total / first_ms:.1f}"))
    head = ("who", "CD px", "Jaccard", "F1 at 0.5 d", "F1 at 0.25 d", "median ms per stage", "median ms", f"x {names[0]}")
    return table(head, lines)


def differences(rows: Sequence[Row], first: str, others: Sequence[str], number: str) -> list[str]:
    """Paired difference first - other per scene with its 95 % interval; bold where the interval leaves out zero."""
    groups = {r.image: r.series for r in rows}
    lines = []
    for scene in scenes_in(rows):
        cells = []
        for other in others:
            values = [
                {r.image: r.numbers.get(number, float("nan")) for r in rows if r.who == who and r.scene == scene}
                for who in (first, other)
            ]
            e = paired(values[0], values[1], groups)
            text = (
                "–"
                if not e.count
                else f"{e.mean:+.4f} [{e.low:+.4f}, {e.high:+.4f}]"
                if np.isfinite(e.low)
                else f"{e.mean:+.4f}"
            )
            cells.append(f"**{text}**" if e.count and (e.low > 0 or e.high < 0) else text)
        if any(cell != "–" for cell in cells):
            lines.append((scene, *cells))
    return table(("scene", *others), lines)


def variants(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """F1 at 0.5 and 0.25 of the spacing for each variant (false columns per Mpx where there is nothing to find)."""
    lines = []
    for scene, variant in dict.fromkeys((r.scene, r.variant) for r in rows):
        cells = []
        for name in names:
            half, quarter, false = (_of(rows, name, scene, n, variant).mean for n in ("f1", "f1_quarter", "false_per_mpx"))
            cells.append(
                f"{half:.4f} / {quarter:.4f}" if np.isfinite(half) else f"{false:.2f} / Mpx" if np.isfinite(false) else "–"
            )
        lines.append((f"{scene} {variant}", *cells))
    return table(("variant", *names), lines)


def measures(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """What single scenes are about: edges, vacancies, contamination, boundaries, emptiness, invariance."""
    lines = []
    for scene, numbers in MEASURES.items():
        for number in numbers:
            found = [_of(rows, name, scene, number) for name in names]
            if any(e.count for e in found):
                lines.append((f"{scene} {number.replace('_', ' ')}", *(with_interval(e) for e in found)))
    return table(("measure", *names), lines)


def targets(outcome: Outcome, names: Sequence[str]) -> list[str]:
    """Each target with the value reached and whether that is enough."""
    rows, lines = (*outcome.simulated, *outcome.real), []
    for target in TARGETS:
        cells = []
        for name in names:
            value = mean_of(rows, name, target)
            cells.append("–" if not np.isfinite(value) else f"{value:.4g} {'met' if target.met(value) else '**missed**'}")
        if any(cell != "–" for cell in cells):
            lines.append((target.words, *cells))
    return table(("target", *names), lines)


def real(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Real frames: per set, F1 at both radii, recall and rms; contestants as lines."""
    lines = []
    for scene, variant in dict.fromkeys((r.scene, "" if r.scene.endswith("atoms") else r.variant) for r in rows):
        for name in names:
            one = {
                n: _of(rows, name, scene, n, variant)
                for n in ("f1", "f1_quarter", "precision", "recall", "rmse_px", "cd_px", "ms")
            }
            if one["f1"].count:
                lines.append((
                    f"{scene} {variant}".strip(), name, str(one["f1"].count), with_interval(one["f1"]),
                    shown(one["f1_quarter"].mean), shown(one["precision"].mean, 3), shown(one["recall"].mean, 3),
                    shown(one["rmse_px"].mean, 3), shown(one["cd_px"].mean, 3), shown(one["ms"].mean, 1),
                ))  # fmt: skip
    head = ("frames", "who", "n", "F1 at 0.5 d", "F1 at 0.25 d", "precision", "recall", "rms px per axis", "CD px", "ms")
    return table(head, lines)


def label_protocol(labels: Sequence[LabelError]) -> list[str]:
    """How far labels made by the thesis's annotation protocol lie from the truth, frame by frame of one group."""
    head = ("frame", "dose", "defocus nm", "alignment off by px", "F1 at 0.5 d", "F1 at 0.25 d", "rms px", "site bias px",
            "CD of a perfect detector px")  # fmt: skip
    lines = []
    for each in labels:
        name = f"{each.frame}{', annotated' if each.annotated else ''}"
        told = (each.shift_error_px, each.f1, each.f1_quarter, each.rms_px, each.site_bias_px, each.cd_floor_px)
        lines.append((name, f"{each.dose:.2f}", f"{each.defocus_nm:+.1f}", *(shown(value, 3) for value in told)))
    return table(head, lines)


def label_limits(told: Sequence[LabelLimit]) -> list[str]:
    """What the labels of each set of single atoms allow."""
    head = ("set", "frames", "labels", "without a peak", "under 4 sd", "unlabelled, clearer than the median label, per label",
            "best F1 of a ranking by clearness")  # fmt: skip
    lines = [
        (each.name, str(each.frames), str(each.labels),
         *(shown(v, 3) for v in (each.without_peak, each.unclear, each.as_clear_unlabelled, each.best_f1)))
        for each in told
    ]  # fmt: skip
    return table(head, lines)
