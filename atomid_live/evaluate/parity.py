"""What fewer bits cost: the same network in 32, 16 and 8 bits through the whole detector, on the same simulated frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from atomid_live.backends.engine import Engine, find_engine, load_engine
from atomid_live.backends.precision import INT8_FILE, calibrated, half
from atomid_live.detect.unet import UnetDetector
from atomid_live.errors import UsageError
from atomid_live.evaluate.metrics import match
from atomid_live.evaluate.scenes.catalogue import SCENES, SMALL, SMALL_SHAPE, make_image
from atomid_live.evaluate.scenes.truth import SceneImage
from atomid_live.evaluate.scoring import f1_at
from atomid_live.types import FloatArray

QUARTER = 0.25
SAME_PX = 2.0


@dataclass(frozen=True, slots=True)
class Parity:
    """One version of the network beside the first.

    Attributes
    ----------
    version : str
        E.g. "fp16".
    mean_f1 : float
        Mean F1 at a quarter spacing over the frames that hold columns; its difference to the first's is `f1_change`, whose
        standard error over the frames is `f1_change_sem`.
    columns, lost, more : int
        Columns the first finds in all frames, and how many this one lacks and has beyond them.
    rms_px : float
        Of the difference in position per axis, over the columns both find.
    """

    version: str
    mean_f1: float
    f1_change: float
    f1_change_sem: float
    columns: int
    lost: int
    more: int
    rms_px: float


def versions(engine: Engine) -> dict[str, bytes]:
    """ONNX files of an engine: as it is, in 16 bits, in symmetric 8 bits as TensorRT needs, and its own 8-bit file if any."""
    whole = engine.read(engine.file_for("fp32"))
    made = {"fp32": whole, "fp16": half(whole), "int8 symmetric": calibrated(whole)}
    return made | ({"int8 as shipped": engine.read(INT8_FILE)} if INT8_FILE in engine.card["files"] else {})


def small_frames(seed: int) -> Iterator[SceneImage]:
    """One small frame of every variant of the small benchmark, at seeds it does not use."""
    for scene in SCENES:
        if scene.name in SMALL:
            for variant in scene.variants:
                yield make_image(scene, variant, 0, SMALL_SHAPE, seed)


def compare(engine: Engine, made: Mapping[str, bytes], frames: Iterable[SceneImage]) -> list[Parity]:
    """Run all versions on the same frames; the first is what the others are held against."""
    from atomid_live.backends.onnxruntime import OnnxRuntimeNetwork

    detectors = {name: UnetDetector(OnnxRuntimeNetwork(engine, 1, "fp32", data), engine) for name, data in made.items()}
    first = next(iter(made))
    f1: dict[str, list[float]] = {name: [] for name in made}
    counts = {name: np.zeros(3, np.int64) for name in made}
    squares: dict[str, list[FloatArray]] = {name: [] for name in made}
    for frame in frames:
        found = {name: detector.detect(frame.frame()).yx_px for name, detector in detectors.items()}
        for name, yx in found.items():
            mine, firsts = match(yx, found[first], SAME_PX)
            counts[name] += len(found[first]), len(found[first]) - len(mine), len(yx) - len(mine)
            squares[name].append(((yx[mine] - found[first][firsts]) ** 2).ravel())
            if len(frame.truth.yx_px):
                f1[name].append(f1_at(yx, frame, QUARTER))
    return [_parity(name, f1[name], f1[first], counts[name], np.concatenate(squares[name])) for name in made]


def _parity(name: str, f1: list[float], first: list[float], counts: np.ndarray[tuple[int], np.dtype[np.int64]],
            squares: FloatArray) -> Parity:  # fmt: skip
    change = np.array(f1) - np.array(first)
    change = change[np.isfinite(change)]
    sem = float(change.std(ddof=1) / np.sqrt(len(change))) if len(change) > 1 else float("nan")
    rms = float(np.sqrt(squares.mean())) if len(squares) else float("nan")
    columns, lost, more = (int(n) for n in counts)
    return Parity(name, float(np.nanmean(f1)), float(change.mean()), sem, columns, lost, more, rms)


def compare_precisions(model: str | None = None, seed: int = 700_000) -> list[Parity]:
    """Compare the versions of an engine on simulated frames.

    Raises
    ------
    UsageError
        No such engine, or none ships.
    """
    folder = find_engine(model)
    if folder is None:
        raise UsageError("no engine ships with this program; name a folder with --model")
    engine = load_engine(folder)
    return compare(engine, versions(engine), small_frames(seed))


def parity_table(rows: list[Parity]) -> str:
    """Rows as a Markdown table."""
    lines = [
        "| network | F1 at a quarter | change | columns lost | more | of | position, px rms |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        change = f"{row.f1_change:+.4f} ± {row.f1_change_sem:.4f}"
        lines.append(
            f"| {row.version} | {row.mean_f1:.4f} | {change} | {row.lost} | {row.more} | {row.columns} | {row.rms_px:.3f} |"
        )
    return "\n".join(lines)
