"""From a finished run to an engine ready to ship: export, eight-bit twin, judge, figures, card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atomid_live.backends import open_network
from atomid_live.backends.engine import load_engine
from atomid_live.detect.unet import JUDGE_FILE, UnetDetector
from atomid_live.train.export import load_compact, write_engine
from atomid_live.train.fit import TrainSettings
from atomid_live.train.judge import fit_judge, gather, write_judge
from atomid_live.train.measure import mean_f1
from atomid_live.train.quantise import quantise

CALIBRATION_CROPS = 128
# Eight-bit weights ship as default when they cost less than this in mean F1 on frames that nothing was chosen on.
COSTS_NOTHING = 0.003

# Frames whose peaks the judge learns from.
JUDGE_FRAMES = 2400


def _write_judge(folder: Path, settings: TrainSettings) -> None:
    """Let the judge learn from the peaks of the network as it will run, and put it beside it."""
    network = open_network(load_engine(folder), "openvino", settings.threads)
    write_judge(fit_judge(gather(network, settings.recipe, JUDGE_FRAMES)), folder / JUDGE_FILE)
    network.close()


def _mean_f1(folder: Path, precision: str, settings: TrainSettings, frames: int) -> float:
    engine = load_engine(folder)
    network = open_network(engine, "openvino", settings.threads, precision)
    return mean_f1(UnetDetector(network, engine), settings.recipe, frames)


def ship(settings: TrainSettings, folder: Path, name: str, frames: int = 400) -> Path:
    """Write the engine of a finished run; return its card.

    Both precisions are scored on `frames` simulated frames through the whole detector. Real frames play no part.

    Parameters
    ----------
    settings : TrainSettings
        Those of the run; its folder holds the checkpoint.
    folder : Path
        Of the engine; files of an earlier one are replaced.
    name : str
        As in `--model`.
    frames : int
        Simulated frames for the figures.
    """
    network, step = load_compact(settings.out / "checkpoint.pt", settings)
    for name_of in ("model_int8.onnx", JUDGE_FILE):
        (folder / name_of).unlink(missing_ok=True)
    tables: dict[str, dict[str, Any]] = {}
    write_engine(name, network, settings, folder, tables)
    quantise(folder / "model.onnx", folder / "model_int8.onnx", settings.recipe, CALIBRATION_CROPS)
    write_engine(name, network, settings, folder, tables | {"output": {"default_precision": "int8"}})
    _write_judge(folder, settings)
    write_engine(name, network, settings, folder, tables)
    f1 = {precision: _mean_f1(folder, precision, settings, frames) for precision in ("fp32", "int8")}
    default = "int8" if f1["fp32"] - f1["int8"] <= COSTS_NOTHING else "fp32"
    tables["output"] = {"default_precision": default}
    tables["metrics"] = {
        "simulated_frames": frames,
        **{f"mean_f1_{precision}": value for precision, value in f1.items()},
        "crops_seen": step * settings.batch,
    }
    tables["calibration"] = {"int8_crops": CALIBRATION_CROPS, "judge_frames": JUDGE_FRAMES}
    return write_engine(name, network, settings, folder, tables)
