"""From a checkpoint to an engine: ONNX in one file, plain arrays, and the card that vouches for both."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atomid_live.backends.engine import CARD, SCHEMA
from atomid_live.errors import ModelError
from atomid_live.train.fit import TrainSettings
from atomid_live.train.network import CompactUnet, Shipped, parameters

OPSET = 17


def load_compact(checkpoint: Path, settings: TrainSettings) -> tuple[CompactUnet, int]:
    """Return the network of a compact run's checkpoint, in evaluation mode, and its step."""
    state = torch.load(checkpoint, weights_only=True)
    network = CompactUnet(settings.channels, settings.blocks)
    try:
        network.load_state_dict(state["network"])
    except (RuntimeError, KeyError) as error:
        raise ModelError(
            f"{checkpoint}: holds no compact network of {settings.channels}, {settings.blocks} blocks: {error}"
        ) from error
    return network.eval(), int(state["step"])


def write_onnx(module: torch.nn.Module, path: Path, outputs: Mapping[str, Mapping[int, str]], side: int = 256) -> None:
    """Export a module of one image input (B, 1, rows, cols), all but the channel axis free, weights inside."""
    sizes = {"image": {0: "batch", 2: "rows", 3: "cols"}} | {name: dict(axes) for name, axes in outputs.items()}
    with warnings.catch_warnings():
        # The exporter by tracing is called legacy; the other one writes a second file and needs a minute.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.zeros(1, 1, side, side),),
            str(path),
            input_names=["image"],
            output_names=list(outputs),
            dynamic_axes=sizes,
            opset_version=OPSET,
            dynamo=False,
        )


def write_weights(network: CompactUnet, path: Path) -> None:
    """Save the state as plain arrays."""
    np.savez(path, **{key: value.numpy() for key, value in network.state_dict().items()})


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _trained_revision(settings: TrainSettings) -> str:
    """Revision of the code that the run began with."""
    record = settings.out / "run.json"
    return str(json.loads(record.read_text(encoding="utf-8")).get("revision", "unknown")) if record.is_file() else "unknown"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, (float, np.floating)):
        return repr(round(float(value), 6))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    return json.dumps(str(value), ensure_ascii=False)


def toml_text(card: Mapping[str, Any]) -> str:
    """Write a card of plain values and one level of tables."""
    lines = [f"{key} = {_value(value)}" for key, value in card.items() if not isinstance(value, Mapping)]
    for key, table in card.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{key}]", *(f"{json.dumps(k) if '.' in k else k} = {_value(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def write_engine(
    name: str, network: CompactUnet, settings: TrainSettings, folder: Path, tables: Mapping[str, Mapping[str, Any]]
) -> Path:
    """Write `model.onnx`, `weights.npz` and the card of an engine; return the card.

    Parameters
    ----------
    name : str
        Name of the engine, as in `--model`.
    network, settings : CompactUnet, TrainSettings
        What was trained and how.
    folder : Path
        Where to write; other files already there (`model_int8.onnx`) are listed too.
    tables : mapping
        Further tables of the card: `output` is completed, `metrics` and `calibration` are usual.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shipped = Shipped(network)
    axes = {
        "confidence": {0: "batch", 2: "half_rows", 3: "half_cols"},
        "spacing_px": {0: "batch"},
        "column_sigma_px": {0: "batch"},
    }
    write_onnx(shipped, folder / "model.onnx", axes)
    write_weights(network, folder / "weights.npz")
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".onnx", ".npz")]
    recipe = asdict(settings.recipe)
    card: dict[str, Any] = {
        "schema": SCHEMA,
        "name": name,
        "files": {path.name: sha256_of(path) for path in files},
        "input": {
            "canonical_sigma_px": settings.recipe.canonical_sigma_px,
            "sigma_range_px": settings.recipe.sigma_range_px,
            "multiple": 16,
        },
        "output": {"stride": CompactUnet.stride, **tables.get("output", {})},
        "network": {
            "architecture": settings.architecture,
            "channels": settings.channels,
            "blocks": settings.blocks,
            "parameters": parameters(network),
        },
        "training": {
            "revision": _trained_revision(settings),
            "crops": settings.crops,
            "batch": settings.batch,
            "rate": settings.rate,
            "decay": settings.decay,
            "seed": settings.seed,
            **{f"recipe_{key}": value for key, value in recipe.items()},
        },
    }
    card |= {key: dict(table) for key, table in tables.items() if key != "output"}
    path = folder / CARD
    path.write_text(toml_text(card), encoding="utf-8")
    return path
