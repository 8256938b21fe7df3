"""Four panels of a session: the frame with its columns, the strain map, the drift path, the strain history.

Artists are made once and updated in place; nothing here opens a window. matplotlib is loaded with this module.
"""

from __future__ import annotations

import math
import textwrap
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from atomid_live.sinks.verdicts import Level, all_four
from atomid_live.sinks.view import FramePoint, Snapshot
from atomid_live.sinks.wording import Script, duration, file_name
from atomid_live.types import NAN, Result, Summary

MAP_POINTS = 160
_REASON_WIDTH, _REASON_LINES = 42, 6
_STEPS_PERCENT = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
_DOT_POINTS = 115.0
_BAR_NM = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
_INKS: dict[Level, str] = {"good": "#1a7f37", "watch": "#9a6700", "bad": "#cf222e", "unknown": "#57606a"}
_FIGURES: WeakKeyDictionary[Figure, Panels]


def draw(figure: Figure, snapshot: Snapshot, colour_by: str = "score") -> None:
    """Draw a snapshot on a figure, or update what an earlier call drew there.

    Parameters
    ----------
    figure : Figure
        Empty, or drawn on by this function only.
    snapshot : Snapshot
        With its preview, where the frame's picture shall be seen.
    colour_by : {"score", "strain"}
        What colours the columns on the frame; the map always shows strain.
    """
    panels = _FIGURES.get(figure)
    if panels is None:
        panels = _FIGURES[figure] = Panels(figure)
    panels.update(snapshot, colour_by)


def strain_map(result: Result, points: int = MAP_POINTS) -> NDArray[np.float64]:
    """Give each point of a coarse grid the hydrostatic strain of its nearest column, in %.

    Parameters
    ----------
    result : Result
        One frame.
    points : int
        Grid points along the longer side.

    Returns
    -------
    ndarray, shape (gy, gx)
        NaN farther than 1.2 spacings from every column, and where that column has no strain.
    """
    rows, cols = result.shape
    step = max(rows, cols) / points
    grid_y, grid_x = np.arange(step / 2, rows, step), np.arange(step / 2, cols, step)
    found = np.full((len(grid_y), len(grid_x)), NAN)
    yx, values = result.detections.yx_px, 100 * result.strain.hydrostatic
    if len(yx) == 0 or len(values) != len(yx):
        return found
    reach = 1.2 * result.detections.spacing_px if math.isfinite(result.detections.spacing_px) else 3 * step
    where = np.stack(np.meshgrid(grid_y, grid_x, indexing="ij"), axis=-1)
    _, nearest = cKDTree(yx).query(where, distance_upper_bound=reach)
    near = nearest < len(yx)
    found[near] = values[nearest[near]]
    return found


def half_range_percent(values: NDArray[np.float64], before: float) -> float:
    """Choose the symmetric colour range: a round number over 98 % of the values, kept while the values stay near it.

    The range grows at once and shrinks only when a range two steps smaller would do, so that frames compare.
    """
    finite = np.abs(values[np.isfinite(values)])
    if finite.size == 0:
        return before
    wanted = float(np.percentile(finite, 98))
    place = next((i for i, step in enumerate(_STEPS_PERCENT) if step >= wanted), len(_STEPS_PERCENT) - 1)
    old = _STEPS_PERCENT.index(before)
    return _STEPS_PERCENT[place] if place > old or place <= old - 2 else before


def bar_length_nm(field_nm: float) -> float:
    """Choose the round length nearest below a quarter of the field's width; NaN when that is unknown."""
    fitting = [length for length in _BAR_NM if length <= field_nm / 4]
    return fitting[-1] if fitting else NAN


