"""References by name, CIF cells, and laying a theoretical cell over a measured one."""

from __future__ import annotations

import re

import numpy as np
import pytest

from atomid_live.errors import SettingsError
from atomid_live.strain.cells import MATERIALS
from atomid_live.strain.reference import FirstFrames, KnownCell, OwnFrame, Region, known_basis, parse_reference


def cif(a, b, c, alpha, beta, gamma, group="P 1"):
    """The few lines that matter, in the manner of crystal databases: standard errors in brackets, quotes, odd blanks."""
    return f"""data_test
_cell_length_a   {a}(3)
_cell_length_b   {b}
_cell_length_c   {c}(1)
_cell_angle_alpha {alpha}
  _cell_angle_beta  {beta}
_cell_angle_gamma {gamma}(2)
_symmetry_space_group_name_H-M   '{group}'
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
        ("region", "give x0:x1,y0:y1"),
        ("region:200:100,0:50", "give x0:x1,y0:y1"),
        ("yesterday", "is not known"),
        ("nowhere/x.cif", "check the path"),
    ],
)
def test_refusals_say_the_next_step(text, said):
    with pytest.raises(SettingsError, match=said):
        parse_reference(text)


SEEN = [
    # file, zone axis, shortest two vectors in nm and their angle
    (cif(3.905, 3.905, 3.905, 90, 90, 90), "", (0.3905, 0.3905, 90.0)),
    (cif(3.905, 3.905, 3.905, 90, 90, 90), "110", (0.3905 / np.sqrt(2), 0.3905, 90.0)),
    (cif(5.431, 5.431, 5.431, 90, 90, 90, "F d -3 m"), "110", None),
    (cif(5.431, 5.431, 5.431, 90, 90, 90, "F d -3 m"), "001", (0.5431 / 2, 0.5431 / 2, 90.0)),
    (cif(2.866, 2.866, 2.866, 90, 90, 90, "I m -3 m"), "111", (0.2866 * np.sqrt(2 / 3), 0.2866 * np.sqrt(2 / 3), 120.0)),
    (cif(3.161, 3.161, 12.295, 90, 90, 120, "P 63/m m c"), "001", (0.3161, 0.3161, 120.0)),
    (cif(3.19, 3.19, 5.19, 90, 90, 120), "100", (0.319 * np.sqrt(3) / 2, 0.519, 90.0)),
    # a monoclinic cell along c: a is foreshortened by the sine of beta
    (cif(6.0, 4.0, 5.0, 90, 110, 90), "001", (0.4, 0.6 * np.sin(np.radians(110)), 90.0)),
]


@pytest.mark.parametrize(("text", "axis", "seen"), SEEN)
def test_cif_along_a_zone_axis(tmp_path, text, axis, seen):
    path = tmp_path / "crystal.cif"
    path.write_text(text)
    spec = parse_reference(f"{path}@{axis}" if axis else str(path))
    assert isinstance(spec, KnownCell) and spec.name == ("crystal.cif" + (f"@{axis}" if axis else ""))
    cell = spec.cells[0]
    expected = seen or (MATERIALS["Si"][0].a_nm, MATERIALS["Si"][0].b_nm, MATERIALS["Si"][0].gamma_deg)
    assert (cell.a_nm, cell.b_nm, cell.gamma_deg) == pytest.approx(expected, abs=1e-6)


GOOD = cif(3.1, 3.1, 12, 90, 90, 120)
BAD = [
    (GOOD.replace("_cell_angle_gamma", "_cell_angle_gama"), "", "_cell_angle_gamma is missing"),
    (GOOD.replace("3.1(3)", "?"), "", "_cell_length_a is '?'"),
    (GOOD.replace("3.1(3)", "31000"), "", "a number from"),
    (GOOD + GOOD.replace("3.1(3)", "3.3(3)"), "", "2 different values"),
    (cif(3, 3, 3, 60, 30, 120), "", "do not make a cell"),
    (GOOD, "000", "three whole numbers"),
    (GOOD, "along b", "three whole numbers"),
]


@pytest.mark.parametrize(("text", "axis", "said"), BAD)
def test_bad_cif_is_refused_in_words(tmp_path, text, axis, said):
    path = tmp_path / "bad.cif"
    path.write_text(text)
    with pytest.raises(SettingsError, match=re.escape(said)):
        parse_reference(f"{path}@{axis}" if axis else str(path))


def test_region():
    spec = parse_reference("region: 10:200, 0:90")
    assert isinstance(spec, Region)
    assert spec.box.holds(np.array([[50, 100], [95, 100], [50, 5], [0, 10]])).tolist() == [True, False, False, True]


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
