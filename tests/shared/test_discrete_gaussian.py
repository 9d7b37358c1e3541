"""Discrete Gaussian numbers: as the density says, from randomness that can be repeated, and in sums as accounted."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.discrete_gaussian import discrete_gaussian, multiplier_of_sum
from shared.randomness import SecureRandomness

COUNT = 200_000


def drawn(deviation: float, *, count: int = COUNT, key: int = 7) -> NDArray[np.int64]:
    return discrete_gaussian(count, deviation=deviation, randomness=SecureRandomness(bytes([key]) * 32))


def density(deviation: float, *, reach: int) -> NDArray[np.float64]:
    """Chances of `-reach ... reach`."""
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * deviation**2))
    return np.asarray(weights / weights.sum())


def chi_square(numbers: NDArray[np.int64], chances: NDArray[np.float64], *, reach: int) -> float:
    """By its degrees of freedom, in deviations: about normal, far above 4 where the numbers are others'."""
    found = np.bincount(numbers + reach, minlength=2 * reach + 1)
    expected = len(numbers) * chances
    seen = expected > 20
    statistic = float((((found - expected) ** 2)[seen] / expected[seen]).sum())
    freedom = int(seen.sum()) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("deviation", [0.5, 1.0, 2.7, 30.0])
def test_numbers_come_as_often_as_the_density_says(deviation: float) -> None:
    numbers, reach = drawn(deviation), math.ceil(12 * deviation)
    assert abs(chi_square(numbers, density(deviation, reach=reach), reach=reach)) < 4
    # The wrong answers: a deviation that is 2 % off, and rounded normal numbers where they differ most.
    assert chi_square(numbers, density(1.02 * deviation, reach=reach), reach=reach) > 4


def test_rounded_normal_numbers_are_others() -> None:
    rounded = np.rint(np.random.default_rng(0).normal(0, 0.5, COUNT)).astype(np.int64)
    assert chi_square(rounded, density(0.5, reach=6), reach=6) > 4


@pytest.mark.parametrize("deviation", [20.5, 65536.0, 2.0**30])
def test_mean_and_deviation_are_right_at_any_size(deviation: float) -> None:
    numbers = drawn(deviation) / deviation
    assert abs(numbers.mean()) < 4 / math.sqrt(COUNT)
    assert abs(numbers.std() - 1) < 4 / math.sqrt(2 * COUNT)


def test_only_the_key_makes_them_and_neighbours_tell_nothing_of_each_other() -> None:
    numbers = drawn(100.0)
    np.testing.assert_array_equal(numbers, drawn(100.0))
    assert not np.array_equal(numbers, drawn(100.0, key=8))
    assert abs(float(np.corrcoef(numbers[:-1], numbers[1:])[0, 1])) < 4 / math.sqrt(COUNT)


@given(st.integers(0, 40), st.floats(0.5, 1e6))
def test_there_are_as_many_as_were_asked_for(count: int, deviation: float) -> None:
    assert drawn(deviation, count=count).shape == (count,)


def divergence_of_sum(order: float, *, share: float, clients: int, shift: int) -> float:
    """Rényi's, exactly: of the sum of so many shares, and of the same sum with one client's number in it."""
    reach = math.ceil(12 * share)
    total = np.array([1.0])
    for _ in range(clients):
        total = np.convolve(total, density(share, reach=reach))
    here, there = total[shift:], total[:-shift]
    both = (here > 0) & (there > 0)
    logs = order * np.log(here[both]) + (1 - order) * np.log(there[both])
    return float(np.log(np.sum(np.exp(logs))) / (order - 1))


@pytest.mark.parametrize(("share", "clients", "shift"), itertools.product([0.6, 1.0, 3.0], [2, 5], [1, 2]))
def test_the_bound_holds_for_sums_that_can_be_computed_exactly(share: float, clients: int, shift: int) -> None:
    multiplier = share * math.sqrt(clients) / shift
    accounted = multiplier_of_sum(noise_multiplier=multiplier, share_deviation=share, clients=clients, parameters=1)
    for order in (1.5, 2.0, 4.0):
        exact = divergence_of_sum(order, share=share, clients=clients, shift=shift)
        assert exact <= order / (2 * accounted**2) * (1 + 1e-9)
        # The wrong answer: as if one client more had added a share.
        more = multiplier * math.sqrt((clients + 1) / clients)
        assert share < 1 or exact > order / (2 * more**2)


@given(clients=st.integers(1, 10**6), parameters=st.integers(1, 10**10), multiplier=st.floats(0.01, 100))
def test_shares_of_sixteen_steps_are_a_gaussians_sum(clients: int, parameters: int, multiplier: float) -> None:
    found = multiplier_of_sum(noise_multiplier=multiplier, share_deviation=16.0, clients=clients, parameters=parameters)
    assert found == pytest.approx(multiplier, rel=1e-15)
