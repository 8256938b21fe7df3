"""Numbers, foreign text and pictures in characters."""

from __future__ import annotations

import io
import math

import pytest

from atomid_live.sinks.trail import trail
from atomid_live.sinks.wording import Script, duration, file_name, size, stopwatch

UTF8, ASCII = Script(), Script(False, "ascii")


def test_script_follows_the_stream():
    assert Script.for_stream(io.TextIOWrapper(io.BytesIO(), encoding="utf-8")).unicode
    for encoding in ("ascii", "cp1252", "latin-1"):
        script = Script.for_stream(io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        assert not script.unicode and script.encoding == encoding
    assert not Script.for_stream(object()).unicode
    assert not UTF8.plain().unicode


@pytest.mark.parametrize("nasty", ["\x1b[2Jgone", "a\nb\r\tc", "\u202egnp.exe", "bell\x07", "\x9b31m", "\udce9t\udce9", "\x00"])
def test_clean_leaves_nothing_a_terminal_obeys(nasty):
    for script in (UTF8, ASCII):
        cleaned = script.clean(nasty)
        assert cleaned.isprintable() or "\ufffd" in cleaned
        assert not set(cleaned) & set("\x1b\n\r\t\x07\x9b\x00\u202e")
        cleaned.encode(script.encoding)


def test_clean_keeps_ordinary_names_and_replaces_what_cannot_be_encoded():
    assert UTF8.clean("Probe 3 µm_é.emd") == "Probe 3 µm_é.emd"
    assert ASCII.clean("Probe é.emd") == "Probe ?.emd"


def test_shorten_keeps_both_ends():
    assert UTF8.shorten("short", 10) == "short"
    cut = UTF8.shorten("a-very-long-name-of-a-file-0007.emd", 20)
    assert len(cut) == 20 and cut.startswith("a-very") and cut.endswith("0007.emd")
    assert len(ASCII.shorten("x" * 50, 12)) == 12 and UTF8.shorten("abcdef", 1) == "…"


@pytest.mark.parametrize(
    ("value", "sigma", "told"),
    [
        (0.4203, 0.052, "0.42 ± 0.05 nm"),
        (0.4203, 0.0152, "0.420 ± 0.015 nm"),
        (12.34, 3.1, "12 ± 3 nm"),
        (math.nan, 0.1, "– nm"),
        (0.5, math.nan, "0.50 nm"),
        (0.5, 0.0, "0.50 ± 0.00 nm"),
    ],
)
def test_measured_shows_the_decimals_its_error_deserves(value, sigma, told):
    assert UTF8.measured(value, sigma, "nm") == told


def test_signed_numbers_and_no_minus_zero():
    assert UTF8.number(1.5, 1, signed=True) == "+1.5"
    assert UTF8.number(-0.001, 1, signed=True) == "0.0"
    assert UTF8.number(math.inf) == "–" and ASCII.number(math.nan) == "-"


def test_sparkline_heights_gaps_and_width():
    assert UTF8.sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert UTF8.sparkline([1, math.nan, 2], 9) == "▁ █"
    assert UTF8.sparkline([9, 9, 1, 2], 2) == "▁█"
    assert set(UTF8.sparkline([100, 100.5, 99.8], 3)) <= set("▄▅"), "half a per cent must look steady"
    assert UTF8.sparkline([-1.0, 0.0, 1.0], 3, around_zero=0.1) == "▁▅█"
    assert UTF8.sparkline([0.001], 1, around_zero=1.0) in "▄▅"
    assert UTF8.sparkline([math.nan] * 3, 3) == "   " and UTF8.sparkline([1.0], 0) == ""
    assert ASCII.sparkline([0, 7], 2) == "_#"


@pytest.mark.parametrize(("y", "x", "arrow", "word"), [(0, 1, "→", "right"), (1, 0, "↓", "down"), (-1, -1, "↖", "left-up")])
def test_arrow_points_as_on_the_screen(y, x, arrow, word):
    assert UTF8.arrow(y, x) == arrow and ASCII.arrow(y, x) == word


def test_arrow_of_no_motion_is_empty():
    assert UTF8.arrow(0, 0) == "" and UTF8.arrow(math.nan, 1) == ""


def test_spans_sizes_and_names():
    assert [duration(s) for s in (0.42, 45, 450, 3600, 7500, math.nan)] == [
        "0.4 s",
        "45 s",
        "7.5 min",
        "60 min",
        "2 h 05",
        "unknown",
    ]
    assert stopwatch(3 * 3600 + 7 * 60 + 5.9) == "3:07:05" and stopwatch(math.nan) == "0:00:00"
    assert [size(n) for n in (-1, 512, 1_200_000, 412e9, 3.2e12)] == ["unknown", "512 B", "1.2 MB", "412 GB", "3.2 TB"]
    assert file_name("C:\\data\\HAADF 1.emd") == "HAADF 1.emd" and file_name("/data/a.emd") == "a.emd"
    assert file_name("tcp://127.0.0.1:5555") == "tcp://127.0.0.1:5555"


def test_trail_draws_the_path_the_right_way_up():
    path = [(0.0, 0.0), (-40.0, 80.0)]
    lines, span = trail(path, 20, 5, UTF8)
    assert len(lines) == 5 and all(len(line) == 20 for line in lines)
    start = next((row, line.index("○")) for row, line in enumerate(lines) if "○" in line)
    end = next((row, line.index("●")) for row, line in enumerate(lines) if "●" in line)
    assert end[0] < start[0] and end[1] > start[1], "up is negative y, right is positive x"
    assert span >= 80.0
    marks, _ = trail(path, 20, 5, ASCII)
    assert "".join(marks).isascii() and "@" in "".join(marks) and "o" in "".join(marks)


def test_trail_has_equal_scales():
    down, span_down = trail([(0.0, 0.0), (40.0, 0.0)], 20, 5, UTF8)
    assert sum(bool(line.strip()) for line in down) == 5
    along, span_along = trail([(0.0, 0.0), (0.0, 40.0)], 20, 5, UTF8)
    assert sum(bool(line.strip()) for line in along) == 1
    assert span_down > span_along, "five rows hold less than twenty columns, so a downward path needs the larger scale"


def test_trail_without_or_with_hardly_any_path():
    assert trail([], 4, 2, UTF8)[0] == ["    ", "    "] and math.isnan(trail([], 4, 2, UTF8)[1])
    assert math.isnan(trail([(math.nan, 1.0)], 4, 2, UTF8)[1])
    lines, span = trail([(0.0, 0.0), (0.01, 0.02)], 10, 4, UTF8)
    assert span >= 2.0 and "●" in "".join(lines), "noise of a hundredth of a pixel does not fill the box"
