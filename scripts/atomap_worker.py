"""Atomap's side of the comparison; runs in an environment that has Atomap and nothing of ours.

One JSON request per line on standard input ({"image": file.npy, "separation": px, "pca": bool}), one answer per line on
standard output ({"yx": [[row, col], ...], "ms": time of the call}). First positions only, without Atomap's slow refinement.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from time import perf_counter


def main() -> None:
    """Answer until standard input ends."""
    warnings.simplefilter("ignore")
    answers = sys.stdout
    # Progress bars of the library must not mix with the answers.
    with open(os.devnull, "w", encoding="utf-8") as silent, contextlib.redirect_stdout(silent):  # noqa: PTH123
        import hyperspy.api as hs
        import numpy as np
        from atomap.atom_finding_refining import get_atom_positions

        for line in sys.stdin:
            request = json.loads(line)
            try:
                signal = hs.signals.Signal2D(np.load(request["image"]))
                start = perf_counter()
                xy = get_atom_positions(signal, separation=request["separation"], pca=request["pca"])
                told = {"yx": [[float(y), float(x)] for x, y in xy], "ms": 1e3 * (perf_counter() - start)}
            except Exception as error:
                told = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(told) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
