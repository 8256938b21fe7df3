"""Atomap in a process of its own: it is under the GPL, lives in its own environment, and exchanges files with us."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from atomid_live.errors import UsageError
from atomid_live.evaluate.rivals.oracle import best
from atomid_live.evaluate.scenes.truth import SceneImage
from atomid_live.evaluate.scoring import Answer, spacing_of

WORKER = Path(__file__).resolve().parents[3] / "scripts" / "atomap_worker.py"
SEPARATIONS = (0.4, 0.55, 0.7, 1.0)


def absent_reason(python: Path | None) -> str:
    """Why Atomap cannot take part; "" when it can."""
    if python is None:
        return "no interpreter with Atomap was given (--atomap-python; scripts/rival_environment.py makes one)"
    if not WORKER.is_file():
        return f"{WORKER.name} belongs to the repository, not to the installed package"
    try:
        found = subprocess.run([str(python), "-c", "import atomap"], capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{python}: {error}"
    return "" if found.returncode == 0 else f"{python} cannot import atomap: {found.stderr.strip().splitlines()[-1:]}"


class Atomap:
    """A running worker; one request and one answer per line, arrays in files."""

    def __init__(self, python: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="atomid-live-rival-", ignore_cleanup_errors=True)
        self._worker = subprocess.Popen(
            [str(python), str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def close(self) -> None:
        """End the worker and remove its files."""
        if self._worker.stdin is not None:
            self._worker.stdin.close()
        try:
            self._worker.wait(10)
        except subprocess.TimeoutExpired:
            self._worker.kill()
            self._worker.wait()
        if self._worker.stdout is not None:
            self._worker.stdout.close()
        self._folder.cleanup()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises
        ------
        UsageError
            The worker ended or reports an error.
        """
        assert self._worker.stdin is not None and self._worker.stdout is not None
        self._worker.stdin.write(json.dumps(request) + "\n")
        self._worker.stdin.flush()
        line = self._worker.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line.strip() else {"error": "the process ended"}
        if "error" in answer:
            raise UsageError(f"Atomap's process: {answer['error']}; run the suite without it, or renew its environment")
        return answer

    def __call__(self, scene: SceneImage) -> Answer:
        """Columns at the best of four separations, with and without principal components."""

        def tries() -> Iterator[Answer]:
            path = Path(self._folder.name) / "image.npy"
            np.save(path, scene.pixels.astype(np.float32))
            for part in SEPARATIONS:
                for components in (False, True):
                    separation = max(2, round(part * spacing_of(scene)))
                    told = self.ask(image=str(path), separation=separation, pca=components)
                    note = f"separation {separation} px, principal components {'on' if components else 'off'}"
                    yield Answer(
                        np.asarray(told["yx"], np.float64).reshape(-1, 2), timings_ms={"Atomap": told["ms"]}, note=note
                    )

        chosen = best(tries(), scene)
        return chosen if chosen is not None else Answer(np.empty((0, 2)))
