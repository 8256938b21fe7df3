"""Write anew what the regression tests hold the benchmark to: hashes of its images, and the classical detector's scores.

Run it only after a change that is meant to change them, and say in the commit why.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from atomid_live.evaluate.scenes import make_image
from atomid_live.evaluate.scenes.fingerprint import HASHES, fingerprint, processor
from atomid_live.evaluate.suite import Plan, planned, run_scenes

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "evaluate"
KEPT = ("f1", "f1_quarter", "rmse_px", "false_per_mpx")


def _rounded(value: object) -> object:
    return round(value, 5) if isinstance(value, float) else value


def main(full: bool) -> None:
    """Write both files, and with `full` the hashes of every image of the whole benchmark (some minutes)."""
    small = {}
    for scene, variant, k, shape in planned(Plan(small=True)):
        image = make_image(scene, variant, k, shape)
        small[image.name] = fingerprint(image)
    (FOLDER / "scene_hashes.json").write_text(
        json.dumps({"processor": processor(), "small": small}, indent=1) + "\n", encoding="utf-8"
    )
    if full:
        hashes = {image.name: image.sha256 for image in (make_image(*rest) for rest in planned(Plan()))}
        HASHES.write_text(json.dumps({"processor": processor(), "images": hashes}, indent=0) + "\n", encoding="utf-8")
    answers = {
        row.image: {key: _rounded(row.numbers[key]) for key in KEPT if key in row.numbers}
        for row in run_scenes(Plan(small=True))
    }
    (FOLDER / "small_answers.json").write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main("--full" in sys.argv[1:])
