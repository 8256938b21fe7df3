"""The terminal's page: which box stands where at 60 x 20, at 80 x 24 and on a large screen."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.text import Text

from atomid_live.sinks import panels
from atomid_live.sinks.verdicts import all_four
from atomid_live.sinks.view import Snapshot
from atomid_live.sinks.wording import Script, file_name, stopwatch

BOXES_WIDTH, BOXES_HEIGHT = 76, 24
RECENT_HEIGHT = 34


def header(snapshot: Snapshot, script: Script, width: int, now_ns: int) -> Text:
    """Program, detector, folder, and the recording lamp with the running time."""
    status = snapshot.status
    clock = stopwatch((now_ns - status.started_ns) / 1e9 if status.started_ns else 0.0)
    if not status.running:
        lamp, style = f"[] ENDED  {clock} ", "bold white on blue"
    elif status.recording:
        lamp, style = f"{script.dot} REC  {clock} ", "bold white on blue"
    else:
        lamp, style = f"NOT RECORDING  {clock} ", "bold white on red"
    model = f"  {script.clean(status.model)}" if status.model else ""
    left = f" atomid-live{model}"
    folder = script.shorten(file_name(status.session_dir), max(0, width - len(left) - len(lamp) - 4))
    middle = f"{left}  {folder}".ljust(width - len(lamp))
    text = Text.assemble((middle, "white on blue"), (lamp, style), no_wrap=True, overflow="crop")
    if status.running and status.recording:
        text.stylize("bold bright_red on blue", len(middle), len(middle) + 1)
    return text


def verdict_bar(snapshot: Snapshot, width: int) -> Text:
    """The four verdicts side by side, or two by two where that is too narrow."""
    each = width // 4 if width >= BOXES_WIDTH else width // 2
    text = Text(no_wrap=True, overflow="crop")
    for place, (title, verdict) in enumerate(all_four(snapshot).items()):
        if place == 2 and width < BOXES_WIDTH:
            text.append("\n")
        told = f" {title} {verdict.word}"
        text.append(told[: each - 1].ljust(each - 1), panels.BARS[verdict.level]).append(" ")
    return text


def _boxed(content: RenderableType, title: str, script: Script, subtitle: str = "") -> Panel:
    return Panel(
        content,
        title=Text(title, "bold"),
        title_align="left",
        subtitle=Text(subtitle, "bright_black") if subtitle else None,
        subtitle_align="right",
        box=box.ROUNDED if script.unicode else box.ASCII,
        border_style="bright_black",
        padding=(0, 1),
    )


def _recent(snapshot: Snapshot, script: Script, count: int) -> Group:
    return Group(*(panels.recent_line(point, script) for point in snapshot.log[-count:]))


def _boxes(snapshot: Snapshot, script: Script, size: tuple[int, int], stopping: bool) -> Layout:
    width, height = size
    extra = height - BOXES_HEIGHT
    recent = height // 5 if height >= RECENT_HEIGHT else 0
    messages = 4 if recent else 4 + min(2, extra // 6)
    body = height - 2 - messages - recent
    right_width = 30 if width < 100 else 36
    inner = width - right_width - 4
    strain_height = 6 if extra < 6 else 10
    drift_height = body - 5 - strain_height
    drift, scale = panels.drift_lines(snapshot, script, inner, drift_height - 2)
    frame = _boxed(Group(*panels.frame_lines(snapshot, script, inner)), panels.frame_title(snapshot, script), script)
    strain = Group(*panels.strain_lines(snapshot, script, inner, strain_height - 2))
    left = Layout()
    left.split_column(
        Layout(frame, size=5),
        Layout(_boxed(Group(*drift), "Drift", script, scale), size=drift_height),
        Layout(_boxed(strain, panels.strain_title(snapshot, script), script), size=strain_height),
    )
    session = Group(*panels.session_lines(snapshot, script, right_width - 4))
    middle = Layout(size=body)
    middle.split_row(left, Layout(_boxed(session, "Session", script), size=right_width))
    page = Layout()
    rows = [middle, Layout(_boxed(Group(*panels.message_lines(snapshot, script, stopping)), "Remarks", script), size=messages)]
    if recent:
        rows.append(Layout(_boxed(_recent(snapshot, script, recent - 2), "Last frames", script), size=recent))
    page.split_column(*rows)
    return page


def _narrow(snapshot: Snapshot, script: Script, size: tuple[int, int], stopping: bool) -> Group:
    width, height = size
    rule = "─" if script.unicode else "-"

    def title(words: str) -> Text:
        return Text(f"{rule * 2} {words} ".ljust(width, rule), "bright_black", no_wrap=True, overflow="crop")

    messages = panels.message_lines(snapshot, script, stopping)
    for text in messages:
        text.no_wrap, text.overflow = True, "ellipsis" if script.unicode else "crop"
    urgent = [text for text in messages if text.style in (panels.STYLES["bad"], panels.STYLES["watch"])]
    drift, _ = panels.drift_lines(snapshot, script, width, 5 if height >= 20 else 2)
    strain = panels.strain_lines(snapshot, script, width, 3)
    return Group(
        *urgent[:1],
        title(panels.frame_title(snapshot, script)),
        *panels.frame_lines(snapshot, script, width),
        title("Drift"),
        *drift,
        title(panels.strain_title(snapshot, script)),
        *strain[:3],
        *panels.session_summary(snapshot, script),
        *(text for text in messages if text not in urgent[:1]),
    )


def page(snapshot: Snapshot, script: Script, size: tuple[int, int], now_ns: int, stopping: bool = False) -> RenderableType:
    """Compose the whole screen.

    Parameters
    ----------
    snapshot : Snapshot
        What to show.
    script : Script
        What characters the screen can show.
    size : (int, int)
        Width and height in characters.
    now_ns : int
        Wall clock in ns since 1970 UTC, for the running time.
    stopping : bool
        The user has asked for the end.
    """
    width, height = size
    top = Group(header(snapshot, script, width, now_ns), verdict_bar(snapshot, width))
    whole = Layout()
    if width >= BOXES_WIDTH and height >= BOXES_HEIGHT:
        whole.split_column(Layout(top, size=2), _boxes(snapshot, script, size, stopping))
    else:
        whole.split_column(
            Layout(top, size=2 if width >= BOXES_WIDTH else 3), Layout(_narrow(snapshot, script, size, stopping))
        )
    return whole
