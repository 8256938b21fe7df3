"""`evaluate strain`: every table of strain against known truth, and the section of docs/results.md that belongs to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atomid_live.evaluate import tables
from atomid_live.evaluate.contestants import contestants
from atomid_live.evaluate.report import place
from atomid_live.evaluate.strain_methods import methods
from atomid_live.evaluate.strain_real import real_lines
from atomid_live.evaluate.strain_scenes import Line, sites, steps, uneven, uniform, zero_strain

Tell = Callable[[str], None]
OWNER = "strain"
TITLES = {
    "E1": "E1: no strain, three currents (the range of the thesis), three windows",
    "E2": "E2: uniform strain against a theoretical cell",
    "E3": "E3: gradient, inclusion, dislocation (points with 10 pm of noise, w 0.5 nm)",
    "E4": "E4: site bias",
    "E7": "E7: a step of 0.5 % at frame 20 (points with 10 pm of noise, w 1 nm, reference first:5)",
    "fig. 11": "Methods at one reference and one window (thesis figure 11 on our own frame)",
    "real": "Real frames (w 1 nm, reference frame; numbers only)",
}


@dataclass(frozen=True, slots=True)
class StrainPlan:
    """What to run: model, images per dose of E1, series of E7, folder of real frames, interpreter with Atomap, threads."""

    model: str = "unet"
    images: int = 2
    series: int = 10
    real_data: Path | None = None
    atomap_python: Path | None = None
    threads: int = 1


def run_strain(plan: StrainPlan, tell: Tell = lambda text: None) -> tuple[list[Line], list[str]]:
    """Run every scene; returns the lines and who could not take part."""
    lines: list[Line] = []
    with contestants((plan.model,), plan.threads) as (contestant,):
        detect = contestant.detections
        for name, some in (
            ("E1", zero_strain(detect, plan.images)),
            ("E2", uniform(detect)),
            ("E3", uneven()),
            ("E4", iter([sites(detect)])),
            ("E7", steps(plan.series)),
        ):
            tell(name)
            lines += list(some)
        tell("fig. 11")
        compared, absent = methods(contestant, plan.atomap_python) if contestant.network else ([], ["maps: no network"])
        tell("real frames")
        lines += [*compared, *real_lines(plan.real_data, detect)]
    return lines, absent


def _shown(name: str, value: float) -> str:
    if not np.isfinite(value):
        return "-" if np.isnan(value) else "never"
    if name in ("columns",):
        return f"{value:.0f}"
    if any(word in name for word in ("formula", "slope", "z-std", "noise", "pm", "frames", "alarms")):
        return f"{value:.3g}"
    return f"{100 * value:.4f} %"


def markdown(lines: list[Line], absent: list[str], plan: StrainPlan) -> str:
    """The section, without its markers."""
    text = [
        "# Strain",
        "",
        f"`atomid-live evaluate strain --images {plan.images} --series {plan.series}`, detector `{plan.model}`. MoS2 at "
        "12.4 pm per pixel, 15 pA, 10 us, background 2 e per pixel, no scan errors; w 0.5 nm unless said. Errors of scan and "
        "of drift within the frame are the business of E5 and E6.",
        "",
    ]
    for scene, title in TITLES.items():
        rows = [line for line in lines if line.scene == scene]
        if not rows:
            continue
        names = list(dict.fromkeys(name for row in rows for name in row.numbers))
        targets = any(row.target for row in rows)
        head = ["case", *names, *(["target"] if targets else [])]
        body = []
        for row in rows:
            cells = [row.case, *(_shown(name, row.numbers[name]) if name in row.numbers else "" for name in names)]
            verdict = "" if row.met is None else f"{row.target}: {'met' if row.met else '**missed**'}"
            body.append(tuple([*cells, verdict] if targets else cells))
        text += [f"## {title}", "", *tables.table(tuple(head), body), ""]
        if scene == "fig. 11":
            text += [
                "True strain 0.5 %. Metal columns alone, the same for all, but in the first row; rivals with their best "
                "parameters for this frame. The map behind two of the rows is our network's, decoded the way of others.",
                *[f"Not taking part: {reason}." for reason in absent],
                "",
            ]
    return "\n".join(text).rstrip() + "\n"


def evaluate_strain(
    plan: StrainPlan, *, page: Path | None = None, json_path: Path | None = None, tell: Tell = lambda text: None
) -> list[Line]:
    """Run the plan and write its section and numbers where asked for."""
    lines, absent = run_strain(plan, tell)
    if json_path is not None:
        rows = [{"scene": each.scene, "case": each.case, "met": each.met, **each.numbers} for each in lines]
        json_path.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    if page is not None:
        place(page, markdown(lines, absent, plan), OWNER)
    return lines
