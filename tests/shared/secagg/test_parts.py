"""The parts of secure aggregation: fixed point, secret sharing, graph."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.secagg.errors import SecureAggregationError, UnencodableUpdateError
from shared.secagg.fixed_point import FixedPoint
from shared.secagg.graph import neighbours_of, topology
from shared.secagg.secrets import mask
from shared.secagg.shamir import PRIME, combine, split


@given(
    clients=st.integers(1, 5000),
    value_max=st.floats(1e-6, 1e6),
    noise=st.floats(0, 1e3),
    data=st.data(),
)
def test_the_sum_of_a_whole_cohort_at_its_largest_does_not_overflow(
    clients: int, value_max: float, noise: float, data: st.DataObject
) -> None:
    format = FixedPoint(clients, value_max, noise_share=noise * value_max)
    values = data.draw(st.lists(st.floats(-value_max, value_max), min_size=1, max_size=4))
    extreme = np.array([value_max, -value_max, *values])
    total = np.multiply(format.encode(extreme), clients, dtype=np.uint32)
    np.testing.assert_allclose(format.decode(total), clients * extreme, atol=clients * format.step / 2, rtol=0)
    largest = np.array([format.integer_max * format.step, -format.integer_max * format.step])
    assert (np.abs(np.rint(largest / format.step).astype(np.int64)) * clients <= 2**31 - 1).all()


@pytest.mark.parametrize("value", [1.0001, -1.0001, math.nan, math.inf])
def test_a_number_too_large_is_refused_and_never_clipped(value: float) -> None:
    with pytest.raises(UnencodableUpdateError, match="at most 1, got"):
        FixedPoint(10, 1.0).encode(np.array([0.5, value]))
    FixedPoint(10, 1.0).encode(np.array([1.0, -1.0]))


def test_noise_beyond_its_room_is_refused_too() -> None:
    format = FixedPoint(10, 1.0, noise_share=1.0)
    format.words(np.array([math.floor(16.9 / format.step)]))
    with pytest.raises(UnencodableUpdateError, match="Expected integers of at most"):
        format.words(np.array([math.floor(41.0 / format.step)]))


def test_the_format_is_as_fine_as_the_cohort_allows() -> None:
    format = FixedPoint(1000, 1.0)
    coarser, finer = format.step, format.step / 2
    assert 1000 * (1.0 / coarser + 1) <= 2**31 < 1000 * (1.0 / finer + 1)


@given(secret=st.binary(min_size=32, max_size=32), seed=st.binary(min_size=32, max_size=32))
def test_any_threshold_of_shares_gives_the_secret(secret: bytes, seed: bytes) -> None:
    shares = split(secret, holders=[1, 2, 5, 9, 100], threshold=3, seed=seed)
    for holders in combinations(shares, 3):
        assert combine({holder: shares[holder] for holder in holders}) == secret


def test_fewer_shares_fit_every_secret() -> None:
    """Two of three: for any other secret, there is a third share that gives it."""
    shares = split(b"a" * 32, holders=[1, 2, 3], threshold=3, seed=b"s" * 32)
    other = int.from_bytes(b"b" * 32)
    one, two = (int.from_bytes(shares[holder]) for holder in (1, 2))
    third = (other - 3 * one + 3 * two) % PRIME  # The quadratic through 0, 1, 2, at 3.
    assert combine({1: shares[1], 2: shares[2], 3: third.to_bytes(33)}) == b"b" * 32


def test_the_prime_is_one() -> None:
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in (2, 3, 5, 7, 11, 13, 17, 19, 23))


@given(clients=st.integers(4, 60), degree=st.integers(1, 20).map(lambda half: 2 * half), seed=st.binary(max_size=8))
def test_everybody_has_as_many_neighbours_and_is_its_neighbours_neighbour(
    clients: int, degree: int, seed: bytes
) -> None:
    graph = [neighbours_of(position, clients=clients, degree=degree, roster_digest=seed) for position in range(clients)]
    for position, near in enumerate(graph):
        assert len(set(near)) == min(degree, clients - 1)
        assert position not in near
        assert all(position in graph[other] for other in near)


def test_large_cohorts_need_few_neighbours() -> None:
    shape = topology(1000, corrupt_share=0.05, dropout_share=0.1)
    assert shape.degree < 60
    assert shape.threshold > shape.degree / 2
    assert topology(5, corrupt_share=0.0, dropout_share=0.2).degree == 4


def test_a_cohort_that_cannot_be_both_safe_and_robust_is_refused() -> None:
    with pytest.raises(SecureAggregationError, match="lose 4 and hold 4 liars, got 10 devices"):
        topology(10, corrupt_share=0.45, dropout_share=0.45)
    with pytest.raises(SecureAggregationError, match="got 2 devices"):
        topology(2, corrupt_share=0.0, dropout_share=0.0)


def test_in_random_dropouts_nobody_misses_a_threshold_as_planned() -> None:
    clients, shape = 200, topology(200, corrupt_share=0.0, dropout_share=0.2)
    random = np.random.default_rng(0)
    for trial in range(20):
        here = set(random.permutation(clients)[: int(0.8 * clients)].tolist())
        for position in range(clients):
            near = neighbours_of(position, clients=clients, degree=shape.degree, roster_digest=bytes([trial]))
            assert len(here & set(near)) >= shape.threshold


def test_masks_are_uniform_words() -> None:
    words = mask(b"k" * 32, 100_000)
    counts, _ = np.histogram(words, bins=64, range=(0, 2**32))
    assert float(((counts - 1562.5) ** 2 / 1562.5).sum()) < 103.4  # 99.9 % of 63 degrees of freedom
    assert not np.array_equal(words, mask(b"l" * 32, 100_000))
