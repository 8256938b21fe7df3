"""Ids, events and damage in the session folder: written from the result, restored from the line, summed up at the end."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atomid_live.flags import Flag
from atomid_live.session_file import SessionFolder, SessionInfo, read_session, reopen
from atomid_live.types import Damage, Event, Result, Tracks

Make = Callable[..., Result]
DAMAGE = Damage(2.5e6, 7.5e6, "", 100, 97, 0.97, 0.017, 3, 1, (1e-4, 5e-5), (4e-11, 2e-11))


def event(sequence: int, kind: str = "vacancy appears") -> Event:
    return Event(kind, sequence, sequence - 2, sequence - 3, 5.25, 11, (10.0, 20.0), (9.0, 18.0), (8.0, 16.0), -1.0, 0.05,
                 "1", 20.0, "=3 % left")  # fmt: skip


def tracked(result: Result, events: int = 0, *, sure: bool = True) -> Result:
    ids = np.arange(len(result.detections)) + 57_000_000
    ids[-1] = -1
    found = tuple(event(result.sequence) for _ in range(events))
    return replace(result, tracks=Tracks(ids, sure, "" if sure else "unsure", found, DAMAGE))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path: Path) -> SessionFolder:
    return SessionFolder.create(tmp_path, SessionInfo("/data"))


def test_the_atoms_file_has_ids_and_an_empty_cell_where_there_is_none(folder: SessionFolder, result: Make) -> None:
    folder.record(tracked(result(0)))
    folder.record(tracked(result(1), sure=False))
    folder.record(result(2))
    folder.close()
    told = [row["track_id"] for row in rows(folder.path / "atoms/000000.csv")]
    assert told == ["57000000", "57000001", "57000002", "57000003", ""]
    flags = [int(row["flags"]) for row in rows(folder.path / "atoms/000001.csv")]
    assert [bool(value & Flag.TRACK_UNSURE) for value in flags] == [True] * 4 + [False]
    assert {row["track_id"] for row in rows(folder.path / "atoms/000002.csv")} == {""}
    session = read_session(folder.path)
    assert session.atoms(0)["track_id"][1] == 57_000_001 and np.isnan(session.atoms(0)["track_id"][4])


def test_one_row_per_event_in_x_and_y(folder: SessionFolder, result: Make) -> None:
    for number, events in enumerate((0, 2, 0, 1)):
        folder.record(tracked(result(number, pixel=0.02), events))
    folder.close()
    told = rows(folder.path / "events.csv")
    assert [(row["frame"], row["event"]) for row in told] == [("1", "0"), ("1", "1"), ("3", "0")]
    first = told[0]
    assert (first["x_px"], first["y_px"], first["sample_x_px"]) == ("20.000", "10.000", "16.000")
    assert float(first["sample_y_nm"]) == pytest.approx(8 * 0.02) and float(first["sample_x_nm"]) == pytest.approx(16 * 0.0204)
    assert first["kind"] == "vacancy appears" and first["picture"] == "events/000001-0.png" and first["time_s"] == "5.250000"
    assert first["note"] == "'=3 % left", "no spreadsheet runs it"
    table = read_session(folder.path).event_table()
    assert list(table["frame"]) == [1, 1, 3] and table["size"][2] == -1.0 and table["kind"][0] == "vacancy appears"


def test_damage_has_one_row_per_frame_in_both_units(folder: SessionFolder, result: Make) -> None:
    folder.record(tracked(result(0)))
    folder.record(result(1))
    folder.close()
    told = rows(folder.path / "damage.csv")
    assert len(told) == 2
    assert float(told[0]["cumulative_e_nm2"]) == 7.5e6 and float(told[0]["cumulative_e_A2"]) == 7.5e4
    assert told[0]["occupancy"] == "0.970000" and float(told[0]["loss_per_e_nm2_sigma"]) == 2e-11
    assert told[1]["known_sites"] == "" and told[1]["occupancy"] == ""
    assert read_session(folder.path).damage_table()["known_sites"][0] == 100


@pytest.mark.parametrize("name", ["events.csv", "damage.csv"])
def test_a_table_cut_anywhere_is_made_whole_again(folder: SessionFolder, result: Make, name: str) -> None:
    for number, events in enumerate((1, 2, 0, 3)):
        folder.record(tracked(result(number), events))
    folder.close()
    path = folder.path / name
    whole = path.read_bytes()
    for cut in range(0, len(whole), 37):
        path.write_bytes(whole[:cut])
        reopen(folder.path).close()
        assert path.read_bytes() == whole


def test_a_session_of_a_version_without_tracks_can_be_gone_on_with(folder: SessionFolder, result: Make) -> None:
    folder.record(result(0))
    folder.close()
    for name in ("events.csv", "damage.csv"):
        (folder.path / name).unlink()
    again = reopen(folder.path)
    again.record(tracked(result(1), 1))
    again.close()
    assert len(rows(folder.path / "events.csv")) == 1 and len(rows(folder.path / "damage.csv")) == 2


def test_the_summary_counts_events_and_keeps_the_last_damage(folder: SessionFolder, result: Make) -> None:
    folder.record(result(0))
    folder.record(tracked(result(1), 2))
    folder.record(replace(tracked(result(2)), tracks=Tracks(np.arange(5), True, "", (event(2, "column jumps"),), DAMAGE)))
    summary = folder.finish("clean", "done")
    folder.close()
    assert summary["events"]["counts"] == {"vacancy appears": 2, "column jumps": 1}
    assert summary["events"]["last"][-1]["kind"] == "column jumps" and summary["events"]["last"][-1]["xy_px"] == [20.0, 10.0]
    assert summary["damage"][0]["occupancy"] == 0.97
