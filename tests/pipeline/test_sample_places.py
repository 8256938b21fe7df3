"""Places on the specimen: what moves with the frame stands still in the sample's coordinates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atomid_live.session_file.read import read_atoms
from atomid_live.session_file.tables import atoms_csv
from atomid_live.types import Detections, DriftEstimate, Origin, Result


def _result(yx: np.ndarray[tuple[int, int], np.dtype[np.float64]], total: tuple[float, float]) -> Result:
    many = len(yx)
    found = Detections(yx, np.ones(many), np.ones((many, 2)), np.ones(many), np.zeros(many, np.int64))
    return Result(3, (80, 60), 0.0, "arrival", Origin(""), found, drift=DriftEstimate(total_yx_px=total))


def test_a_feature_keeps_its_place_on_the_specimen() -> None:
    there = np.array([[10.0, 20.0], [40.0, 30.0]])
    for total in [(0.0, 0.0), (3.5, -2.25), (-7.0, 1.0)]:
        assert _result(there + total, total).sample_yx_px == pytest.approx(there)


def test_table_gives_both_x_first_and_nothing_where_drift_is_unknown() -> None:
    result = _result(np.array([[12.0, 21.0]]), (2.0, 1.0))
    table = read_atoms(bytes(atoms_csv(result)))
    assert (table["x_px"][0], table["y_px"][0]) == (21.0, 12.0)
    assert (table["sample_x_px"][0], table["sample_y_px"][0]) == (20.0, 10.0)
    lost = replace(result, drift=DriftEstimate())
    assert np.isnan(read_atoms(bytes(atoms_csv(lost)))["sample_x_px"]).all()
