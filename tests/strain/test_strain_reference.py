"""References by name, CIF cells, and laying a theoretical cell over a measured one."""

from __future__ import annotations

import numpy as np
import pytest

from atomid_live.errors import SettingsError
from atomid_live.strain.reference import MATERIALS, Cell, FirstFrames, KnownCell, OwnFrame, known_basis, parse_reference

CIF = """data_test
_cell_length_a   6.417(3)
_cell_length_b   6.510
_cell_length_c   6.461(1)
_cell_angle_alpha 121.10
_cell_angle_beta  88.38
_cell_angle_gamma 106.47(2)
loop_
_atom_site_label
"""


def test_names():
    assert parse_reference("first:5") == FirstFrames("first:5", 5)
    assert parse_reference("frame") == OwnFrame()
    mos2 = parse_reference("material:mos2")
    assert isinstance(mos2, KnownCell) and mos2.name == "material:MoS2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("first:0", "1 to 1000"),
        ("first:x", "number of frames"),
        ("material:unobtainium", "MoS2"),
        ("region", "cannot be chosen yet"),
        ("yesterday", "is not known"),
        ("nowhere/x.cif", "check the path"),
    ],
)
def test_refusals_say_the_next_step(text, said):
    with pytest.raises(SettingsError, match=said):
        parse_reference(text)


def test_cif_cell(tmp_path):
    path = tmp_path / "ReS2.cif"
    path.write_text(CIF)
    spec = parse_reference(str(path))
    assert spec.name == "ReS2.cif"
    assert spec.cells[0].matrix == pytest.approx(Cell(0.6417, 0.651, 106.47).matrix)


def test_cif_without_gamma_is_refused(tmp_path):
    path = tmp_path / "bad.cif"
    path.write_text("_cell_length_a 3.1\n_cell_length_b 3.1\n")
    with pytest.raises(SettingsError, match="_cell_angle_gamma"):
        parse_reference(str(path))


def test_fcc_110_is_the_centred_rectangle():
    (gold,) = MATERIALS["Au"]
    assert (gold.a_nm, gold.gamma_deg) == (pytest.approx(0.4078 * np.sqrt(6) / 4), pytest.approx(109.471, abs=1e-3))
    assert abs(np.linalg.det(gold.matrix)) == pytest.approx(0.4078**2 / np.sqrt(2) / 2)


@pytest.mark.parametrize("name", MATERIALS)
@pytest.mark.parametrize("turn_deg", [0, 33, -117])
@pytest.mark.parametrize("mirror", [1, -1])
def test_strain_of_a_known_cell_is_found_whatever_vectors_were_chosen(name, turn_deg, mirror):
    """A strained, turned, mirrored cell in other basis vectors gives back the strain.

    ReS2's three shortest vectors differ by 2 % only, so there the strain must be small for the match to be certain.
    """
    t = np.radians(turn_deg)
    turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    strain = np.eye(2) + (0.2 if name == "ReS2" else 1.0) * np.array([[0.008, 0.003], [0.003, -0.006]])
    for cell in MATERIALS[name]:
        for change in (np.eye(2), [[1, 1], [0, 1]], [[0, 1], [1, 0]], [[1, 0], [-1, -1]]):
            measured = strain @ turn @ np.diag([1, mirror]) @ cell.matrix @ np.array(change)
            basis = known_basis(MATERIALS[name], measured)
            assert basis is not None
            stretch = np.linalg.svd(measured @ np.linalg.inv(basis))[1]
            assert np.sort(stretch) == pytest.approx(np.sort(np.linalg.eigvalsh(strain)), abs=1e-9)
            f = measured @ np.linalg.inv(basis)
            assert f == pytest.approx(f.T, abs=1e-9), "the mean rotation against a theoretical cell is zero by choice"


def test_another_crystal_is_refused():
    assert known_basis(MATERIALS["MoS2"], MATERIALS["ReS2"][0].matrix) is None
    assert known_basis(MATERIALS["MoS2"], 1.13 * MATERIALS["MoS2"][0].matrix) is None
