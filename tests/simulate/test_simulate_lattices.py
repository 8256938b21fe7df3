"""Columns lie where the lattice says, for any rotation and deformation, and defects do what their names say."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from atomid_live.simulate import defects
from atomid_live.simulate.lattices import CRYSTALS, Columns, displace, fill, rotation

SHAPE = (180, 260)
PIXEL_NM = 0.0173


def metal(**options: object) -> Columns:
    """Molybdenum columns of MoS2 over the test frame."""
    columns = fill(CRYSTALS["mos2"], SHAPE, PIXEL_NM, **options)  # type: ignore[arg-type]
    return columns.take(columns.site == 0)


@pytest.mark.parametrize("name", ["mos2", "res2", "srtio3", "bi2o2se"])
@pytest.mark.parametrize("angle", [0.0, 0.6, -2.0])
def test_density_is_that_of_the_cell(name: str, angle: float) -> None:
    crystal = CRYSTALS[name]
    columns = fill(crystal, SHAPE, PIXEL_NM, angle, margin_px=40.0)
    area = (SHAPE[0] + 80) * (SHAPE[1] + 80) * PIXEL_NM**2
    assert len(columns) / area == pytest.approx(len(crystal.basis) / crystal.area_nm2, rel=0.05)
    y, x = columns.yx_px.T
    assert y.min() >= -40.5
    assert y.max() <= SHAPE[0] + 39.5
    assert x.max() <= SHAPE[1] + 39.5
    assert len(np.unique(np.column_stack([columns.cell, columns.site]), axis=0)) == len(columns)


def test_spacing_and_offset() -> None:
    columns = metal(offset_yx_px=(3.25, -1.5))
    distance, _ = cKDTree(columns.yx_px).query(columns.yx_px, k=2)
    np.testing.assert_allclose(np.median(distance[:, 1]), 0.316 / PIXEL_NM)
    origin = columns.yx_px[(columns.cell == 0).all(1)]
    np.testing.assert_allclose(origin, [[(SHAPE[0] - 1) / 2 + 3.25, (SHAPE[1] - 1) / 2 - 1.5]])


def test_positive_rotation_is_clockwise_on_the_screen() -> None:
    # +x (to the right) turned clockwise by 90 degrees points down, to larger rows.
    np.testing.assert_allclose(rotation(np.pi / 2) @ [0.0, 1.0], [1.0, 0.0], atol=1e-12)
    turned = metal(angle_rad=0.1)
    a = turned.yx_px[(turned.cell == (1, 0)).all(1)][0] - turned.yx_px[(turned.cell == (0, 0)).all(1)][0]
    assert np.arctan2(a[0], a[1]) == pytest.approx(0.1)


def test_deformation_and_unequal_pixels() -> None:
    stretch = np.array([[1.02, 0.0], [0.01, 0.97]])
    plain = fill(CRYSTALS["mos2"], SHAPE, (0.02, 0.01))
    strained = fill(CRYSTALS["mos2"], SHAPE, (0.02, 0.01), deformation=stretch)
    centre, size = (np.array(SHAPE) - 1) / 2, np.array([0.02, 0.01])
    keys = {(*cell, site): i for i, (cell, site) in enumerate(zip(strained.cell.tolist(), strained.site.tolist(), strict=True))}
    common = [(i, keys[key]) for i, c in enumerate(plain.cell.tolist()) if (key := (*c, int(plain.site[i]))) in keys]
    mine, theirs = np.array(common).T
    expected = centre + ((plain.yx_px[mine] - centre) * size) @ stretch.T / size
    assert len(common) > 50
    np.testing.assert_allclose(strained.yx_px[theirs], expected, atol=1e-9)


def test_vacancies_take_the_given_fraction_of_the_given_sites() -> None:
    rng = np.random.default_rng(7)
    columns = fill(CRYSTALS["mos2"], (900, 1000), PIXEL_NM)
    left, gone = defects.vacancies(rng, columns, 0.1, sites=(0,))
    assert set(gone.site) == {0}
    assert len(left) + len(gone) == len(columns)
    expected = 0.1 * (columns.site == 0).sum()
    assert abs(len(gone) - expected) < 5 * np.sqrt(expected)


def test_substitution_and_thinning_change_brightness_only() -> None:
    rng = np.random.default_rng(8)
    columns = fill(CRYSTALS["mos2"], SHAPE, PIXEL_NM)
    doped = defects.substituted(rng, columns, 0.2, (0,), 1.7e-2)
    changed = doped.cross_section_A2 != columns.cross_section_A2
    assert 0 < changed.sum() < len(columns)
    assert set(columns.site[changed]) == {0}
    assert doped.yx_px is columns.yx_px
    half = defects.thinned(rng, columns, 1.0, (1,))
    np.testing.assert_allclose(half.cross_section_A2[columns.site == 1], columns.cross_section_A2[columns.site == 1] / 2)


def test_holes_edges_and_adatoms() -> None:
    rng = np.random.default_rng(9)
    columns = metal()
    pierced = defects.without_disc(columns, (90.0, 130.0), 80.0)
    assert np.hypot(*(pierced.yx_px - (90, 130)).T).min() >= 80
    assert np.pi * 80**2 * 11.56 * PIXEL_NM**2 == pytest.approx(len(columns) - len(pierced), rel=0.2)
    assert defects.half_plane(columns, (0.0, 100.0), (0.0, 1.0)).yx_px[:, 1].min() >= 100
    strewn = defects.adatoms(rng, 50, SHAPE, 1.8e-2)
    assert strewn.inside(SHAPE).all()
    assert len(Columns.joined(columns, strewn)) == len(columns) + 50
    assert set(strewn.site) == {-1}


def test_inclusion_is_uniform_inside_and_decays_outside() -> None:
    points = np.array([(50.0, 60.0), (50.0, 65.0), (50.0, 80.0), (50.0, 100.0)])
    u = defects.inclusion_displacement(points, (50.0, 60.0), 20.0, 0.02)
    np.testing.assert_allclose(u[:, 0], 0, atol=1e-12)
    np.testing.assert_allclose(u[:, 1], [0, 0.1, 0.4, 0.02 * 400 / 40])


def test_gradient_gives_a_strain_growing_along_x() -> None:
    x = np.arange(0.0, 200.0)
    points = np.column_stack([np.zeros_like(x), x])
    u = defects.gradient_displacement(points, 1e-4, (0.0, 100.0))
    np.testing.assert_allclose(np.gradient(u[:, 1])[1:-1], 1e-4 * (x - 100)[1:-1], atol=1e-9)
    moved = displace(metal(), np.array([1.0, -2.0]))
    np.testing.assert_allclose(moved.yx_px - metal().yx_px, np.broadcast_to([1.0, -2.0], moved.yx_px.shape))
