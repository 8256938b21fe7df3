"""Make the pictures of the README from a simulated session (the dashboard needs rsvg-convert).

Run it with the interpreter of .venv after `python scripts/test.py` has installed what it needs.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import subprocess
import tempfile
from pathlib import Path
from threading import Event

from atomid_live.assemble import Prepared
from atomid_live.pipeline import Pipeline
from atomid_live.session import Session
from atomid_live.session_file import SessionFolder, SessionInfo
from atomid_live.settings import resolve
from atomid_live.simulate.microscope import live_scenario
from atomid_live.sinks.annotate import annotate, encode_png
from atomid_live.sinks.figure import draw
from atomid_live.sinks.recorder import Recorder
from atomid_live.sinks.terminal import screenshot_svg
from atomid_live.sinks.window import FIGURE_INCHES
from atomid_live.sources.simulated import SimulatedSource

FIGURES = Path(__file__).resolve().parents[1] / "docs" / "figures"
FRAMES = 34


def main() -> None:
    """Run a session over a simulated source, and draw its last moment."""
    settings, origins = resolve(None, {})
    with tempfile.TemporaryDirectory(prefix="atomid-pictures-") as text:
        folder = SessionFolder.create(Path(text), SessionInfo("Spectra 300 (simulated)"))
        recorder = Recorder(folder, annotate="none")
        scenario = dataclasses.replace(
            live_scenario("res2", FRAMES, 1, 1.2),
            strain_exx_eyy_exy=(0.004, 0.004, 0.0),
            strain_from_frame=FRAMES // 3,
            strain_until_frame=FRAMES - 1,
        )
        source = SimulatedSource(scenario)
        pipeline = Pipeline(Prepared(settings, origins).detector(), settings)
        session = Session(source, pipeline, recorder, folder.path, itertools.count())
        session.run(Event())
        snapshot = session.snapshot(preview=True)
        status = dataclasses.replace(snapshot.status, running=True, recording=True)
        snapshot = dataclasses.replace(snapshot, status=status)
        recorder.close()
        frame = SimulatedSource(source.session.scenario)
        last = list(frame.frames(itertools.count(), Event()))[-1]
    FIGURES.mkdir(parents=True, exist_ok=True)
    assert snapshot.latest is not None
    (FIGURES / "annotated.png").write_bytes(encode_png(annotate(last, snapshot.latest)))
    _dashboard(screenshot_svg(snapshot, (100, 36), status.started_ns + 45_000_000_000))
    _window(snapshot)


def _dashboard(svg: str) -> None:
    file = FIGURES / "dashboard.svg"
    file.write_text(svg, encoding="utf-8")
    if shutil.which("rsvg-convert"):
        subprocess.run(["rsvg-convert", "-o", str(file.with_suffix(".png")), str(file)], check=True)
        file.unlink()


def _window(snapshot: object) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=FIGURE_INCHES, dpi=90)
    FigureCanvasAgg(figure)
    draw(figure, snapshot, "strain")  # type: ignore[arg-type]
    figure.savefig(FIGURES / "window.png")


if __name__ == "__main__":
    main()
