"""What stands in each box of the terminal, as lines of styled text; where the boxes go is `screen.py`'s matter."""

from __future__ import annotations

import math
from collections.abc import Callable

from rich.text import Text

from atomid_live.sinks import verdicts
from atomid_live.sinks.event_words import recent_events
from atomid_live.sinks.trail import trail
from atomid_live.sinks.verdicts import Level, Verdict
from atomid_live.sinks.view import FramePoint, Snapshot
from atomid_live.sinks.wording import Script, duration, file_name, outlook_words, size
from atomid_live.types import Summary

STYLES: dict[Level, str] = {"good": "green", "watch": "yellow", "bad": "bold red", "unknown": "bright_black"}
BARS: dict[Level, str] = {
    "good": "black on green",
    "watch": "black on yellow",
    "bad": "bold white on red",
    "unknown": "white on grey37",
}
_LABEL = "bright_black"
_LEAST_STRAIN = 2e-3
Lines = list[Text]


def _words(*parts: tuple[str, str] | str) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="crop")


def _hydrostatic(point: FramePoint) -> float:
    return point.reading.strain.get("hydrostatic", Summary()).mean if point.reading.valid else math.nan


def frame_title(snapshot: Snapshot, script: Script) -> str:
    """Name the frame shown."""
    point = snapshot.newest
    return "Frame" if point is None else f"Frame {point.sequence}  {script.shorten(file_name(point.source), 30)}"


def frame_lines(snapshot: Snapshot, script: Script, width: int) -> Lines:
    """Age, size and scale, columns with their history, spacing."""
    point, status = snapshot.newest, snapshot.status
    if point is None:
        return waiting_lines(snapshot, script)
    rows, cols = point.shape
    scale = f" of {1000 * point.pixel_nm:.2f} pm ({point.scale_source})"
    shape = f"{cols} {script.times} {rows} px"
    calibrated = math.isfinite(point.pixel_nm)
    about = _words(("image   ", _LABEL), shape, scale if calibrated else ("  UNCALIBRATED", "yellow"))
    verdict = verdicts.of_columns(snapshot)
    head = f"{point.columns:5d}"
    counts = [float(one.columns) for one in snapshot.segment_history]
    spark = script.sparkline(counts, width - 16 - len(verdict.word))
    columns = _words(("columns ", _LABEL), head, " ", (spark, "cyan"), " ", (verdict.word, STYLES[verdict.level]))
    nm = f" = {script.number(point.spacing_px * point.pixel_nm, 4)} nm" if calibrated else ""
    age = f"  {duration(status.age_s)} old"
    spacing = _words(("spacing ", _LABEL), f"{script.number(point.spacing_px)} px{nm}".ljust(width - 8 - len(age)), age)
    return [about, columns, spacing]


def waiting_lines(snapshot: Snapshot, script: Script) -> Lines:
    """What a session without a frame yet is waiting for."""
    source = snapshot.status.source
    lines = [_words("no frame yet"), _words(("waiting on ", _LABEL), script.clean(source.name) or "the source")]
    lines += [_words(script.clean(f"{file_name(name)}: {why}")) for name, why in source.waiting[:1]]
    return lines


def drift_lines(snapshot: Snapshot, script: Script, width: int, height: int) -> tuple[Lines, str]:
    """Total, velocity with direction, speed history and the path; returns the lines and the scale of the path in words."""
    point = snapshot.newest
    if point is None:
        return [_words(("no drift yet", _LABEL))], ""
    told = _drift_words(snapshot, point, script, width)
    wide = min(3 * height, width - 34)
    if wide < 8 or height < 3:
        return told, ""
    points = [one.drift.total_yx_px for one in snapshot.segment_history]
    picture, span = trail(points, wide, height, script)
    lines = []
    for row in range(height):
        text = told[row].copy() if row < len(told) else Text()
        text.truncate(width - wide - 1, pad=True)
        text.append(" ").append(picture[row], "cyan")
        text.no_wrap, text.overflow = True, "crop"
        lines.append(text)
    in_nm = f" = {span * point.pixel_nm:.2f} nm" if math.isfinite(span * point.pixel_nm) else ""
    return lines, f"path: {span:.1f} px{in_nm} wide" if math.isfinite(span) else ""


