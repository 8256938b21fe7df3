"""How good the scale estimate is: width against truth by scene, and how often the gate opens, on seeds of their own.

`python -m atomid_live.evaluate.scale` prints both tables; images come from the benchmark's recipes with other seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from atomid_live.detect.normalise import prepare
from atomid_live.detect.spacing import estimate_scale
from atomid_live.evaluate.scenes import SCENES, Scene, make_image, scene_named
from atomid_live.evaluate.scenes.recipes import plain
from atomid_live.evaluate.scenes.truth import SceneImage
from atomid_live.simulate.crystals import crystal_named

OFFSET = 10_000_000
EMPTY = "S15"
TOLERANCE = 0.1
FAINT_CRYSTALS = ("mos2", "res2", "ws2", "srtio3")


@dataclass(frozen=True, slots=True)
class ScaleError:
    """One image: where it is from, estimated over true column width (NaN where none was found), and what was found."""

    scene: str
    variant: str
    ratio: float
    kind: str


def measured(image: SceneImage) -> ScaleError:
    """Estimate the scale of an image and compare with its truth."""
    scale = estimate_scale(prepare(image.pixels).image)
    return ScaleError(image.scene, image.variant, scale.column_sigma_px / image.sigma_px, scale.kind)


def scene_errors(scene: Scene, seeds: int, offset: int = OFFSET) -> Iterator[ScaleError]:
    """Errors on `seeds` images of every variant; images without a target, which ask for nothing, are left out."""
    for variant in scene.variants:
        for k in range(seeds):
            image = make_image(scene, variant, k, offset=offset)
            if scene.name == EMPTY or image.truth.target.any():
                yield measured(image)


def error_line(name: str, errors: list[ScaleError]) -> str:
    """Median and extremes of the ratio, how many are within a tenth, and how many frames gave no scale."""
    ratio = np.array([one.ratio for one in errors])
    found = ratio[np.isfinite(ratio)]
    good = int(np.sum(np.abs(found - 1.0) <= TOLERANCE))
    spread = f"{np.median(found):.2f} ({found.min():.2f} to {found.max():.2f})" if len(found) else "-"
    return f"| {name} | {len(errors)} | {spread} | {good} | {len(errors) - len(found)} |"


def dose_for(crystal: str, d_prime: float, pixel_size_nm: float) -> float:
    """Dose relative to the benchmark's at which the median bright column has this detectability."""
    from atomid_live.evaluate.scenes.expose import Conditions, column_height
    from atomid_live.simulate.acquire import detectability

    doses = np.geomspace(1e-4, 10.0, 600)
    reached = []
    sections = np.array(crystal_named(crystal).cross_section_A2)
    bright = np.median(sections[sections >= 0.5 * sections.max()])
    for dose in doses:
        c = Conditions(pixel_size_nm, dose=float(dose))
        electrons = c.electrons(np.array([bright]))
        assert column_height(electrons, c.sigma_px) > 0
        reached.append(float(detectability(electrons, c.sigma_px, c.background_e)[0]))
    return float(np.interp(d_prime, reached, doses))


def faint_rate(crystal: str, d_prime: float, seeds: int, pixel_size_nm: float = 0.0124) -> float:
    """Part of faint frames (496 x 528) of a crystal in which a lattice is found with its width within a fifth."""
    from atomid_live.evaluate.scenes.expose import Conditions

    right = 0
    for k in range(seeds):
        rng = np.random.default_rng(OFFSET + k)
        c = Conditions(pixel_size_nm, dose=dose_for(crystal, d_prime, pixel_size_nm))
        image = plain(rng, (496, 528), ("faint", crystal, k), crystal=crystal, c=c)
        one = measured(image)
        right += one.kind == "lattice" and abs(one.ratio - 1.0) < 0.2
    return right / seeds


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Errors of the scale estimate, and how often its gate opens.")
    parser.add_argument("--seeds", type=int, default=4, help="images per variant")
    parser.add_argument("--scenes", nargs="*", default=[scene.name for scene in SCENES], help="scenes, e.g. S04 S15")
    asked = parser.parse_args()
    print("| scene | images | width over truth, median (range) | within 10 % | no scale |\n| --- | --: | --: | --: | --: |")
    for name in asked.scenes:
        print(error_line(name, list(scene_errors(scene_named(name), asked.seeds))), flush=True)
    wanted = (1.0, 1.5, 2.0, 2.5, 3.0)
    print("\n| lattice found at d' |", " | ".join(f"{d:g}" for d in wanted), "|\n| --- |", " --: |" * len(wanted))
    for crystal in FAINT_CRYSTALS:
        print(f"| {crystal} |", " | ".join(f"{faint_rate(crystal, d, asked.seeds):.2f}" for d in wanted), "|", flush=True)


if __name__ == "__main__":
    main()
