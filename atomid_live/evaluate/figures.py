"""Curves of the results page; simulated frames only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atomid_live.evaluate.suite import Row

DPI = 90
FIELDS = {"dose": ("S04", "x "), "scale MoS2": ("S14", "MoS2 "), "scale ReS2": ("S14", "ReS2 ")}


def _curve(rows: Sequence[Row], who: str, scene: str, prefix: str, number: str) -> tuple[list[float], list[float], list[float]]:
    """Number at the end of the variant's name, mean and standard error of the mean there, ascending."""
    points: dict[float, list[float]] = {}
    for row in rows:
        if row.who == who and row.scene == scene and row.variant.startswith(prefix) and number in row.numbers:
            points.setdefault(float(row.variant[len(prefix) :].split()[0]), []).append(row.numbers[number])
    x = sorted(points)
    return x, [float(np.mean(points[v])) for v in x], [float(np.std(points[v]) / max(len(points[v]) - 1, 1) ** 0.5) for v in x]


def _axes(title: str, x_label: str, y_label: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    return figure, axes


def _sweep(rows: Sequence[Row], names: Sequence[str], which: str, x_label: str, path: Path) -> bool:
    scene, prefix = FIELDS[which]
    figure, axes = _axes(f"F1 against {which}", x_label, "F1 at half the spacing")
    drawn = False
    for name in names:
        x, mean, error = _curve(rows, name, scene, prefix, "f1")
        if x:
            axes.errorbar(x, mean, error, marker="o", markersize=3, label=name, linewidth=1.8 if name in names[:2] else 1.0)
            drawn = True
    if drawn:
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{v:g}" for v in x], minor=False)
        axes.minorticks_off()
        axes.legend(fontsize=7)
        figure.savefig(path, dpi=DPI)
    return drawn


def _bound(rows: Sequence[Row], names: Sequence[str], path: Path) -> bool:
    figure, axes = _axes(
        "Position error against the bound, one point per image (pairs within d/4)", "bound, px", "rms error per coordinate, px"
    )
    top = 0.0
    for name in names:
        mine = [r.numbers for r in rows if r.who == name and "ratio" in r.numbers]
        x, y = [n["bound_px"] for n in mine], [n["ratio"] * n["bound_px"] for n in mine]
        if x:
            axes.plot(x, y, ".", markersize=4, label=name, alpha=0.6)
            top = max(top, *x)
    if top > 0:
        axes.plot([0, top], [0, top], "k-", linewidth=0.8)
        axes.set(xlim=(0, top * 1.05), ylim=(0, top * 1.8))
        axes.legend(fontsize=7)
        figure.savefig(path, dpi=DPI)
    return top > 0


def draw(rows: Sequence[Row], ours: Sequence[str], everyone: Sequence[str], folder: Path) -> list[tuple[str, str]]:
    """Write the figures that the rows allow; returns (file name, caption)."""
    folder.mkdir(parents=True, exist_ok=True)
    done = []
    for which, label, name in (
        ("dose", "dose relative to 15 pA and 10 us", "f1_dose.png"),
        ("scale MoS2", "field of 1024 pixels, nm", "f1_scale_mos2.png"),
        ("scale ReS2", "field of 1024 pixels, nm", "f1_scale_res2.png"),
    ):
        if _sweep(rows, everyone, which, label, folder / name):
            done.append((name, f"F1 against {which}"))
    if _bound(rows, ours, folder / "rmse_bound.png"):
        done.append(("rmse_bound.png", "Position error against the Cramér–Rao bound; the line is the bound"))
    return done