def _drift_words(snapshot: Snapshot, point: FramePoint, script: Script, width: int) -> Lines:
    drift, verdict = point.drift, verdicts.of_drift(point)
    (y, x), (pixel_y, pixel_x) = drift.total_yx_px, point.pixel_size_yx_nm
    velocity_y, velocity_x = drift.velocity_yx_nm_min
    speed = math.hypot(velocity_y, velocity_x)
    if math.isfinite(speed):
        rate = script.measured(speed, drift.sigma_velocity_nm_min, "nm/min")
    else:
        rate = f"{script.number(60 * math.hypot(*drift.velocity_yx_px_s), 2)} px/min"
    arrow = script.arrow(*drift.velocity_yx_px_s) or script.arrow(velocity_y, velocity_x)
    total = f"x {script.number(x, 2, True)}  y {script.number(y, 2, True)} px"
    sigma = math.hypot(*drift.sigma_yx_px) / math.sqrt(2)
    if math.isfinite(sigma):
        total += f"  {script.plus_minus} {sigma:.2f}"
    speeds = [_speed(one) for one in snapshot.segment_history]
    return [
        _words((rate, f"bold {STYLES[verdict.level]}"), " ", (arrow, STYLES[verdict.level])),
        _words(total),
        _words(f"x {script.number(x * pixel_x, 3, True)}  y {script.number(y * pixel_y, 3, True)} nm"),
        _words(("speed ", _LABEL), (script.sparkline(speeds, min(24, width - 8)), "cyan")),
        _words((script.clean(verdict.detail) or outlook_words(drift, script) or verdict.word, STYLES[verdict.level])),
    ]


def _speed(point: FramePoint) -> float:
    drift = point.drift
    speed = math.hypot(*drift.velocity_yx_nm_min)
    return speed if math.isfinite(speed) else 60 * math.hypot(*drift.velocity_yx_px_s)


def strain_title(snapshot: Snapshot, script: Script) -> str:
    """Name the reference."""
    reference = snapshot.newest.reading.reference if snapshot.newest else ""
    return f"Strain against {script.shorten(reference, 24)}" if reference else "Strain"


def strain_lines(snapshot: Snapshot, script: Script, width: int, height: int) -> Lines:
    """Hydrostatic strain with its error and history, the components, and why to believe it or not."""
    point = snapshot.newest
    if point is None:
        return [_words(("no strain yet", _LABEL))]
    reading, verdict = point.reading, verdicts.of_strain(point)
    found = reading.strain.get("hydrostatic", Summary())
    mean = script.measured(100 * found.mean, 100 * found.sem, "%", signed=True)
    style = STYLES[verdict.level]
    freed = reading.strain_corrected.get("hydrostatic")
    other = f"  corrected {script.measured(100 * freed.mean, 100 * freed.sem, '%', signed=True)}" if freed else ""
    if len("hydrostatic ") + len(mean) + 2 + len(verdict.word) + len(other) > width:
        other = ""  # a number cut short would be a wrong one; the recorded line has it
    head = (mean, f"bold {style}" if reading.valid else _LABEL)
    lines = [
        _words(("hydrostatic ", _LABEL), head, "  ", (verdict.word, style), (other, _LABEL)),
        strain_history(snapshot, script, width),
    ]
    if verdict.detail:
        lines.append(_words((script.clean(verdict.detail), style)))
    if height > 5:
        lines += _each_component(point, script)
    else:
        lines.append(_components(point, script))
    slope = reading.slope_per_min.get("hydrostatic", math.nan)
    notes = [f"window {reading.window_nm:.2g} nm"] if math.isfinite(reading.window_nm) else []
    notes += [f"trend {script.number(100 * slope, 2, True)} %/min"] if math.isfinite(slope) else []
    notes += [f"{reading.vacancies} vacant"] if reading.vacancies >= 0 else []
    notes += jitter_words(point, script)
    lines.append(_words(("  ".join(notes), _LABEL)))
    return lines


