"""Numbers that depend on their index alone, and look random."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simulations.keyed import Stream


def test_a_number_is_the_same_in_any_company() -> None:
    stream = Stream.named(1, "speed")
    alone = stream.uniform(7, 3)
    assert stream.uniform([1, 7, 2], 3)[1] == alone
    assert stream.uniform(np.arange(10)[:, None], np.arange(5))[7, 3] == alone


def test_other_seeds_names_and_indices_give_other_numbers() -> None:
    drawn = [Stream.named(seed, name).bits(index)[()] for seed in (1, 2) for name in ("a", "b") for index in (0, 1)]
    drawn += [Stream.named(1, "a").bits(0, 1)[()], Stream.named(1, "a").bits(1, 0)[()]]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("order", ["clients", "rounds", "both"])
def test_uniform_and_normal_numbers_are_what_they_are_called(order: str) -> None:
    clients, rounds = {"clients": (20_000, 1), "rounds": (1, 20_000), "both": (200, 100)}[order]
    index = np.arange(clients)[:, None], np.arange(rounds)
    stream = Stream.named(3, "law")
    assert stats.kstest(stream.uniform(*index).ravel(), "uniform").pvalue > 0.001
    assert stats.kstest(stream.normal(*index).ravel(), "norm").pvalue > 0.001
    # Negative control: the test sees a distribution that is slightly wrong.
    assert stats.kstest(stream.uniform(*index).ravel() ** 1.05, "uniform").pvalue < 0.001


def test_neighbours_are_uncorrelated() -> None:
    numbers = Stream.named(5, "law").normal(np.arange(100_000))
    for lag in (1, 2, 8):
        assert abs(np.corrcoef(numbers[:-lag], numbers[lag:])[0, 1]) < 0.015


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**40))
def test_a_permutation_meets_every_place_once(size: int, seed: int) -> None:
    sent = Stream.named(seed, "rows").permuted(np.arange(size), size, 9)
    assert np.array_equal(np.sort(sent), np.arange(size))


def test_every_permutation_of_four_is_as_likely() -> None:
    orders = Stream.named(2, "rows").permuted(np.arange(4), 4, np.arange(12_000)[:, None])
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("alpha", [0.001, 0.3, 5.0])
def test_dirichlet_shares_have_the_moments_of_dirichlet(alpha: float) -> None:
    prior = np.array([0.5, 0.3, 0.2, 0.0])
    shares = Stream.named(4, "mixtures").dirichlet(alpha * prior, np.arange(20_000))
    assert np.isfinite(shares).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(shares.mean(axis=0), prior, atol=0.012)
    np.testing.assert_allclose(shares.var(axis=0), prior * (1 - prior) / (alpha + 1), atol=0.01)
