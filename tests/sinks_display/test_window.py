"""The figure, drawn without a screen, and the window's process on a virtual one."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from display_scenes import COLS, PIXEL_NM, ROWS, columns, result, snapshot, status

from atomid_live.sinks import window
from atomid_live.sinks.view import History
from atomid_live.types import NAN, Reading, StrainField

pytest.importorskip("matplotlib")
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from atomid_live.sinks import figure as drawing


@pytest.fixture
def figure():
    made = Figure(figsize=(11, 8), dpi=50)
    FigureCanvasAgg(made)
    return made


def panels(figure):
    return drawing._FIGURES[figure]


def test_strain_map_is_signed_placed_and_empty_where_unknown():
    one = result(10, strain=0.004)
    field = drawing.strain_map(one, points=120)
    assert field.shape == (90, 120)
    y, x = one.detections.yx_px.T
    values = 100 * one.strain.hydrostatic
    known = np.isfinite(values)
    rows, cols = (y / 10).astype(int), (x / 10).astype(int)
    assert np.nanmax(np.abs(field[rows, cols][known] - values[known])) < 0.06
    assert np.isnan(field[rows, cols][~known]).all() and 15 < (~known).sum() < 25
    half, _ = columns()
    right = half.yx_px[:, 1] > COLS / 2
    cut = replace(
        half, **{name: getattr(half, name)[right] for name in ("yx_px", "score", "sigma_yx_px", "amplitude", "flags")}
    )
    zeros = np.zeros(right.sum())
    partly = replace(one, detections=cut, strain=StrainField(zeros, zeros, zeros, zeros, zeros, zeros.astype(np.int64)))
    field = drawing.strain_map(partly, points=120)
    assert np.isnan(field[:, :50]).all() and (field[:, 65:] == 0).mean() > 0.99


def test_strain_map_without_columns_is_all_unknown():
    from atomid_live.types import Detections

    assert np.isnan(drawing.strain_map(result(1, found=Detections.empty()))).all()


def test_colour_range_grows_at_once_and_shrinks_late():
    def field(peak):
        return np.full((5, 5), peak)

    assert drawing.half_range_percent(field(0.4), 0.2) == 0.5
    assert drawing.half_range_percent(field(0.4), 1.0) == 1.0
    assert drawing.half_range_percent(field(0.1), 1.0) == 0.2
    assert drawing.half_range_percent(field(NAN), 2.0) == 2.0
    assert drawing.half_range_percent(field(-500.0), 0.2) == 50.0


def test_bar_is_round_and_absent_without_scale():
    assert drawing.bar_length_nm(14.88) == 2.0 and drawing.bar_length_nm(100.0) == 20.0
    assert np.isnan(drawing.bar_length_nm(NAN))


def test_figure_shows_frame_map_path_and_history(figure, tmp_path):
    shown = snapshot(20, picture=True, strain=0.004)
    drawing.draw(figure, shown)
    made = panels(figure)
    assert made._norm.vmin == -made._norm.vmax == -0.5
    assert made._picture.get_extent() == [-0.5, COLS - 0.5, ROWS - 0.5, -0.5]
    np.testing.assert_allclose(made._dots.get_offsets()[:, ::-1], shown.latest.detections.yx_px)
    y, x = np.array([point.drift.total_yx_px for point in shown.history]).T * 0.0124
    np.testing.assert_allclose(made._line.get_data(), (x, y))
    top, bottom = made._path.get_ylim()[::-1]
    assert top < bottom, "y points downwards as on the screen"
    assert np.isnan(made._mean.get_ydata()[:5]).all() and np.isfinite(made._mean.get_ydata()[5:]).all()
    assert made._bar.get_visible() and made._bar_text.get_text() == "2 nm"
    figure.savefig(tmp_path / "window.png")
    assert (tmp_path / "window.png").stat().st_size > 20_000


def test_artists_are_reused_and_colours_can_be_strain(figure):
    drawing.draw(figure, snapshot(8, picture=True))
    figure.canvas.draw()
    counted = [len(axes.get_children()) for axes in figure.axes]
    drawing.draw(figure, snapshot(9, picture=True, strain=0.01), "strain")
    figure.canvas.draw()
    assert [len(axes.get_children()) for axes in figure.axes] == counted
    made = panels(figure)
    assert made._dots.norm is made._norm and made._norm.halfrange == 2.0
    assert "strain" in made._frame.get_title()
    drawing.draw(figure, snapshot(9, picture=True, strain=0.01), "score")
    assert made._dots.norm.vmin == 0 and made._dots.norm.vmax == 1


def test_invalid_uncalibrated_and_empty_say_so(figure):
    drawing.draw(figure, History().snapshot(status(0, age_s=NAN)))
    assert panels(figure)._reason.get_text() == "no frame yet"
    memory = History()
    one = result(3, calibrated=False)
    memory.add(replace(one, strain=StrainField.none_for(len(one.detections), "two crystals: $x$"), reading=Reading(reason="r")))
    drawing.draw(figure, memory.snapshot(status(1)))
    figure.canvas.draw()
    made = panels(figure)
    assert "strain not valid: two crystals" in made._reason.get_text() and made._reason.get_visible()
    assert not made._bar.get_visible() and "(px" in made._path.get_xlabel()
    assert np.ma.getmaskarray(made._field.get_array()).all()


def test_alarm_and_lost_recording_are_in_the_title(figure):
    memory = History()
    one = result(9)
    memory.add(replace(one, reading=replace(one.reading, alarm="+0.4 %")))
    drawing.draw(figure, memory.snapshot(status(1, recording=False, last_problem="disk full")))
    made = panels(figure)
    assert "NOT RECORDING: disk full" in made._title.get_text() and made._reason.get_text() == "ALARM: +0.4 %"
    assert len(made._alarms.get_xdata()) == 1


def test_toolkit_says_what_is_missing(monkeypatch):
    present = {"matplotlib"}
    monkeypatch.setattr(window.importlib.util, "find_spec", lambda name: name if name in present else None)
    assert "DISPLAY" in window.toolkit({}, "linux")[1]
    assert "python3-tk" in window.toolkit({"DISPLAY": ":0"}, "linux")[1]
    assert "PySide6" in window.toolkit({}, "win32")[1]
    present.add("_tkinter")
    assert window.toolkit({}, "win32") == ("TkAgg", "")
    present.add("PySide6")
    assert window.toolkit({"WAYLAND_DISPLAY": "wayland-0"}, "linux") == ("QtAgg", "")
    present.clear()
    assert "matplotlib" in window.toolkit({"DISPLAY": ":0"}, "linux")[1]


def test_parcel_is_small_and_still_draws(figure):
    shown = snapshot(240, picture=True)
    sent = pickle.dumps(window.parcel(shown))
    assert len(sent) < 1_500_000
    drawing.draw(figure, pickle.loads(sent))


def test_without_a_display_the_session_just_hears_why(monkeypatch):
    monkeypatch.setattr(window, "toolkit", lambda: ("", "no toolkit"))
    display = window.WindowDisplay(object())
    assert display.start() == "no toolkit" and not display.alive
    display.close()


SESSION = """
import sys, time
sys.path.insert(0, sys.argv[1])
from display_scenes import snapshot
from atomid_live.sinks.window import WindowDisplay
class Source:
    asked = 0
    def snapshot(self, *, preview=False):
        Source.asked += preview
        return snapshot(8 + Source.asked, picture=preview)
