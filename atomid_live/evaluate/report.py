"""`docs/results.md`: the part between the markers belongs to the command and is written anew by it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atomid_live import __version__
from atomid_live.errors import UsageError
from atomid_live.evaluate import tables
from atomid_live.evaluate.scenes import scene_named
from atomid_live.evaluate.statistics import estimate
from atomid_live.evaluate.suite import Outcome, Row

BEGIN, END = "<!-- evaluate suite: begin -->", "<!-- evaluate suite: end -->"
OPENING = """# Results

Everything between two markers is written by the command they name; what is outside them stays.

"""
SCHEMA = 1


def _machine() -> str:
    import numpy as np

    from atomid_live.evaluate.scenes.fingerprint import processor

    return (
        f"atomid-live {__version__}, Python {platform.python_version()}, {platform.system()}, {processor() or np.__version__}"
    )


def _opening(outcome: Outcome) -> list[str]:
    plan, told = outcome.plan, []
    images = len({row.image for row in outcome.simulated})
    told.append(
        f"{images} simulated images, {plan.seeds} per variant, the first {plan.rival_seeds} of each also for rivals; "
        f"{_machine()}."
    )
    if outcome.hashes:
        same, changed, unknown = (outcome.hashes.get(word, 0) for word in ("same", "changed", "unknown"))
        told.append(f"Images that are the stored ones to the bit: {same}; changed: {changed}; not stored: {unknown}.")
    if plan.offset:
        told.append(f"Seeds are offset by {plan.offset}: another set of images by the same recipes.")
    told.append(
        "Our detectors run at their shipped settings; rivals get, image by image, the parameters that are best for them "
        '("oracle"). Matching is one to one. d is the mean spacing of the targets (five column widths for single atoms). '
        "Intervals are 95 % bootstrap intervals of the mean over seeds. Times are of a shared machine: trust ratios."
    )
    return ["  \n".join(told), "", *[f"Not taking part: {reason}.  " for reason in outcome.absent], ""]


def _scene_list(rows: tuple[Row, ...]) -> list[str]:
    lines = []
    for name in tables.scenes_in(rows):
        scene = scene_named(name)
        lines.append((name, scene.title, ", ".join(variant.name for variant in scene.variants)))
    return tables.table(("scene", "what", "variants"), lines)


def markdown(outcome: Outcome, figures: list[tuple[str, str]], figure_folder: str = "figures") -> str:
    """The whole section, without its markers."""
    ours = list(outcome.ours)
    rivals = [name for name in outcome.contestants if name not in ours]
    rows, text = outcome.simulated, _opening(outcome)
    if rows:
        text += ["## Scenes", "", *_scene_list(rows)]
        for name in ours:
            text += [f"## {name}, scene by scene", "", *tables.detail(rows, name)]
        text += ["## What single scenes are about", "", *tables.measures(rows, ours)]
        text += ["## Each variant: F1 at 0.5 d / at 0.25 d", "", *tables.variants(rows, ours)]
    if len(ours) > 1 and rows:
        for number, words in (("f1", "F1 at 0.5 d"), ("f1_quarter", "F1 at 0.25 d"), ("rmse_px", "RMSE, px")):
            text += [f"## {words}: {ours[-1]} minus", "", *tables.differences(rows, ours[-1], ours[:-1], number)]
    if rivals and rows:
        text += ["## With rivals, on the images that all saw", "", *tables.stages(rows, [*ours, *rivals])]
        for number, words in (("f1", "F1 at 0.5 d"), ("f1_quarter", "F1 at 0.25 d")):
            text += [f"### {words}", "", *tables.comparison(rows, [*ours, *rivals], number)]
            text += [
                f"### {words}: {ours[-1]} minus each",
                "",
                *tables.differences(rows, ours[-1], [*ours[:-1], *rivals], number),
            ]
    if figures:
        text += ["## Curves", "", *(f"![{caption}]({figure_folder}/{name})\n" for name, caption in figures)]
    if outcome.real:
        text += ["## Real labelled frames", "", _REAL, "", *tables.real(outcome.real, [*ours, *rivals])]
    if outcome.limits:
        text += ["### What the labels of single atoms allow", "", _LIMITS, "", *tables.label_limits(outcome.limits)]
    if outcome.labels:
        text += ["## Labels by the thesis's annotation protocol", "", _LABELS, "", *tables.label_protocol(outcome.labels)]
    text += ["## Targets", "", *tables.targets(outcome, ours)]
    return "\n".join(text).rstrip() + "\n"


_REAL = (
    "Numbers only; the frames belong to others. ReS2 000: scale bar and half a spacing of border left out; its labels are off "
    "by up to 2 px per site, so positions are compared with a joint fit instead. Single atoms match within 2.5 widths of the "
    "labelled atoms. Of nanoparticles only the fitted columns, of PbTiO3/SrRuO3 only one sublattice is labelled: there recall "
    "counts."
)


_LIMITS = (
    "A matched filter of the labels' own width ranks all peaks of a frame by clearness, in standard deviations of its "
    "noise; its best threshold is chosen frame by frame with the labels in hand. Labels without a clear peak, and unlabelled "
    "peaks that are clearer than most labelled ones, are what people disagree about."
)
_LABELS = (
    "A simulated group of ten ReS2 frames of one region at varied current and defocus: aligned by cross-correlation, the best "
    "one annotated by FindFoci (at its best parameters) and refined by a Gaussian fit per point, its labels carried to the "
    "others. What the truth says of such labels bounds what any score against them can say of a detector."
)


def place(page: Path, section: str, owner: str = "suite") -> None:
    """Put the section between the markers of its owner, the command ``evaluate OWNER``.

    A page that is not there is made; one that has no markers of another owner than "suite" gets them at its end.

    Raises
    ------
    UsageError
        The page is there but has no markers of the suite, or more than one pair of the owner.
    """
    begin, end = (word.replace("suite", owner) for word in (BEGIN, END))
    old = page.read_text(encoding="utf-8") if page.is_file() else f"{OPENING}{BEGIN}\n{END}\n"
    if owner != "suite" and begin not in old and end not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n"
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        raise UsageError(f"{page} has no single section {begin} … {end}; put the two lines where the results belong")
    before, rest = old.split(begin)
    after = rest.split(end)[1]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{before}{begin}\n\n{section}\n{end}{after}", encoding="utf-8", newline="\n")


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Every row with its numbers, and means per contestant and scene; JSON-ready."""

    def plain(numbers: Mapping[str, float]) -> dict[str, float | None]:
        return {key: (float(value) if value == value else None) for key, value in numbers.items()}

    rows = [
        {"who": r.who, "scene": r.scene, "variant": r.variant, "seed": r.seed, **plain(r.numbers)}
        for r in (*outcome.simulated, *outcome.real)
    ]
    return {
        "schema": SCHEMA, "machine": _machine(), "seeds": outcome.plan.seeds, "offset": outcome.plan.offset,
        "small": outcome.plan.small, "absent": list(outcome.absent), "hashes": dict(outcome.hashes), "rows": rows,
    }  # fmt: skip