class Panels:
    """The four panels and their artists, on one figure."""

    def __init__(self, figure: Figure) -> None:
        figure.subplots_adjust(left=0.06, right=0.965, top=0.88, bottom=0.075, hspace=0.27, wspace=0.13)
        axes = figure.subplots(2, 2, width_ratios=(1, 1), height_ratios=(2, 1))
        self._frame, self._map, self._path, self._strain = axes.ravel()
        self._title = figure.suptitle("", fontsize=10, family="monospace")
        self._half_range, self._script = _STEPS_PERCENT[0], Script()
        self._make_frame(figure)
        self._make_map(figure)
        self._make_path()
        self._make_history()

    def _make_frame(self, figure: Figure) -> None:
        axes = self._frame
        axes.set_title("columns by score", fontsize=9)
        axes.set_facecolor("0.6")
        axes.tick_params(labelsize=7)
        self._picture = axes.imshow(np.zeros((2, 2), np.uint8), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        self._dots = axes.scatter([], [], s=4, c=[], cmap="viridis", norm=Normalize(0, 1), linewidths=0)
        self._score_colours = ScalarMappable(Normalize(0, 1), "viridis")
        self._dot_bar = figure.colorbar(self._dots, ax=axes, shrink=0.9)
        self._dot_bar.ax.tick_params(labelsize=7)
        self._bar = axes.add_patch(Rectangle((0, 0), 0, 0, facecolor="white", edgecolor="black", linewidth=0.8, visible=False))
        self._bar_text = axes.text(0, 0, "", color="white", fontsize=9, ha="center", va="bottom", weight="bold")
        self._bar_text.set_bbox({"facecolor": "black", "alpha": 0.45, "pad": 1.2, "linewidth": 0})

    def _make_map(self, figure: Figure) -> None:
        axes = self._map
        axes.set_facecolor("0.6")
        axes.tick_params(labelsize=7)
        self._norm = CenteredNorm(0.0, self._half_range)
        colours = _colours()
        self._field = axes.imshow(np.full((2, 2), NAN), cmap=colours, norm=self._norm, interpolation="nearest")
        bar = figure.colorbar(self._field, ax=axes, shrink=0.9)
        bar.set_label("hydrostatic strain (%)", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        self._reason = axes.text(0.5, 0.5, "", transform=axes.transAxes, ha="center", va="center", fontsize=9)
        self._reason.set_bbox({"facecolor": "white", "alpha": 0.9, "linewidth": 0})

    def _make_path(self) -> None:
        axes = self._path
        axes.set_aspect("equal", "box")
        axes.invert_yaxis()
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7)
        (self._line,) = axes.plot([], [], "-", color="#0969da", linewidth=1.2)
        (self._start,) = axes.plot([], [], "o", color="#57606a", markersize=5, fillstyle="none")
        (self._here,) = axes.plot([], [], "o", color="#cf222e", markersize=5)
        self._error = axes.add_patch(Ellipse((0, 0), 0, 0, facecolor="#cf222e", alpha=0.25))

    def _make_history(self) -> None:
        axes = self._strain
        axes.grid(alpha=0.3)
        axes.axhline(0, color="0.4", linewidth=0.8)
        axes.tick_params(labelsize=7)
        axes.set_ylabel("strain (%)", fontsize=8)
        axes.set_xlabel("time in this segment (min)", fontsize=8)
        (self._exx,) = axes.plot([], [], "-", color="#8250df", linewidth=0.8, label="exx")
        (self._eyy,) = axes.plot([], [], "-", color="#bc4c00", linewidth=0.8, label="eyy")
        (self._mean,) = axes.plot([], [], "-", color="#0969da", linewidth=1.8, label="hydrostatic, ± 1 standard error")
        (self._alarms,) = axes.plot([], [], "v", color="#cf222e", markersize=5, label="alarm")
        self._band = axes.fill_between([0.0], [0.0], [0.0], color="#0969da", alpha=0.25, linewidth=0)
        axes.legend(loc="lower left", fontsize=7, framealpha=0.7)

    def update(self, snapshot: Snapshot, colour_by: str) -> None:
        """Show a snapshot with the artists that are there."""
        self._show_title(snapshot)
        if snapshot.latest is None:
            self._say("no frame yet")
            return
        self._show_map(snapshot.latest, snapshot.latest.strain.valid)
        self._show_frame(snapshot, snapshot.latest, colour_by)
        points = snapshot.segment_history
        self._show_path(points)
        self._show_history(points)

    def _show_title(self, snapshot: Snapshot) -> None:
        verdicts = all_four(snapshot)
        told = "   ".join(f"{title} {verdict.word}" for title, verdict in verdicts.items())
        point, clean = snapshot.newest, self._script.clean
        about = ""
        if point is not None:
            name = self._script.shorten(file_name(point.source), 32)
            about = f"frame {point.sequence}  {name}  {point.columns} columns  {duration(snapshot.status.age_s)} old\n"
        recording = "" if snapshot.status.recording else f"\nNOT RECORDING: {clean(snapshot.status.last_problem)}"
        self._title.set_text((about + told + recording).replace("$", r"\$"))
        order: tuple[Level, ...] = ("bad", "watch", "good", "unknown")
        self._title.set_color(_INKS[min((verdict.level for verdict in verdicts.values()), key=order.index)])

    def _show_frame(self, snapshot: Snapshot, result: Result, colour_by: str) -> None:
        rows, cols = result.shape
        preview = snapshot.preview
        if preview is not None:
            step = max(1, round(max(rows, cols) / max(preview.shape)))
            self._picture.set_data(preview)
            self._picture.set_extent((-0.5, preview.shape[1] * step - 0.5, preview.shape[0] * step - 0.5, -0.5))
        self._frame.set_xlim(-0.5, cols - 0.5)
        self._frame.set_ylim(rows - 0.5, -0.5)
        found = result.detections
        by_strain = colour_by == "strain" and result.strain.valid
        values = 100 * result.strain.hydrostatic if by_strain else found.score
        self._dots.set_offsets(found.yx_px[:, ::-1])
        self._dots.set_cmap(_colours() if by_strain else "viridis")
        self._dots.set_norm(self._norm if by_strain else Normalize(0, 1))
        self._dots.set_array(values)
        if math.isfinite(found.spacing_px):
            self._dots.set_sizes([min(40.0, max(1.0, (_DOT_POINTS * found.spacing_px / cols) ** 2))])
        title = "columns by hydrostatic strain" if by_strain else "columns by score"
        self._dot_bar.set_label("hydrostatic strain (%)" if by_strain else "score", fontsize=8)
        axis = "px" if math.isfinite(result.pixel_size_yx_nm[1]) else "px, no pixel size known"
        self._frame.set_title(title, fontsize=9)
        self._frame.set_xlabel(f"x ({axis})", fontsize=8)
        self._frame.set_ylabel("y (px)", fontsize=8)
        self._show_bar(rows, cols, result.pixel_size_yx_nm[1])

    def _show_bar(self, rows: int, cols: int, pixel_nm: float) -> None:
        length = bar_length_nm(cols * pixel_nm)
        known = math.isfinite(length)
        self._bar.set_visible(known)
        self._bar_text.set_visible(known)
        if known:
            width = length / pixel_nm
            left, top = 0.04 * cols, 0.94 * rows
            self._bar.set_bounds(left, top, width, 0.015 * rows)
            self._bar_text.set_position((left + width / 2, top - 0.01 * rows))
            self._bar_text.set_text(f"{length:g} nm")

    def _show_map(self, result: Result, valid: bool) -> None:
        rows, cols = result.shape
        field = strain_map(result) if valid else np.full((2, 2), NAN)
        self._half_range = half_range_percent(field, self._half_range)
        self._norm.halfrange = self._half_range
        self._field.set_data(np.ma.masked_invalid(field))
        self._field.set_extent((-0.5, cols - 0.5, rows - 0.5, -0.5))
        self._map.set_xlim(-0.5, cols - 0.5)
        self._map.set_ylim(rows - 0.5, -0.5)
        reading = result.reading
        against = f" against {self._script.clean(result.strain.reference)}" if result.strain.reference else ""
        self._map.set_title(f"strain{against}".replace("$", r"\$"), fontsize=9)
        self._map.set_xlabel("x (px); grey: no strain known", fontsize=8)
        if not (valid and reading.valid):
            self._say(f"strain not valid: {result.strain.reason or reading.reason or 'no reason given'}")
        else:
            self._say("ALARM: " + reading.alarm.split(";")[0] if reading.alarm else "")

    def _say(self, words: str) -> None:
        lines = textwrap.wrap(self._script.clean(words), _REASON_WIDTH, max_lines=_REASON_LINES, placeholder=" ...")
        self._reason.set_text("\n".join(lines).replace("$", r"\$"))
        self._reason.set_visible(bool(words))
        self._reason.set_y(0.07 if words.startswith("ALARM") else 0.5)

    def _show_path(self, points: tuple[FramePoint, ...]) -> None:
        pixel = np.array(points[-1].pixel_size_yx_nm)
        unit = "nm" if np.isfinite(pixel).all() else "px"
        scale = pixel if unit == "nm" else np.ones(2)
        y, x = (np.array([point.drift.total_yx_px for point in points]) * scale).T
        known = np.isfinite(y + x)
        self._line.set_data(x, y)
        self._start.set_data(x[known][:1], y[known][:1])
        self._here.set_data(x[known][-1:], y[known][-1:])
        sigma = np.array(points[-1].drift.sigma_yx_px) * scale
        sure = bool(known[-1] and np.isfinite(sigma).all())
        self._error.set_visible(sure)
        if sure:
            self._error.set_center((x[-1], y[-1]))
            self._error.set_width(4 * sigma[1])
            self._error.set_height(4 * sigma[0])
        drift = points[-1].drift
        speed = math.hypot(*drift.velocity_yx_nm_min)
        told = "speed unknown"
        if math.isfinite(speed):
            told = self._script.measured(speed, drift.sigma_velocity_nm_min, "nm/min")
        elif math.isfinite(math.hypot(*drift.velocity_yx_px_s)):
            told = f"{self._script.number(60 * math.hypot(*drift.velocity_yx_px_s), 2)} px/min"
        self._path.set_title(f"drift since the segment's first frame: {told}", fontsize=9)
        self._path.set_xlabel(f"x ({unit}, to the right)", fontsize=8)
        self._path.set_ylabel(f"y ({unit}, downwards)", fontsize=8)
        if known.any():
            _fit(
                self._path, x[known], y[known], least=max(2.0 * float(scale.mean()), 4.4 * float(sigma.max()) if sure else 0.0)
            )

    def _show_history(self, points: tuple[FramePoint, ...]) -> None:
        minutes = (np.array([point.time_s for point in points]) - points[0].time_s) / 60
        mean, sem = _percent(points, "hydrostatic")
        exx, eyy = _percent(points, "exx")[0], _percent(points, "eyy")[0]
        for line, values in ((self._mean, mean), (self._exx, exx), (self._eyy, eyy)):
            line.set_data(minutes, values)
        self._band.set_data(minutes, mean - sem, mean + sem)
        alarm = np.array([bool(point.reading.alarm) for point in points])
        self._alarms.set_data(minutes[alarm], mean[alarm])
        every = np.concatenate([mean - sem, mean + sem, exx, eyy])
        every = every[np.isfinite(every)]
        reading = points[-1].reading
        told = (
            self._script.clean(reading.reason)
            if not reading.valid
            else f"valid, against {self._script.clean(reading.reference)}"
        )
        self._strain.set_title(f"strain history: {told}".replace("$", r"\$"), fontsize=9)
        self._strain.set_xlim(0, max(float(minutes[-1]), 0.1))
        top = 1.15 * max(0.1, float(np.abs(every).max(initial=0.0)))
        self._strain.set_ylim(-top, top)


_FIGURES = WeakKeyDictionary()


def _colours() -> Any:
    from matplotlib import colormaps

    return colormaps["RdBu_r"].with_extremes(bad="0.6")


def _percent(points: tuple[FramePoint, ...], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found = [point.reading.strain.get(name, Summary()) if point.reading.valid else Summary() for point in points]
    return 100 * np.array([one.mean for one in found]), 100 * np.array([one.sem for one in found])


def _fit(axes: Any, x: NDArray[np.float64], y: NDArray[np.float64], least: float) -> None:
    """Show all points and at least `least` each way, at equal scales, over the whole place that the axes have."""
    place, (wide, high) = axes.get_position(original=True), axes.figure.get_size_inches()
    ratio = place.width * wide / (place.height * high)
    half = 0.58 * max(float(np.ptp(y)), least, float(np.ptp(x)) / ratio)
    middle_x, middle_y = (float(values.min() + values.max()) / 2 for values in (x, y))
    axes.set_xlim(middle_x - half * ratio, middle_x + half * ratio)
    axes.set_ylim(middle_y + half, middle_y - half)
