"""Train the shipped network anew from its seeds and write its engine: `python scripts/train_default.py [--out runs/unet]`.

Two stages: ordinary scenes from random weights, then, from there, scenes with unlike columns close together. About two and a
half hours on two cores. A run that was cut off goes on; the same processor and versions give the same weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from atomid_live.train.dataset import Recipe
from atomid_live.train.export import load_compact, write_weights
from atomid_live.train.fit import TrainSettings, train
from atomid_live.train.ship import ship

ORDINARY = Recipe(canonical_sigma_px=1.9, empties=0.27, dense=0.0, shaded=False)
CLOSE = Recipe(seed=11_000_000)


def main() -> None:
    """Train in two stages, calibrate and write the engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/unet"), help="checkpoints, logs and curves")
    parser.add_argument("--engine", type=Path, default=Path("engines/unet"), help="where the engine is written")
    parser.add_argument("--crops", type=int, nargs=2, default=(240_000, 96_000), help="crops that each stage sees")
    chosen = parser.parse_args()
    first = TrainSettings(out=chosen.out / "ordinary", crops=chosen.crops[0], recipe=ORDINARY)
    train(first)
    weights = first.out / "weights.npz"
    write_weights(load_compact(first.out / "checkpoint.pt", first)[0], weights)
    second = TrainSettings(
        out=chosen.out / "close", crops=chosen.crops[1], rate=1.5e-3, decay=0.5, bfloat16=False, seed=11_000_000,
        recipe=CLOSE, start=weights, checkpoint_every=250,
    )  # fmt: skip
    train(second)
    print(ship(second, chosen.engine, "unet").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
