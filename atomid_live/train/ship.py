"""From a finished run to an engine ready to ship: export, eight-bit twin, thresholds, figures, card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atomid_live.backends import open_network
from atomid_live.backends.engine import load_engine
from atomid_live.detect.unet import UnetDetector
from atomid_live.train.calibrate import KNOTS, QUANTILES, SIGNIFICANCE, Outcome, fit_rule, index_of, outcomes
from atomid_live.train.dataset import Recipe
from atomid_live.train.export import load_compact, write_engine
from atomid_live.train.fit import TrainSettings
from atomid_live.train.quantise import quantise

CHECK_SEED = 55_000_000
# Eight-bit weights ship as default when they cost less than this in mean F1 on frames not used for the thresholds.
COSTS_NOTHING = 0.001


def _provisional() -> dict[str, Any]:
    rules: dict[str, Any] = {"quantile": 0.75, "sparse_significance": 0.0}
    for kind in ("lattice", "sparse"):
        rules |= {f"{kind}_typical": list(KNOTS), f"{kind}_least": [0.3] * len(KNOTS)}
    return rules


def _detector(folder: Path, precision: str) -> UnetDetector:
    engine = load_engine(folder)
    return UnetDetector(open_network(engine, "openvino", 1, precision), engine)


def _mean_f1(offered: list[Outcome], rules: Mapping[str, Any]) -> float:
    values = []
    for outcome in offered:
        typical = outcome.typical[QUANTILES.index(rules["quantile"])]
        least = np.interp(typical, rules[f"{outcome.kind}_typical"], rules[f"{outcome.kind}_least"])
        row = SIGNIFICANCE.index(rules["sparse_significance"]) if outcome.kind == "sparse" else 0
        values.append(outcome.f1[row, index_of(np.asarray(least))])
    return float(np.mean(values)) if values else float("nan")


def fit_rules(offered: list[Outcome]) -> dict[str, Any]:
    """Threshold table of the card; the quantile is the one that serves lattices best."""
    quantile = max(QUANTILES, key=lambda each: fit_rule(offered, "lattice", each).mean_f1)
    lattice, sparse = (fit_rule(offered, kind, quantile) for kind in ("lattice", "sparse"))
    least = {"lattice_least": lattice.least, "sparse_least": sparse.least}
    return least | {"quantile": quantile, "sparse_significance": sparse.significance}


def ship(settings: TrainSettings, folder: Path, name: str, frames: int = 800) -> Path:
    """Write the engine of a finished run; return its card.

    Thresholds are fitted on `frames` simulated frames with the float32 network, and both precisions are scored on half as many
    others, through the whole detector. Real frames play no part.

    Parameters
    ----------
    settings : TrainSettings
        Those of the run; its folder holds the checkpoint.
    folder : Path
        Of the engine; files of an earlier one are replaced.
    name : str
        As in `--model`.
    frames : int
        Simulated frames for the thresholds.
    """
    network, step = load_compact(settings.out / "checkpoint.pt", settings)
    (folder / "model_int8.onnx").unlink(missing_ok=True)
    rules = _provisional()
    write_engine(name, network, settings, folder, {"threshold": rules})
    quantise(folder / "model.onnx", folder / "model_int8.onnx", settings.recipe)
    write_engine(name, network, settings, folder, {"threshold": rules})
    offered = list(outcomes(_detector(folder, "fp32"), settings.recipe, frames))
    rules |= fit_rules(offered)
    metrics = _metrics(folder, settings.recipe, rules, frames // 2)
    metrics["crops_seen"] = step * settings.batch
    default = "int8" if metrics["mean_f1_fp32"] - metrics["mean_f1_int8"] <= COSTS_NOTHING else "fp32"
    calibration = {"frames": frames, "with_scale": len(offered), "knots": list(KNOTS)}
    tables = {"threshold": rules, "output": {"default_precision": default}, "metrics": metrics, "calibration": calibration}
    return write_engine(name, network, settings, folder, tables)


def _metrics(folder: Path, recipe: Recipe, rules: Mapping[str, Any], frames: int) -> dict[str, Any]:
    """Mean F1 of both precisions on the same frames, of another seed than the thresholds'."""
    result: dict[str, Any] = {"frames": frames}
    for precision in ("fp32", "int8"):
        offered = list(outcomes(_detector(folder, precision), recipe, frames, CHECK_SEED))
        result[f"mean_f1_{precision}"] = _mean_f1(offered, rules)
    return result
