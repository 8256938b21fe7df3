"""The instrument in the terminal: pulled from the session a few times a second, on the alternate screen, by the main thread.

Nothing else writes to the terminal. A console that stands still (Ctrl-S, a selection) holds up this thread, never the session.
"""

from __future__ import annotations

import logging
import math
import re
from io import StringIO
from threading import Event
from typing import IO

from rich import box
from rich.console import Console, Group
from rich.control import Control
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from atomid_live.protocols import Clock
from atomid_live.sinks.console import no_quick_edit, still_running, stop_on_signal
from atomid_live.sinks.plain import PlainDisplay, final_line
from atomid_live.sinks.screen import page
from atomid_live.sinks.view import Snapshot, SnapshotSource
from atomid_live.sinks.wording import Script, duration

log = logging.getLogger(__name__)

REFRESH_S = 0.23


def display_for(source: SnapshotSource, stream: IO[str], clock: Clock, as_json: bool = False) -> TerminalDisplay | PlainDisplay:
    """Return the instrument for a terminal, plain lines for anything else, JSON lines where asked for."""
    console = Console(file=stream)
    if as_json or not console.is_terminal or console.is_dumb_terminal:
        return PlainDisplay(source, stream, clock, as_json)
    return TerminalDisplay(source, stream, clock)


class TerminalDisplay:
    """The live screen, and a summary on the normal screen when the session has ended.

    Parameters
    ----------
    source : SnapshotSource
        The session.
    stream : text stream
        The terminal.
    clock : Clock
        For the running time.
    interval_s : float
        Seconds between pictures.
    """

    def __init__(self, source: SnapshotSource, stream: IO[str], clock: Clock, interval_s: float = REFRESH_S) -> None:
        self._source, self._stream, self._clock, self._interval_s = source, stream, clock, interval_s
        self._console = Console(file=stream, highlight=False)
        script = Script.for_stream(stream)
        self._script = script.plain() if self._console.legacy_windows else script
        self._size = self._console.size
        self._shown: Snapshot | None = None

    def run(self, stop: Event) -> None:
        """Show until the session has ended; Ctrl-C sets `stop` and waits for the end, a second one raises `KeyboardInterrupt`.

        After a fault in drawing plain lines take over; a terminal that is gone ends the showing. The session goes on in both.
        """
        with stop_on_signal(stop), no_quick_edit():
            try:
                self._draw_until_end(stop)
                self._print_summary()
            except (OSError, ValueError) as error:
                log.warning("the terminal is gone (%s); the session goes on without it", error)
                for _ in still_running(self._source, stop, self._interval_s):
                    pass
            except Exception:
                log.exception("drawing failed; plain lines from here on")
                seen = self._shown.logged if self._shown else 0
                PlainDisplay(self._source, self._stream, self._clock, seen=seen).run(stop)

    def _draw_until_end(self, stop: Event) -> None:
        with Live(console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
            for snapshot in still_running(self._source, stop, self._interval_s):
                self._shown = snapshot
                if self._size != self._console.size:
                    self._size = self._console.size
                    self._console.control(Control.clear())
                size = (self._size.width, self._size.height)
                live.update(page(snapshot, self._script, size, self._clock.time_ns(), stop.is_set()), refresh=True)

    def _print_summary(self) -> None:
        if self._shown is not None:
            self._console.print(summary(self._shown, self._script))


def summary(snapshot: Snapshot, script: Script) -> Panel:
    """Sum up a session: counts, columns, drift, strain, speed, and where the results lie."""
    totals, status = snapshot.totals, snapshot.status
    lines = [final_line(snapshot, script)]
    if totals.frames:
        mean = totals.columns / totals.frames
        in_nm = totals.largest_drift_nm
        drift = f"{script.number(totals.largest_drift_px)} px" + (f" = {in_nm:.3f} nm" if math.isfinite(in_nm) else "")
        lines += [
            f"columns per frame: {mean:.0f} on average, {totals.columns_least} to {totals.columns_most}",
            f"drift: at most {drift} from a segment's reference; segments: {totals.segments}",
            f"strain: valid in {totals.strain_valid} of {totals.frames} frames, {totals.alarms} with an alarm",
            f"latency: p50 {script.number(status.latency_p50_ms, 1)} ms, p95 {script.number(status.latency_p95_ms, 1)} ms, "
            f"slowest {script.number(totals.slowest_ms, 1)} ms",
            f"frames span {duration(totals.last_time_s - totals.first_time_s)}",
        ]
    if status.source.ended:
        lines.append(f"ended: {script.clean(status.source.ended)}")
    texts = [Text(line) for line in lines]
    if status.last_problem:
        texts.append(Text(f"last problem: {script.clean(status.last_problem)}", "bold red"))
    if not status.recording:
        texts.append(Text("NOT everything was recorded", "bold red"))
    return Panel(Group(*texts), title="atomid-live", title_align="left", box=box.ROUNDED if script.unicode else box.ASCII)


def screenshot_svg(snapshot: Snapshot, size: tuple[int, int] = (80, 24), now_ns: int = 0, title: str = "atomid-live") -> str:
    """Return the screen as a self-contained SVG picture (it names fonts of the system only, and loads nothing)."""
    width, height = size
    console = Console(file=StringIO(), record=True, width=width, height=height, force_terminal=True, color_system="truecolor")
    console.print(page(snapshot, Script(), size, now_ns), end="")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=title), flags=re.DOTALL)
    svg = svg.replace("<svg ", '<svg xml:space="preserve" ', 1)
    return svg.replace("Fira Code", "DejaVu Sans Mono").replace("font-size: 20px", "font-size: 20.26px")
