"""Every example goes to one client, however the deal is made; and each deal is the one that its paper describes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy import stats

from simulations.partitions.deal import deal
from simulations.partitions.errors import ImpossiblePartitionError
from simulations.partitions.settings import (
    Dealt,
    Dirichlet,
    DirichletByClass,
    Iid,
    Natural,
    Partition,
    Quantity,
    Shards,
)
from simulations.partitions.shares import Rows, Shares

KINDS: tuple[Dealt, ...] = (
    Iid(),
    Dirichlet(alpha=0.01),
    Dirichlet(alpha=1),
    DirichletByClass(alpha=2),
    Shards(shards=2),
    Quantity(sigma=2),
    Quantity(alpha=0.3),
    Natural(),
)


@settings(max_examples=120, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=300),
    clients=st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
def test_each_example_is_held_once_and_each_client_holds_one(
    kind: Dealt, labels: list[int], clients: int, seed: int
) -> None:
    arguments = {"clients": clients, "seed": seed, "groups": np.arange(len(labels)) // 3}
    try:
        shares = deal(kind, np.array(labels), **arguments)  # type: ignore[arg-type]  # one dict of mixed types
    except ImpossiblePartitionError:
        return
    assert np.array_equal(np.sort(shares.rows), np.arange(len(labels)))
    assert shares.clients == clients
    assert shares.sizes.min() >= 1
    again = deal(kind, np.array(labels), **arguments)  # type: ignore[arg-type]  # one dict of mixed types
    assert np.array_equal(again.rows, shares.rows)
    assert np.array_equal(again.offsets, shares.offsets)
    assert np.array_equal(shares.owners()[shares.of(clients - 1)], np.full(shares.sizes[-1], clients - 1))


def labels_of(examples: int = 6000, classes: int = 10) -> Rows:
    return np.arange(examples) % classes


def class_counts(shares: Shares, labels: Rows) -> Rows:
    """`(clients, classes)`."""
    return np.stack([np.bincount(labels[shares.of(client)], minlength=10) for client in range(shares.clients)])


def test_another_seed_deals_otherwise() -> None:
    first, second = (deal(Iid(), labels_of(), clients=10, seed=seed) for seed in (1, 2))
    assert not np.array_equal(first.rows, second.rows)


def test_dirichlet_keeps_sizes_and_goes_from_one_class_to_all_alike() -> None:
    labels = labels_of()
    means = []
    for alpha in (0.001, 0.3, 1000):
        shares = deal(Dirichlet(alpha=alpha), labels, clients=100, seed=3)
        assert set(shares.sizes) == {60}
        means.append((class_counts(shares, labels) > 0).sum(axis=1).mean())
    assert means[0] < 1.6
    assert 2 < means[1] < 6
    assert means[2] > 9.5


def test_dirichlet_mixtures_have_the_spread_of_the_paper() -> None:
    """Of the first clients, before classes run out: the variance of Dirichlet and of multinomial together."""
    labels, alpha, size = labels_of(100_000), 5.0, 100
    counts = class_counts(deal(Dirichlet(alpha=alpha), labels, clients=1000, seed=1), labels)[:300]
    between = 0.1 * 0.9 / (alpha + 1)
    expected = between + (0.1 * 0.9 - between) / size
    assert abs((counts / size).var() / expected - 1) < 0.1


def test_dirichlet_by_class_divides_each_class_and_sizes_differ() -> None:
    labels = labels_of()
    shares = deal(DirichletByClass(alpha=0.5, examples_min=5), labels, clients=20, seed=3)
    assert shares.sizes.min() >= 5
    assert shares.sizes.std() > 50


def test_shards_give_each_client_that_many_runs_of_one_label() -> None:
    labels = labels_of()
    counts = class_counts(deal(Shards(shards=2), labels, clients=100, seed=3), labels)
    assert (counts.sum(axis=1) == 60).all()
    assert set((counts > 0).sum(axis=1)) <= {1, 2}
    assert (np.isin(counts, (0, 30, 60))).all()


def test_quantity_sizes_are_log_normal() -> None:
    shares = deal(Quantity(sigma=1), labels_of(2_000_000), clients=2000, seed=3)
    assert stats.kstest(stats.zscore(np.log(shares.sizes)), "norm").pvalue > 0.01
    assert abs(np.log(shares.sizes).std() - 1) < 0.05


def test_natural_clients_are_the_groups() -> None:
    groups = np.array([30, 10, 30, 20, 10, 30])
    shares = deal(Natural(), np.zeros(6, np.int64), clients=None, seed=1, groups=groups)
    assert [shares.of(client).tolist() for client in range(3)] == [[1, 4], [3], [0, 2, 5]]


def test_fewer_natural_clients_than_groups_get_whole_groups() -> None:
    groups = np.repeat(np.arange(7), 10)
    shares = deal(Natural(), np.zeros(70, np.int64), clients=3, seed=1, groups=groups)
    for group in range(7):
        assert len(set(shares.owners()[groups == group])) == 1
    assert sorted(shares.sizes) == [20, 20, 30]


@pytest.mark.parametrize(
    ("kind", "clients", "examples", "said"),
    [
        (Iid(), 11, 10, "11 clients"),
        (Iid(), 0, 10, "at least one client"),
        (Iid(), None, 10, "number of clients"),
        (Shards(shards=3), 4, 10, "at least 3"),
        (Quantity(sigma=1, examples_min=4), 3, 10, "at least 4"),
        (DirichletByClass(alpha=0.001, examples_min=9), 10, 100, "got fewer"),
        (Natural(), None, 10, "know who"),
    ],
)
def test_an_impossible_deal_is_refused_with_what_would_work(
    kind: Dealt, clients: int | None, examples: int, said: str
) -> None:
    with pytest.raises(ImpossiblePartitionError, match=said) as refused:
        deal(kind, labels_of(examples, 2), clients=clients, seed=1)
    assert refused.value.hint or clients == 0


def test_settings_are_typed_by_their_kind() -> None:
    adapter: TypeAdapter[Partition] = TypeAdapter(Partition)
    assert adapter.validate_python({"kind": "dirichlet", "alpha": 0.3}) == Dirichlet(alpha=0.3)
    for wrong in (
        {"kind": "dirichlet"},
        {"kind": "dirichlet", "alpha": 0},
        {"kind": "iid", "alpha": 1},
        {"kind": "quantity"},
        {"kind": "quantity", "alpha": 1, "sigma": 1},
        {"kind": "feature_shift", "of": {"kind": "drawn", "examples": 3}},
    ):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)
