"""Train the shipped network anew from its seed and write its engine: `python scripts/train_default.py [--out runs/unet]`.

About an hour and a half on two cores. A run that was cut off goes on; the same processor and versions give the same weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from atomid_live.train.fit import TrainSettings, train
from atomid_live.train.ship import ship


def main() -> None:
    """Train, calibrate and write the engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/unet"), help="checkpoint, log and curves")
    parser.add_argument("--engine", type=Path, default=Path("engines/unet"), help="where the engine is written")
    parser.add_argument(
        "--crops", type=int, default=TrainSettings.crops, help="crops to see; the shipped weights saw the default"
    )
    chosen = parser.parse_args()
    settings = TrainSettings(out=chosen.out, crops=chosen.crops)
    train(settings)
    print(ship(settings, chosen.engine, "unet").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
