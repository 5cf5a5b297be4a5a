"""Known results of opinion dynamics, which the behaviours have to reproduce."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from domain.models.population import GRID
from tests.population.towns import opinions_after, specification


def test_degroot_converges_to_the_mean_weighted_by_the_eigenvector(tmp_path: Path) -> None:
    edges = [(0, 1), (0, 2), (0, 3), (1, 2), (3, 4), (4, 5), (5, 6), (4, 6)]
    file = tmp_path / "edges.txt"
    file.write_text("\n".join(f"{a} {b}" for a, b in edges))
    begin = np.array([0.0, 1.0, 0.25, 0.5, 0.75, 0.1, 0.9])
    walk = np.zeros((7, 7))
    for a, b in edges:
        walk[a, b] = walk[b, a] = 1.0
    walk /= walk.sum(axis=1, keepdims=True)
    values, vectors = np.linalg.eig(walk.T)
    weights = np.real(vectors[:, np.argmax(np.real(values))])
    expected = float(begin @ (weights / weights.sum()))

    found = opinions_after(
        tmp_path, specification(agents=7, behaviour="degroot", graph=str(file), shards=1), 600, begin=begin
    )

    assert np.allclose(found, expected, atol=1e-9)
    assert abs(expected - begin.mean()) > 0.01


# Deffuant, Neau, Amblard, Weisbuch (2000): of uniform opinions about 1 / (2 d) groups are left, and one from d = 0.3 on.
@pytest.mark.parametrize(
    ("bound", "least", "most"), [(0.5, 1, 1), (0.3, 1, 1), (0.2, 2, 2), (0.15, 3, 3), (0.1, 4, 5), (0.05, 8, 10)]
)
def test_bounded_confidence_leaves_the_published_number_of_groups(
    tmp_path: Path, bound: float, least: int, most: int
) -> None:
    agents = 4_000
    found = np.sort(opinions_after(tmp_path, specification(agents=agents, graph="mixed", bound=bound, seed=3), 250))

    groups = np.split(found, np.flatnonzero(np.diff(found) > bound / 2) + 1)
    # Some are always left alone between two groups or at the ends.
    large = [group for group in groups if group.size > agents * 0.02]

    assert least <= len(large) <= most
    assert all(np.ptp(group) < bound / 2 for group in large)


def test_pairs_that_move_to_their_mean_keep_the_sum_of_all_opinions_exactly(tmp_path: Path) -> None:
    begin = np.round(np.linspace(0.0, 1.0, 501) * GRID) / GRID
    spec = specification(agents=501, graph="mixed", bound=1.0)

    found = opinions_after(tmp_path, spec, 30, begin=begin)

    assert int((found * GRID).sum()) == int((begin * GRID).sum())
    assert found.var() < 1e-6


def test_a_voters_opinion_wins_as_often_as_it_was_held_in_the_beginning(tmp_path: Path) -> None:
    groups, size, holders = 300, 10, 3
    file = tmp_path / "edges.txt"
    file.write_text(
        "\n".join(
            f"{group * size + a},{group * size + b}" for group in range(groups) for a in range(size) for b in range(a)
        )
    )
    begin = np.tile(np.where(np.arange(size) < holders, 1.0, 0.0), groups)
    spec = specification(agents=groups * size, behaviour="voter", graph=str(file), seed=1)

    found = opinions_after(tmp_path, spec, 400, begin=begin).reshape(groups, size)

    assert np.all((found == 0.0) | (found == 1.0))
    assert np.all(found.min(axis=1) == found.max(axis=1))
    share = holders / size
    # Three standard deviations of so many independent groups.
    assert abs(found[:, 0].mean() - share) < 3 * (share * (1 - share) / groups) ** 0.5


def test_adoption_spreads_along_a_ring_where_one_neighbour_is_enough_and_not_where_two_are_needed(
    tmp_path: Path,
) -> None:
    agents = 40
    file = tmp_path / "ring.txt"
    file.write_text("\n".join(f"{a} {(a + 1) % agents}" for a in range(agents)))
    begin = np.where(np.arange(agents) == 7, 1.0, 0.1)
    spec = {"agents": agents, "behaviour": "threshold", "graph": str(file)}

    for bound, adopted in ((0.5, agents), (0.6, 1)):
        found = opinions_after(tmp_path, specification(**spec, bound=bound), 25, begin=begin)
        assert np.count_nonzero(found == 1.0) == adopted


def test_nobody_further_away_than_the_bound_is_heard(tmp_path: Path) -> None:
    begin = np.where(np.arange(100) % 2 == 0, 0.25, 0.75)
    found = opinions_after(tmp_path, specification(agents=100, degree=4, bound=0.4), 20, begin=begin)
    assert np.array_equal(found, begin)
