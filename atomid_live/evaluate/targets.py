"""What each scene is expected to reach, set before anything was measured; met or missed is decided by the mean alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from atomid_live.evaluate.suite import Row


@dataclass(frozen=True, slots=True)
class Target:
    """One number to reach: scene, variant ("" for all together), number, "least" or "most", and its value."""

    scene: str
    variant: str
    number: str
    kind: str
    value: float

    def met(self, found: float) -> bool:
        """Whether a mean reaches it."""
        return found >= self.value if self.kind == "least" else found <= self.value

    @property
    def words(self) -> str:
        """E.g. "S04 x 0.1: f1 >= 0.96"."""
        place = f"{self.scene} {self.variant}".strip()
        return f"{place}: {self.number} {'≥' if self.kind == 'least' else '≤'} {self.value:g}"


def _least(scene: str, variant: str, **numbers: float) -> list[Target]:
    return [Target(scene, variant, name, "least", value) for name, value in numbers.items()]


def _most(scene: str, variant: str, **numbers: float) -> list[Target]:
    return [Target(scene, variant, name, "most", value) for name, value in numbers.items()]


def _sweep() -> Iterator[Target]:
    fields = ("9 nm", "12.7 nm", "18 nm", "25.4 nm", "36 nm")
    for material, values in (("MoS2", (0.998, 0.998, 0.995, 0.985, 0.96)), ("ReS2", (0.998, 0.998, 0.998, 0.995, 0.98))):
        for width, value in zip(fields, values, strict=True):
            yield Target("S14", f"{material} {width}", "f1", "least", value)


def _doses() -> Iterator[Target]:
    for variant, value in (("x 1", 0.998), ("x 0.3", 0.993), ("x 0.1", 0.96), ("x 0.03", 0.87)):
        yield Target("S04", variant, "f1", "least", value)


def _empties() -> Iterator[Target]:
    for kind in ("vacuum 2", "vacuum 14", "texture 0.6", "texture 1.0", "texture 2.0", "texture 5.0"):
        yield Target("S15", kind, "false_per_mpx", "most", 0.05)
    for kind in ("amorphous 5", "amorphous 20"):
        yield Target("S15", kind, "false_per_mpx", "most", 3.0)


TARGETS: tuple[Target, ...] = (
    *_least("S01", "metal", f1=0.998, f1_quarter=0.995), *_most("S01", "metal", ratio=1.15, cd_px=2.1),
    *_least("S01", "all columns", f1=0.975),
    *_least("S02", "", f1=0.998), *_most("S02", "", ratio=1.25, cd_px=0.85, site_bias_px=0.05),
    *_least("S03", "", f1=0.992, f1_quarter=0.98), *_most("S03", "", ratio=1.4, site_bias_px=0.15),
    *_doses(),
    *_least("S05", "+2 nm", f1=0.99), *_least("S05", "-2 nm", f1=0.99), *_most("S05", "+2 nm", bias_px=0.15),
    *_least("S06", "astigmatism 3 nm", f1=0.99), *_least("S06", "coma 500 nm", f1=0.99),
    *_most("S06", "astigmatism 3 nm", bias_px=0.15), *_most("S06", "coma 500 nm", bias_px=0.15),
    *_least("S07", "", f1=0.97, recall_contaminated=0.9), *_most("S07", "", false_contaminated_share=0.02),
    *_least("S08", "", f1=0.99), *_most("S08", "", ratio=1.4),
    *_most("S09", "", false_vacuum_per_mpx=1.0), *_least("S09", "", recall_edge=0.95),
    *_most("S10", "", false_fill=0.02), *_least("S10", "", recall_vacancy_neighbours=0.995),
    *_least("S11", "", f1=0.985, recall_boundary=0.95),
    *_least("S12", "", f1=0.97),
    *_least("S13", "", precision=0.90, recall=0.90),
    *_sweep(),
    *_empties(),
    *_least("S16", "", f1=0.98),
    *_most("S17", "", f1_change=0.005, moved_px=0.05),
    *_most("S18", "", f1_from_linear=0.01),
    *_least("U1", "", z_std=0.8), *_most("U1", "", z_std=1.25, ece=0.05),
    *_least("ReS2 000", "labels", f1=0.998, f1_quarter=0.995), *_most("ReS2 000", "joint fit", rmse_px=0.35),
    *_least("Re atoms", "", f1=0.88), *_least("Pt atoms", "", f1=0.80),
    *_least("nanoparticle", "", recall=0.98),
)  # fmt: skip


def mean_of(rows: Iterable[Row], who: str, target: Target) -> float:
    """Mean of a target's number over the images it speaks of; NaN without any."""
    values = [
        row.numbers[target.number]
        for row in rows
        if row.who == who and row.scene == target.scene and target.variant in ("", row.variant) and target.number in row.numbers
    ]
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
