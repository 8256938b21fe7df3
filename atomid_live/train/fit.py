"""The training loop: crops in order, a schedule that depends on their number, checkpoints to go on from, curves to look at."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atomid_live.errors import UsageError
from atomid_live.train.dataset import Recipe
from atomid_live.train.feed import Batch, make_batch, twice
from atomid_live.train.loss import compact_loss, thesis_loss
from atomid_live.train.network import SIGMA_UNIT_PX, SPACING_UNIT_PX, CompactUnet

if TYPE_CHECKING:
    from torch import Tensor, nn

VALIDATION_SEED = 30_000_000


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One training run.

    Attributes
    ----------
    out : Path
        Folder of checkpoint, log and curves; made if absent. A checkpoint found there is gone on from.
    architecture : str
        "compact" (ships) or "atomid-net" (the thesis's network, as described there).
    crops : int
        Length of the run, each crop counted both times it is shown; the last `decay` of it lowers the rate to zero.
    batch, rate : int, float
        Crops per step and learning rate at the plateau.
    channels, blocks : tuple of int, int
        Size of the compact network.
    workers, threads : int
        Processes that make crops (0: none besides this one) and torch's threads.
    bfloat16 : bool
        Convolutions in bfloat16 over float32 weights: 1.8 times as fast on processors that have it.
    start : Path or None
        `weights.npz` of an engine of the same size to start from, in place of random numbers.
    """

    out: Path
    architecture: str = "compact"
    crops: int = 240_000
    batch: int = 16
    rate: float = 2e-3
    decay: float = 0.35
    channels: tuple[int, ...] = (32, 48, 64)
    blocks: int = 2
    workers: int = 1
    threads: int = 1
    bfloat16: bool = True
    seed: int = 10_000_000
    recipe: Recipe = field(default_factory=Recipe)
    start: Path | None = None
    validate_every: int = 1000
    checkpoint_every: int = 500


def build(settings: TrainSettings) -> nn.Module:
    """Return the network of the run with its first weights; an unknown architecture raises `UsageError`."""
    torch.manual_seed(settings.seed)
    if settings.architecture == "compact":
        network = CompactUnet(settings.channels, settings.blocks)
        if settings.start is not None:
            with np.load(settings.start) as weights:
                network.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
        return network
    if settings.architecture == "atomid-net":
        from atomid_live.train.atomid_net import AtomIdNet

        return AtomIdNet()
    raise UsageError(f"unknown architecture {settings.architecture!r}; known: compact, atomid-net")


def rate_at(step: int, settings: TrainSettings) -> float:
    """Learning rate of a step: 300 steps of warm-up, a plateau, and half a cosine to zero over the last part."""
    total = settings.crops // settings.batch
    falling = total * (1.0 - settings.decay)
    warm = min(1.0, (step + 1) / 300)
    if step <= falling:
        return settings.rate * warm
    return settings.rate * warm * 0.5 * (1.0 + math.cos(math.pi * (step - falling) / max(total - falling, 1.0)))


