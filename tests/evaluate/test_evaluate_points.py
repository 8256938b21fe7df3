"""Files of positions, and the report made of two of them."""

from __future__ import annotations

import json

import pytest

from atomid_live.errors import UnreadableFileError, UsageError
from atomid_live.evaluate.points import evaluate_points, parse_mask, read_points, tolerance_px


@pytest.mark.parametrize(
    "text",
    [
        "Peak#,X,Y,Phase\n1,10,20,0\n2,30.5,41,1\n",
        " ,X,Y\n1,10,20\n2,30.5,41\n",
        "X,Y\n10,20\n30.5,41\n",
        "10,20\n30.5,41\n",
        "\ufeffx,y\r\n10,20\r\n\r\n30.5,41\r\n",
        "frame,column_id,x_px,y_px,x_nm,y_nm\n0,0,10,20,,\n0,1,30.5,41,,\n",
    ],
)
def test_headers_are_understood(tmp_path, text):
    file = tmp_path / "points.csv"
    file.write_bytes(text.encode())
    assert read_points(file).tolist() == [[20.0, 10.0], [41.0, 30.5]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("a,b\n1,2\n", "names no X and Y"),
        ("1,2,3\n", "no header"),
        ("X,Y\n1,?\n", "line 2"),
        ("X,Y\n1\n", "line 2"),
    ],
)
def test_errors_say_what_is_wrong(tmp_path, text, says):
    file = tmp_path / "points.csv"
    file.write_text(text)
    with pytest.raises(UnreadableFileError, match=says):
        read_points(file)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.csv"):
        read_points(tmp_path / "gone.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UnreadableFileError, match="not a text"):
        read_points(tmp_path / "b.csv")


def test_masks_and_tolerances():
    assert parse_mask("50:215,885:975.5") == (50.0, 215.0, 885.0, 975.5)
    for wrong in ("50:215", "5:1,0:3", "a:b,c:d"):
        with pytest.raises(UsageError):
            parse_mask(wrong)
    assert tolerance_px("4px", float("nan")) == 4.0
    assert tolerance_px("0.5", 20.0) == tolerance_px(0.5, 20.0) == tolerance_px("0.5d", 20.0) == 10.0
    for wrong in ("0", "-1", "4pm", ""):
        with pytest.raises(UsageError):
            tolerance_px(wrong, 20.0)
    with pytest.raises(UsageError, match="4px"):
        tolerance_px("0.5", float("nan"))


def test_report(tmp_path):
    truth = [(x, y) for x in range(10, 200, 20) for y in range(10, 120, 20)]
    found = [(x + 1, y) for x, y in truth if (x, y) != (70, 50)] + [(100, 62)]
    for name, points in (("t", truth), ("p", found)):
        (tmp_path / f"{name}.csv").write_text("X,Y\n" + "".join(f"{x},{y}\n" for x, y in points))
    report = evaluate_points(
        tmp_path / "p.csv", tmp_path / "t.csv", mask="0:40,0:40", frame_size_xy=(200, 120), pixel_size_nm=0.01, tolerance="4px"
    )
    assert (report["truth"], report["tp"], report["fp"], report["fn"]) == (41, 40, 1, 1)
    assert report["spacing_px"] == 20 and report["at_0.25d"]["f1"] == pytest.approx(40 / 41)
    assert report["localisation"]["bias_xy_px"] == pytest.approx([1.0, 0.0])
    assert report["cd_pm"] == pytest.approx(10 * report["cd_px"])
    assert report["false_per_mpx"] == pytest.approx(1e6 / (180 * 100 - 31 * 31), rel=0.02)
    assert report["f1_by_radius_d"]["0.1"] == pytest.approx(40 / 41)
    json.dumps(report, allow_nan=False)


def test_empty_prediction_has_no_distance(tmp_path):
    (tmp_path / "p.csv").write_text("X,Y\n")
    (tmp_path / "t.csv").write_text("X,Y\n10,10\n30,10\n")
    report = evaluate_points(tmp_path / "p.csv", tmp_path / "t.csv")
    assert report["f1"] == 0 and report["cd_px"] is None and report["localisation"]["rmse_px"] is None
    with pytest.raises(UsageError, match="pixel size"):
        evaluate_points(tmp_path / "p.csv", tmp_path / "t.csv", pixel_size_nm=0.0)
