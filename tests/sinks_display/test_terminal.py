"""The screen at every size, the end on the normal screen, and signals."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from threading import Event, Thread
from xml.etree import ElementTree

import pytest
from display_scenes import FixedClock, ScriptedSource, history, result, snapshot, status
from rich.cells import cell_len
from rich.console import Console

from atomid_live.flags import Flag
from atomid_live.sinks import terminal
from atomid_live.sinks.console import no_quick_edit, still_running, stop_on_signal
from atomid_live.sinks.panels import strain_lines
from atomid_live.sinks.plain import PlainDisplay
from atomid_live.sinks.screen import page
from atomid_live.sinks.terminal import TerminalDisplay, display_for, screenshot_svg, summary
from atomid_live.sinks.view import History, Snapshot
from atomid_live.sinks.wording import Script
from atomid_live.types import NAN, Detections, DriftEstimate, Reading, SourceStatus, Summary


class Tty(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def rendered(shown: Snapshot, width: int = 80, height: int = 24, script: Script | None = None, stopping: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None, legacy_windows=False
    )
    with console.capture() as captured:
        console.print(page(shown, script or Script(), (width, height), FixedClock().time_ns(), stopping), end="")
    return captured.get()


def uncalibrated_and_ambiguous() -> Snapshot:
    memory = history(8, calibrated=False)
    last = result(8, calibrated=False)
    note = "the step fits three lattice vectors"
    drift = replace(last.drift, flags=int(Flag.MODULO_LATTICE), note=note, candidates_yx_px=((1.0, 2.0),))
    memory.add(replace(last, drift=drift, reading=Reading(reason="two crystals in view")))
    return memory.snapshot(status(9))


def dead() -> Snapshot:
    memory = history(8)
    for frame in range(8, 12):
        memory.add(
            replace(result(frame, found=Detections.empty()), drift=DriftEstimate(), reading=Reading(reason="no columns"))
        )
    return memory.snapshot(status(12, source=SourceStatus(name="x", problem="folder \x1b[31m/gone is not reachable")))


def nothing() -> Snapshot:
    source = SourceStatus(name="folder /data", waiting=(("/data/HAADF 1.emd", "growing: 1.2 MB so far"),))
    return History().snapshot(status(0, received=0, counts={}, age_s=NAN, latency_p50_ms=NAN, source=source))


SCENES = {"good": snapshot, "ambiguous": uncalibrated_and_ambiguous, "dead": dead, "nothing": nothing}


@pytest.mark.parametrize("size", [(80, 24), (60, 20), (120, 40), (200, 60), (76, 24), (40, 10), (10, 3), (1, 1)])
@pytest.mark.parametrize("scene", SCENES)
def test_every_scene_fits_every_screen(scene, size):
    width, height = size
    lines = rendered(SCENES[scene](), width, height).rstrip("\n").split("\n")
    assert len(lines) <= height
    assert all(cell_len(line) <= width for line in lines)
    assert "nan" not in "".join(lines) and "None" not in "".join(lines)


def test_80x24_shows_what_the_operator_needs():
    text = rendered(snapshot(60))
    for needed in (
        "REC  0:12:34",
        "FRAMES live",
        "DRIFT drifting",
        "STRAIN quiet",
        "COLUMNS steady",
        "Frame 59",
        "1200 × 900 px of 12.40 pm (file)",
        "spacing 25.60 px = 0.3174 nm",
        "nm/min",
        "hydrostatic +0.1",
        "rot +1.2 mrad",
        "31.2 ms",
        "38.4 ms",
        "44.0 ms",
        "412 GB",
        "0.4 s old",
        "quarantined",
        "behind",
        "Strain against first:5",
    ):
        assert needed in text, needed
    assert re.search(r"received +62 ", text) and re.search(r"processed +60 ", text)


def test_trouble_is_said_in_words():
    text = rendered(uncalibrated_and_ambiguous())
    for needed in (
        "UNCALIBRATED",
        "DRIFT ambiguous",
        "STRAIN not valid",
        "two crystals in view",
        "no pixel size is known",
        "px/min",
    ):
        assert needed in text, needed
    text = rendered(dead())
    assert "NO INPUT" in text and "COLUMNS NONE" in text and "is not reachable" in text and "\x1b[31m/gone" not in text
    text = rendered(nothing())
    assert "no frame yet" in text and "HAADF 1.emd: growing: 1.2 MB so far" in text


def test_not_recording_cannot_be_overlooked():
    shown = replace(snapshot(8), status=status(8, recording=False, last_problem="cannot write frames.jsonl: no space"))
    for size in ((80, 24), (60, 20)):
        text = rendered(shown, *size)
        assert "NOT RECORDING" in text and "FRAMES UNSAVED" in text and "cannot write frames.jsonl" in text


def test_alarm_and_stopping_and_remarks():
    memory = history(8)
    one = result(8)
    memory.add(replace(one, reading=replace(one.reading, alarm="+0.4 % in 20 s")))
    text = rendered(memory.snapshot(status(9)), stopping=True)
    assert "STRAIN ALARM" in text and "+0.4 % in 20 s" in text and "Ctrl-C again aborts" in text


def test_large_screen_lists_the_last_frames_and_each_component():
    text = rendered(snapshot(30), 120, 40)
    assert "Last frames" in text and "GPA +0.11" in text and re.search(r"rotation +\+1\.25 ± 0\.05 mrad", text)
    assert re.search(r"29 +1599 columns", text)


def test_ascii_screens_get_ascii():
    for size in ((80, 24), (60, 20), (120, 40)):
        for scene in SCENES.values():
            assert rendered(scene(), *size, Script(False, "ascii")).isascii()


@pytest.fixture
def screen_80x24(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("TERM", "xterm-256color")


def test_run_uses_the_alternate_screen_and_sums_up_on_the_normal_one(screen_80x24):
    stream = Tty()
    TerminalDisplay(ScriptedSource([snapshot(8)] * 3), stream, FixedClock(), interval_s=0).run(Event())
    before, after = stream.getvalue().split("\x1b[?1049l")
    assert before.startswith("\x1b[?1049h") and "Frame 7" in before
    assert "10 frames received: 8 processed, 1 skipped, 1 quarantined" in after and "columns per frame: 1599" in after


def test_a_terminal_that_went_away_does_not_end_the_session(screen_80x24):
    class Gone(Tty):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    source = ScriptedSource([snapshot(3)] * 4)
    TerminalDisplay(source, Gone(), FixedClock(), interval_s=0).run(Event())
    assert source.asked >= 4


def test_a_fault_in_drawing_falls_back_to_plain_lines(screen_80x24, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(terminal, "page", broken)
    stream = Tty()
    TerminalDisplay(ScriptedSource([snapshot(3), snapshot(5)]), stream, FixedClock(), interval_s=0).run(Event())
    after = stream.getvalue().split("\x1b[?1049l")[1]
    assert "frame 4  processed" in after and "frame 2  processed" not in after, "what was on screen is not told again"


def test_display_for_chooses_by_stream(screen_80x24):
    source, clock = ScriptedSource([snapshot(1)]), FixedClock()
    assert isinstance(display_for(source, Tty(), clock), TerminalDisplay)
    assert isinstance(display_for(source, io.StringIO(), clock), PlainDisplay)
    assert isinstance(display_for(source, Tty(), clock, as_json=True), PlainDisplay)


def test_ctrl_c_asks_first_and_aborts_then():
    stop, before = Event(), signal.getsignal(signal.SIGINT)
    with stop_on_signal(stop):
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no hang-up signal on this system")
def test_closing_the_terminal_stops_politely_unless_nohup():
    stop, before = Event(), signal.getsignal(signal.SIGHUP)
    with stop_on_signal(stop):
        signal.raise_signal(signal.SIGHUP)
    assert stop.is_set()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signal(Event()):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_are_left_alone_outside_the_main_thread():
    seen = []

    def enter() -> None:
        with stop_on_signal(Event()), no_quick_edit():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = Thread(target=enter)
    before = signal.getsignal(signal.SIGINT)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_set_stop_waits_for_the_session_to_end():
    stop = Event()
    stop.set()
    snapshots = list(still_running(ScriptedSource([snapshot(1)] * 5), stop, 0.0))
    assert len(snapshots) == 5 and not snapshots[-1].status.running


def test_summary_without_frames_and_with_losses():
    console = Console(file=io.StringIO(), width=80)
    console.print(summary(nothing(), Script(False, "ascii")))
    console.print(summary(replace(snapshot(6), status=status(6, recording=False)), Script()))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "0 frames received: none" in text and "NOT everything was recorded" in text


def test_screenshot_is_a_self_contained_picture():
    svg = screenshot_svg(snapshot(30), now_ns=FixedClock().time_ns())
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert "@font-face" not in svg and not re.search(r"(href|url)\s*[=(]\s*.?https?:", svg)
    assert "quarantined" in svg and "DRIFT" in svg


def test_displays_load_no_plotting_or_learning():
    code = (
        "import sys, atomid_live.sinks.terminal, atomid_live.sinks.window;"
        "print([m for m in ('matplotlib', 'torch', 'openvino', 'h5py', 'tkinter', 'scipy') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert told.stdout.strip() == "[]"


def test_a_corrected_strain_is_shown_whole_or_not_at_all():
    shot = snapshot(30)
    freed = replace(shot.history[-1].reading, strain_corrected={"hydrostatic": Summary(0.0012345, 1e-3, 1e-4)})
    shown = replace(shot, history=(*shot.history[:-1], replace(shot.history[-1], reading=freed)))
    whole = "hydrostatic +0.11 ± 0.03 %  quiet  corrected +0.123 ± 0.010 %"
    for width in range(40, 80):
        line = strain_lines(shown, Script(), width, 5)[0].plain
        assert line == (whole if width >= len(whole) else whole[: whole.index("  corrected")])
