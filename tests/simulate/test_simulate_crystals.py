"""The crystals have the bond lengths and cross-sections they claim."""

import numpy as np
import pytest

from atomid_live.errors import UsageError
from atomid_live.simulate.crystals import CRYSTALS, cross_section_A2, crystal_named
from atomid_live.simulate.imaging import electrons_per_column


def distances_nm(name: str, sites: tuple[int, ...] | None = None) -> np.ndarray:
    """Sorted distances between columns of a crystal, each pair once from either end, up to the next cells."""
    crystal = CRYSTALS[name]
    chosen = crystal.basis_yx_nm[list(sites)] if sites else crystal.basis_yx_nm
    shifts = np.array([(i, j) for i in range(-2, 3) for j in range(-2, 3)]) @ crystal.cell_yx_nm.T
    d = np.linalg.norm(chosen[:, None, None] - chosen[None, :, None] - shifts, axis=-1).ravel()
    return np.sort(d[d > 1e-9])


@pytest.mark.parametrize(
    ("pixel_nm", "mo", "s2", "re"),
    [(0.0088, 735, 246, 2108), (0.0124, 370, 123, 1062), (0.0176, 184, 61, 527), (0.0248, 93, 31, 265), (0.0352, 46, 15, 132)],
)
def test_electrons_per_column_at_15_pa(pixel_nm: float, mo: int, s2: int, re: int) -> None:
    pixel = (pixel_nm, pixel_nm)
    mos2, res2 = CRYSTALS["mos2"], CRYSTALS["res2"]
    assert electrons_per_column(mos2.cross_section_A2[0], pixel) == pytest.approx(mo, rel=0.01)
    assert electrons_per_column(mos2.cross_section_A2[1], pixel) == pytest.approx(s2, rel=0.03)
    assert electrons_per_column(res2.cross_section_A2[0], pixel) == pytest.approx(re, rel=0.01)


def test_rhenium_diamonds_and_their_chain() -> None:
    metal = distances_nm("res2", (0, 1, 2, 3))
    # Per cell: 1 short diagonal, 2 + 2 edges, 1 link; each counted from both ends.
    expected = np.repeat([0.2695, 0.279, 0.282, 0.2895], [2, 4, 4, 2])
    np.testing.assert_allclose(metal[:12], expected, atol=5e-4)
    assert metal[12] > 0.35


@pytest.mark.parametrize(
    ("name", "nearest_nm"),
    [
        ("mos2", 0.3160 / 3**0.5),
        ("graphene", 0.142),
        ("si_110", 0.1358),
        ("au_110", 0.24973),
        ("au_100", 0.2039),
        ("srtio3", 0.3905 / 2),
        ("gan", 0.1129),
        ("mos2_1t_prime", 0.17),
    ],
)
def test_nearest_projected_distance(name: str, nearest_nm: float) -> None:
    assert distances_nm(name)[0] == pytest.approx(nearest_nm, rel=0.12 if name in {"gan", "mos2_1t_prime"} else 2e-3)


def test_metal_zigzag_of_the_distorted_1t_phase() -> None:
    assert distances_nm("mos2_1t_prime", (0, 1))[0] == pytest.approx(0.278, abs=0.003)


def test_every_crystal_is_consistent() -> None:
    for name, crystal in CRYSTALS.items():
        assert name == crystal.name
        assert len(crystal.basis) == len(crystal.cross_section_A2) == len(crystal.sites)
        assert np.all((np.array(crystal.basis) >= 0) & (np.array(crystal.basis) < 1))
        assert distances_nm(name)[0] > 0.03, "two sites of one column should be one entry"
        assert crystal.area_nm2 > 0.03


def test_cross_sections_rise_with_atomic_number_by_a_power_near_two() -> None:
    order = ["C", "N", "O", "Si", "S", "Ti", "V", "Ga", "Se", "Sr", "Mo", "Te", "W", "Re", "Pt", "Au", "Pb", "Bi"]
    values = [cross_section_A2(element) for element in order]
    assert values == sorted(values)
    assert cross_section_A2("Sr") == pytest.approx(4.11e-3 * (38 / 34) ** 1.85, rel=0.02)


def test_bright_sites_are_the_metal() -> None:
    assert CRYSTALS["res2"].brighter_than() == (0, 1, 2, 3)
    assert CRYSTALS["mos2"].brighter_than() == (0,)
    assert CRYSTALS["wse2"].thickened(3).cross_section_A2[0] == pytest.approx(3 * 1.701e-2)


def test_unknown_names_say_what_is_known() -> None:
    assert crystal_named("ReS2").name == "res2"
    with pytest.raises(UsageError, match=r"'nacl'; known: mos2"):
        crystal_named("nacl")
    with pytest.raises(UsageError, match="'Xx'"):
        cross_section_A2("Xx")