_TERMINAL = (("f1", 8, 4), ("f1_quarter", 9, 4), ("rmse_px", 6, 3), ("ratio", 7, 2), ("false_per_mpx", 9, 1), ("ms", 5, 1))


def as_text(outcome: Outcome) -> str:
    """Short table for the terminal: F1 at both radii and position error per scene and contestant."""
    rows = (*outcome.simulated, *outcome.real)
    wide = max((len(name) for name in outcome.contestants), default=4)
    lines = [f"{'scene':<20} {'who':<{wide}}  images  F1 0.5 d  F1 0.25 d  rms px  x bound  false/Mpx     ms"]
    for scene in tables.scenes_in(rows):
        for who in outcome.contestants:
            mine = [r for r in rows if r.scene == scene and r.who == who]
            if mine:
                mean = {
                    n: estimate([r.numbers.get(n, float("nan")) for r in mine], [r.series for r in mine]).mean
                    for n, _, _ in _TERMINAL
                }
                cells = [f"{scene:<20} {who:<{wide}}", f"{len(mine):6d}"]
                for number, width, digits in _TERMINAL:
                    cells.append(f"{tables.shown(mean[number], digits):>{width}}")
                lines.append("  ".join(cells))
    return "\n".join([*lines, *(f"not taking part: {reason}" for reason in outcome.absent)])


def write_outcome(outcome: Outcome, page: Path | None, json_path: Path | None) -> None:
    """Write the results page with its figures, and all numbers as JSON, where asked for."""
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(as_json(outcome)) + "\n", encoding="utf-8")
    if page is not None:
        figures = _figures(outcome, page)
        place(page, markdown(outcome, figures))


def _figures(outcome: Outcome, page: Path) -> list[tuple[str, str]]:
    from atomid_live.evaluate.figures import draw

    everyone = [name for name in outcome.contestants if " map " not in name]
    try:
        return draw(outcome.simulated, list(outcome.ours), everyone, page.parent / "figures")
    except ImportError:
        # matplotlib is an extra; the tables stand without the curves
        return []