if __name__ == "__main__":
    display = WindowDisplay(Source())
    problem = display.start()
    assert problem == "", problem
    until = time.monotonic() + 60
    while Source.asked < 3 and time.monotonic() < until:
        time.sleep(0.05)
    print("drawn", Source.asked >= 3, display.alive)
    if sys.argv[2] == "kill":
        display._process.kill()
        display._process.join()
        display._feeder.join(10)
        print("feeder ended", not display._feeder.is_alive())
    display.close()
    print("alive", display.alive)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="no virtual display: apt install xvfb")
@pytest.mark.skipif(not window.toolkit({"DISPLAY": ":0"}, "linux")[0], reason="this Python has no window toolkit")
@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_real_window_is_fed_closed_and_may_die(end, tmp_path):
    read, write = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "1200x900x24"], pass_fds=[write], stderr=-3)
    os.close(write)
    try:
        with os.fdopen(read) as told:
            number = told.readline().strip()
        script = tmp_path / "session.py"
        script.write_text(SESSION)
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, script, Path(__file__).parent, end],
            env={**os.environ, "DISPLAY": f":{number}"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        expected = ["drawn True True", *(["feeder ended True"] if end == "kill" else []), "alive False"]
        assert done.stdout.splitlines() == expected, done.stderr
        assert time.monotonic() - begun < 90
    finally:
        server.terminate()
        server.wait()


def test_a_long_reason_stays_within_its_map() -> None:
    """Wrapped, not cut off by the colour bar."""
    made = Figure(figsize=window.FIGURE_INCHES, dpi=50)
    canvas = FigureCanvasAgg(made)
    shot = snapshot(3)
    assert shot.latest is not None
    why = replace(shot.latest.strain, valid=False, reason="several lattices: the largest holds only 41 % of the columns " * 2)
    drawing.draw(made, replace(shot, latest=replace(shot.latest, strain=why)))
    canvas.draw()
    words = next(text for axes in made.axes for text in axes.texts if text.get_text().startswith("strain not valid"))
    assert words.get_text().count("\n") >= 2
    inner, outer = words.get_window_extent(), words.axes.get_window_extent()
    assert outer.x0 <= inner.x0
    assert inner.x1 <= outer.x1


def test_speed_without_a_pixel_size_is_told_in_pixels() -> None:
    """Never as unknown, never in nm."""
    made = Figure()
    drawing.draw(made, snapshot(20, calibrated=False))
    title = next(axes.get_title() for axes in made.axes if axes.get_title().startswith("drift"))
    assert title.endswith("px/min")


def test_the_error_of_the_place_is_seen_whole() -> None:
    """However unsure the drift is, its two-sigma ellipse lies within the panel, and is gone when it is not known."""
    made = Figure()
    shot = snapshot(6)
    for sigma, seen in ((50.0, True), (np.nan, False)):
        unsure = replace(shot.history[-1], drift=replace(shot.history[-1].drift, sigma_yx_px=(sigma, sigma)))
        drawing.draw(made, replace(shot, history=(*shot.history[:-1], unsure)))
        axes = next(axes for axes in made.axes if axes.get_title().startswith("drift"))
        ellipse = next(patch for patch in axes.patches if isinstance(patch, Ellipse))
        assert ellipse.get_visible() is seen
        if seen:
            (x, y), reach = ellipse.get_center(), ellipse.get_height() / 2
            assert reach == pytest.approx(2 * sigma * PIXEL_NM)
            assert min(axes.get_ylim()) < y - reach
            assert max(axes.get_ylim()) > y + reach
            assert axes.get_xlim()[0] < x - reach


def test_the_window_fits_on_a_small_screen() -> None:
    """1280 x 800 with about 100 pixels for frame and toolbar."""
    assert window.FIGURE_INCHES[0] * 100 <= 1270
    assert window.FIGURE_INCHES[1] * 100 <= 700