def jitter_words(point: FramePoint, script: Script) -> list[str]:
    """Row jitter of the frame along x and y with its error, in px and pm; nothing where it was not measured."""
    jitter = point.reading.jitter
    if jitter.reason:
        return []
    (y, x), (sigma_y, sigma_x), (nm_y, nm_x) = jitter.rms_yx_px, jitter.sigma_rms_yx_px, point.pixel_size_yx_nm
    px = f"{script.measured(x, sigma_x, 'x')}, {script.measured(y, sigma_y, 'y px')}"
    pm = f" ({1000 * x * nm_x:.0f}, {1000 * y * nm_y:.0f} pm)" if math.isfinite(nm_x + nm_y) else ""
    return [f"row jitter {px}{pm}"]


def strain_history(snapshot: Snapshot, script: Script, width: int) -> Text:
    """Sparkline of the hydrostatic strain around zero, alarms in red, and the strain its height stands for."""
    points = snapshot.segment_history
    values = [_hydrostatic(point) for point in points]
    room = max(8, width - 22)
    shown = [abs(value) for value in values[-room:] if math.isfinite(value)]
    least = max(_LEAST_STRAIN, 3 * points[-1].reading.strain.get("hydrostatic", Summary(sem=0.0)).sem)
    label = f" {script.plus_minus}{100 * max(least, *shown):.2f} %" if shown else " no valid frame yet"
    text = Text("history ", _LABEL, no_wrap=True, overflow="crop")
    tail = points[-room:]
    for mark, point in zip(script.sparkline(values, room, around_zero=least), tail, strict=True):
        text.append(mark, "red" if point.reading.alarm else "cyan")
    return text.append(label, _LABEL)


def _components(point: FramePoint, script: Script) -> Text:
    strain = point.reading.strain
    told = " ".join(
        f"{name} {script.number(100 * strain.get(name, Summary()).mean, 2, True)}" for name in ("exx", "eyy", "exy")
    )
    rotation = strain.get("rotation_mrad", Summary()).mean
    return _words(f"{told} %  rot {script.number(rotation, 1, True)} mrad")


def _each_component(point: FramePoint, script: Script) -> Lines:
    lines = []
    for name, title in (("exx", "exx"), ("eyy", "eyy"), ("exy", "exy"), ("rotation_mrad", "rotation")):
        reading = point.reading
        found, gpa, free = (table.get(name, Summary()) for table in (reading.strain, reading.gpa, reading.strain_corrected))
        factor, unit = (1.0, "mrad") if name == "rotation_mrad" else (100.0, "%")
        told = script.measured(factor * found.mean, factor * found.sem, unit, signed=True)
        other = f"   corrected {script.number(factor * free.mean, 2, True)}" if math.isfinite(free.mean) else ""
        other += f"   GPA {script.number(factor * gpa.mean, 2, True)}" if math.isfinite(gpa.mean) else ""
        lines.append(_words((f"{title:12s}", _LABEL), told, (other, _LABEL)))
    return lines


def recent_line(point: FramePoint, script: Script) -> Text:
    """One row of the list of last frames."""
    if not point.processed:
        return _words(
            (f"{point.sequence:6d}  {point.state.value}: ", "yellow"),
            script.clean(f"{point.reason}  {file_name(point.source)}"),
        )
    y, x = point.drift.total_yx_px
    speed, found = math.hypot(*point.drift.velocity_yx_nm_min), point.reading.strain.get("hydrostatic", Summary())
    strain = script.measured(100 * found.mean, 100 * found.sem, "%", signed=True) if point.reading.valid else "not valid"
    drift = f"x {script.number(x, 1, True):>7} y {script.number(y, 1, True):>7} px"
    rate = script.measured(speed, point.drift.sigma_velocity_nm_min, "nm/min")
    told = f"{point.sequence:6d} {point.columns:6d} columns  {drift} {rate:>21}  strain {strain:>16}"
    return _words(
        f"{told} {script.number(point.latency_ms, 0):>5} ms ", ("ALARM" if point.reading.alarm else "", STYLES["bad"])
    )


