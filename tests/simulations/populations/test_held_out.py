"""Who trains on what, when clients hold some of their examples out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.partitions.settings import Drawn
from simulations.partitions.shares import Shares
from simulations.populations.dealt import DealtPopulation
from simulations.populations.drawn import DrawnPopulation
from simulations.populations.held_out import HeldOutPopulation
from simulations.populations.port import Holdings, Population


def _dealt(sizes: list[int]) -> DealtPopulation:
    rows = np.random.default_rng(0).permutation(sum(sizes))
    return DealtPopulation(Shares(rows, np.cumsum([0, *sizes])))


def _sets(holdings: Holdings) -> list[set[int]]:
    return [set(part.tolist()) for part in np.split(holdings.rows, np.cumsum(holdings.sizes)[:-1])]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.floats(0.01, 0.9), st.integers(0, 3))
def test_each_client_trains_on_exactly_what_it_does_not_hold_out(sizes: list[int], fraction: float, seed: int) -> None:
    inner = _dealt(sizes)
    population, everybody = HeldOutPopulation(inner, fraction, seed=seed), np.arange(len(sizes))
    trained, held = _sets(population.holdings(everybody)), _sets(population.held_out(everybody))
    for own, some, others in zip(_sets(inner.holdings(everybody)), trained, held, strict=True):
        assert some | others == own
        assert not some & others
        assert some  # nobody holds everything out
        assert len(others) == min(int(len(own) * fraction), len(own) - 1)
    assert population.sizes(everybody).tolist() == [len(each) for each in trained]


@pytest.mark.parametrize(
    "inner", [_dealt([7, 9, 12, 5]), DrawnPopulation(Drawn(examples=20), np.arange(40) % 4, clients=1000, seed=1)]
)
def test_a_client_holds_out_the_same_in_whatever_company(inner: Population) -> None:
    population = HeldOutPopulation(inner, 0.3, seed=2)
    together = _sets(population.held_out(np.array([3, 0, 2])))
    assert [_sets(population.held_out(np.array([client])))[0] for client in (3, 0, 2)] == together
    assert _sets(HeldOutPopulation(inner, 0.3, seed=3).held_out(np.array([3]))) != together[:1]
