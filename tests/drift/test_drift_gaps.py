"""Vacancies as evidence: found where they are, counted for what they are worth, silent on a perfect crystal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atomid_live.drift.gaps import Gaps, find_gaps, gap_nats
from atomid_live.drift.overlap import lattice_residual

CELL = 12.0
SHAPE = (400, 360)
WIDTH = 2.5


def _crystal(
    rng: np.random.Generator, empty: float, noise: float
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.array([0.0, CELL]), np.array([CELL * np.sqrt(3) / 2, CELL / 2])
    i, j = (v.ravel() for v in np.mgrid[-40:60, -60:60])
    sites = i[:, None] * b + j[:, None] * a
    sites = sites[np.all((sites > 10) & (sites < np.array(SHAPE) - 10), axis=1)]
    gone = rng.random(len(sites)) < empty
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.zeros(SHAPE)
    for site in sites[~gone]:
        rows, cols = (slice(int(c) - 9, int(c) + 11) for c in site)
        image[rows, cols] += np.exp(-((y[rows, cols] - site[0]) ** 2 + (x[rows, cols] - site[1]) ** 2) / (2 * WIDTH**2))
    image += rng.normal(0, noise, SHAPE)
    star = np.array([a, b, b - a, -a, -b, a - b])
    return (image - image.mean()).astype(np.float32), star, sites[gone]


def _gaps(image: NDArray[np.float32], star: NDArray[np.float64]) -> Gaps:
    return find_gaps(image, lattice_residual(image, star), np.ones_like(image))


def test_gaps_lie_on_the_vacancies() -> None:
    image, star, gone = _crystal(np.random.default_rng(1), 0.02, 0.1)
    found = _gaps(image, star)
    inner = gone[np.all((gone > 25) & (gone < np.array(SHAPE) - 25), axis=1)]
    sure = found.yx[found.chance > 0.9]
    assert len(inner) > 8
    apart = np.hypot(*(inner[:, None] - sure[None]).transpose(2, 0, 1)).min(axis=1)
    assert (apart < WIDTH).mean() > 0.9
    assert (np.hypot(*(sure[:, None] - gone[None]).transpose(2, 0, 1)).min(axis=1) < WIDTH).all()
    assert 0.005 < found.rate < 0.05


def test_perfect_crystal_and_noise_hold_no_sure_gap() -> None:
    rng = np.random.default_rng(2)
    image, star, _ = _crystal(rng, 0.0, 0.1)
    assert (_gaps(image, star).chance < 0.9).all()
    noise = rng.normal(0, 1, SHAPE).astype(np.float32)
    assert (_gaps(noise, star).chance < 0.9).all()


def _differences(rng: np.random.Generator, gaps: Gaps, right: int) -> NDArray[np.float64]:
    values = rng.normal(0, 1, (len(gaps), 30))
    values[:, right] -= gaps.depth
    return values


def test_faint_vacancies_tell_the_right_candidate_together() -> None:
    rng = np.random.default_rng(3)
    gaps = Gaps(rng.uniform(0, 100, (16, 2)), np.full(16, 2.5), np.full(16, 0.4), 0.01)
    won = 0
    for _ in range(50):
        nats, hoped = gap_nats(gaps, _differences(rng, gaps, 7))
        won += int(np.argmax(nats)) == 7
        assert 5 < hoped < 16 * np.log(0.4 / 0.01)
    assert won >= 48, "each alone is 2.5 sigma among thirty candidates"


def test_one_vacancy_alone_never_weighs_more_than_its_chance_allows() -> None:
    gaps = Gaps(np.zeros((1, 2)), np.array([9.0]), np.array([0.98]), 0.01)
    rng = np.random.default_rng(4)
    values = rng.normal(0, 1, (1, 400))
    values[0, 0] = -9.0
    nats, _ = gap_nats(gaps, values)
    assert nats[0] <= np.log(0.98 / 0.01) + 1e-9
    assert nats[1:].max() < 1.0


def test_unknown_places_count_for_nothing() -> None:
    gaps = Gaps(np.zeros((3, 2)), np.full(3, 3.0), np.full(3, 0.5), 0.01)
    assert not gap_nats(gaps, np.full((3, 5), np.nan))[0].any()