def session_lines(snapshot: Snapshot, script: Script, width: int) -> Lines:
    """Latency, rate, counters that add up, disk and pictures: one name and value a line."""
    status, source = snapshot.status, snapshot.status.source
    counts = status.counts

    def row(name: str, value: str, level: Level | None = None) -> Text:
        gap = " " * max(1, width - len(name) - len(value))
        return _words((name, _LABEL), gap, (value, STYLES[level]) if level else value)

    def count(state: str, level: Level) -> Text:
        number = counts.get(state, 0)
        return row(f"  {state}", str(number), level if number else None)

    ms: Callable[[float], str] = lambda value: f"{script.number(value, 1)} ms"  # noqa: E731
    low = 0 <= status.disk_free_bytes < verdicts.DISK_LOW
    return [
        row("latency p50", ms(status.latency_p50_ms)),
        row("        p95", ms(status.latency_p95_ms)),
        row("        p99", ms(status.latency_p99_ms)),
        row("rate", f"{script.number(status.frames_per_s)} frames/s"),
        row("behind", f"{source.behind} frames", "watch" if source.behind > 5 else None),
        row("received", str(status.received)),
        count("processed", "good"),
        count("dropped", "watch"),
        count("skipped", "watch"),
        count("failed", "bad"),
        count("quarantined", "bad"),
        row("missing (gaps)", str(source.missing), "watch" if source.missing else None),
        row("waiting files", str(len(source.waiting)), "watch" if source.waiting else None),
        row("disk left", size(status.disk_free_bytes), "bad" if low else None),
        row("pictures left out", str(status.pictures_skipped), "watch" if status.pictures_skipped else None),
        row("source", script.shorten(source.mode or source.name, max(4, width - 8))),
    ]


def session_summary(snapshot: Snapshot, script: Script) -> Lines:
    """Say the same in three lines, for small screens."""
    status, source = snapshot.status, snapshot.status.source
    latency = "/".join(
        script.number(value, 0) for value in (status.latency_p50_ms, status.latency_p95_ms, status.latency_p99_ms)
    )
    counted = " + ".join(f"{number} {state}" for state, number in status.counts.items() if number) or "0"
    return [
        _words(("latency ", _LABEL), f"{latency} ms (p50/95/99)", ("  behind ", _LABEL), str(source.behind)),
        _words(("frames ", _LABEL), f"{status.received} = {counted}"),
        _words(("disk left ", _LABEL), size(status.disk_free_bytes), ("  missing ", _LABEL), str(source.missing)),
    ]


def message_lines(snapshot: Snapshot, script: Script, stopping: bool) -> Lines:
    """What is wrong, what waits, and what the flags of the frame mean, most urgent first."""
    status, lines = snapshot.status, []
    if stopping and status.running:
        lines.append(Text("stopping: finishing what was begun; Ctrl-C again aborts", "yellow"))
    if status.source.problem:
        lines.append(Text(f"input: {script.clean(status.source.problem)}", STYLES["bad"]))
    frames: Verdict = verdicts.of_frames(snapshot)
    if frames.level in ("bad", "watch") and frames.detail not in (status.source.problem, status.last_problem):
        lines.append(Text(f"{frames.word}: {script.clean(frames.detail)}", STYLES[frames.level]))
    if status.last_problem:
        lines.append(Text(f"last problem: {script.clean(status.last_problem)}", STYLES["bad"]))
    lines += [Text(f"waiting: {script.clean(file_name(name))}: {script.clean(why)}") for name, why in status.source.waiting[:2]]
    newest = snapshot.newest
    if newest is not None and newest.reading.alarm:
        lines.append(Text(f"strain alarm: {script.clean(newest.reading.alarm)}", STYLES["bad"]))
    happened = recent_events(snapshot)
    lines += [Text(script.clean(happened), STYLES["watch"])] if happened else []
    remarks = "; ".join(script.clean(words) for words in verdicts.remarks(newest))
    lines += [Text(remarks)] if remarks else []
    return lines or [Text("nothing to remark", _LABEL)]