def to_tensors(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image, heat, weight with a channel axis, channels last in memory, and logarithms of the sizes."""

    def planes(stack: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(stack))[:, None].to(memory_format=torch.channels_last)

    with np.errstate(invalid="ignore"):
        target = torch.from_numpy(np.log(batch.sizes_px / (SPACING_UNIT_PX, SIGMA_UNIT_PX)).astype(np.float32))
    return planes(batch.image), planes(batch.heat), planes(batch.weight), target


def loss_of(network: nn.Module, batch: Batch, settings: TrainSettings) -> Tensor:
    """Forward pass and loss of the run's architecture."""
    image, heat, weight, target = to_tensors(batch)
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
        first, second = network(image)
    first, second = first.float(), second.float()
    if settings.architecture == "atomid-net":
        return thesis_loss(first, second, heat, SPACING_UNIT_PX * torch.exp(target[:, 0]))
    return compact_loss(first, second, heat, weight, target)


class Run:
    """Network, optimiser and step of a run, kept together so that they are saved and found together."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings
        self.network = build(settings).to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), settings.rate, weight_decay=1e-4)
        self.step = 0
        self.seconds = 0.0

    @property
    def checkpoint(self) -> Path:
        """Where the run is saved."""
        return self.settings.out / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint so that it is whole or absent."""
        part = self.checkpoint.with_suffix(".part")
        state = {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}
        torch.save(state | {"step": self.step, "seconds": self.seconds}, part)
        part.replace(self.checkpoint)

    def load(self) -> bool:
        """Go on from the checkpoint if there is one."""
        if not self.checkpoint.is_file():
            return False
        state = torch.load(self.checkpoint, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        return True

    def learn(self, batch: Batch) -> float:
        """Take one step; return its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(self.step, self.settings)
        self.network.train()
        loss = loss_of(self.network, batch, self.settings)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.step += 1
        return float(loss.detach())

    @torch.no_grad()
    def validate(self, held_out: list[Batch]) -> float:
        """Mean loss over crops that are never trained on."""
        self.network.eval()
        return float(np.mean([float(loss_of(self.network, batch, self.settings)) for batch in held_out]))


def revision() -> str:
    """Git revision of the code, with "+" where the tree differs; "unknown" outside a repository."""
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True, timeout=10)
        diff = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "."], cwd=here, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head.stdout.strip() + ("+" if diff.returncode else "")


def _record(settings: TrainSettings) -> None:
    """Write `run.json`; a run that goes on keeps the revision it began with."""
    path = settings.out / "run.json"
    begun = json.loads(path.read_text(encoding="utf-8"))["revision"] if path.is_file() else revision()
    record = asdict(settings) | {"revision": begun}
    path.write_text(json.dumps(record, default=str, indent=1), encoding="utf-8")


def _log_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def draw_curves(log: Path, picture: Path) -> None:
    """Draw loss and rate over crops; needs matplotlib."""
    from matplotlib.figure import Figure

    rows = _log_rows(log)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    crops = [int(row["crops"]) for row in rows]
    for name in ("train_loss", "validation_loss"):
        axes.plot(crops, [float(row[name]) for row in rows], label=name.replace("_", " "))
    axes.set(xlabel="crops", ylabel="loss", yscale="log")
    axes.legend()
    figure.savefig(picture, dpi=120)


def _progress(total: int, done: int, quiet: bool) -> tuple[Any, Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        disable=quiet,
    )
    return bar, bar.add_task("crops", total=total, completed=done, note="")


def train(settings: TrainSettings, quiet: bool = False) -> Path:
    """Train, or go on training; return the checkpoint.

    Writes `checkpoint.pt`, `run.json`, `log.csv` and `curves.png` into `settings.out`. Crop and step numbers, the seed and
    the settings determine the weights up to the rounding of torch's kernels.

    Raises
    ------
    UsageError
        Unknown architecture.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(settings.threads)
    run = Run(settings)
    run.load()
    if settings.architecture == "atomid-net" and not settings.recipe.thesis_targets:
        raise UsageError("AtomID-Net learns maps of its own: give a recipe with thesis_targets = True")
    _record(settings)
    recipe = replace(settings.recipe, seed=VALIDATION_SEED)
    held_out = [make_batch(recipe, number, settings.batch) for number in range(8)]
    total = settings.crops // settings.batch
    bar, task = _progress(total * settings.batch, run.step * settings.batch, quiet)
    with bar:
        for loss in _steps(run, total, held_out):
            bar.update(task, completed=run.step * settings.batch, note=f"loss {loss:.4f}")
    run.save()
    draw_curves(settings.out / "log.csv", settings.out / "curves.png")
    return run.checkpoint


def _steps(run: Run, total: int, held_out: list[Batch]) -> Iterator[float]:
    settings, smooth, started = run.settings, math.nan, time.monotonic()
    log = settings.out / "log.csv"
    for batch in twice(settings.recipe, settings.batch, run.step, total, settings.workers):
        loss = run.learn(batch)
        smooth = loss if math.isnan(smooth) else 0.99 * smooth + 0.01 * loss
        if run.step % settings.validate_every == 0 or run.step == total:
            now = time.monotonic()
            run.seconds, started = run.seconds + now - started, now
            _append(log, run, smooth, run.validate(held_out))
        if run.step % settings.checkpoint_every == 0:
            run.save()
        yield smooth


def _append(log: Path, run: Run, train_loss: float, validation_loss: float) -> None:
    row = {
        "step": run.step,
        "crops": run.step * run.settings.batch,
        "seconds": round(run.seconds, 1),
        "rate": f"{rate_at(run.step, run.settings):.3g}",
        "train_loss": f"{train_loss:.5f}",
        "validation_loss": f"{validation_loss:.5f}",
    }
    fresh = not log.is_file()
    with log.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, row)
        if fresh:
            writer.writeheader()
        writer.writerow(row)
