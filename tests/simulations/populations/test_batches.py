"""Batches of a whole cohort: each example as often as it should be, each client as if it were alone."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simulations.partitions.deal import deal
from simulations.partitions.settings import Iid, Quantity
from simulations.populations.batches import Batches, Poisson, Shuffled, plan_batches
from simulations.populations.dealt import DealtPopulation


def population(clients: int, examples: int, sigma: float | None = 1.0) -> DealtPopulation:
    partition = Quantity(sigma=sigma) if sigma else Iid()
    return DealtPopulation(deal(partition, np.zeros(examples, np.int64), clients=clients, seed=1))


def check_padding(plan: Batches) -> None:
    """Padding is at a batch's end, and all of the steps that are not taken."""
    padded = plan.batches < 0
    assert not (padded[..., :-1] & ~padded[..., 1:]).any()
    for client, steps in enumerate(plan.steps.tolist()):
        assert padded[client, steps:].all()


@settings(max_examples=60, deadline=None)
@given(
    clients=st.integers(1, 12),
    batch=st.integers(1, 9) | st.none(),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 2**40),
)
def test_every_pass_meets_each_example_once(clients: int, batch: int | None, epochs: int, seed: int) -> None:
    people = population(clients, 8 * clients)
    cohort = np.arange(clients)
    plan = plan_batches(people, cohort, Shuffled(batch=batch, epochs=epochs), seed=seed, round=2)
    check_padding(plan)
    for client in range(clients):
        own = np.sort(people.holdings(np.array([client])).rows)
        rows = plan.batches[client, : plan.steps[client]]
        of_pass = rows.reshape(epochs, -1)
        for one in of_pass:
            assert np.array_equal(np.sort(one[one >= 0].numpy()), own)
        assert int(plan.steps[client]) == epochs * -(-len(own) // min(batch or 10**9, plan.batches.shape[2]))


def test_steps_bound_the_passes_or_ask_for_as_many_as_it_takes() -> None:
    people = population(5, 100)
    cohort = np.arange(5)
    bounded = plan_batches(people, cohort, Shuffled(batch=4, epochs=2, steps=3), seed=1, round=1)
    assert int(bounded.steps.max()) == 3
    full = plan_batches(people, cohort, Shuffled(batch=4, epochs=2), seed=1, round=1)
    assert torch.equal(bounded.batches[:, 0], full.batches[:, 0])
    fixed = plan_batches(people, cohort, Shuffled(batch=4, epochs=None, steps=50), seed=1, round=1)
    assert set(fixed.steps.tolist()) == {50}
    assert (fixed.batches[:, :, 0] >= 0).all()
    check_padding(bounded)
    check_padding(fixed)


@pytest.mark.parametrize("work", [Shuffled(batch=3, epochs=2), Poisson(rate=0.3, steps=4)])
def test_a_clients_batches_do_not_depend_on_the_others(work: Shuffled | Poisson) -> None:
    people = population(30, 400)
    together = plan_batches(people, np.array([4, 9, 2]), work, seed=1, round=7)
    alone = plan_batches(people, np.array([9]), work, seed=1, round=7)
    for step in range(int(alone.steps[0])):
        one, many = alone.batches[0, step], together.batches[1, step]
        assert torch.equal(one[one >= 0], many[many >= 0])
    assert alone.seeds[0] == together.seeds[1]
    later = plan_batches(people, np.array([9]), work, seed=1, round=8)
    assert not torch.equal(later.batches[0][:, :1], alone.batches[0][:, :1]) or later.seeds[0] != alone.seeds[0]


def test_every_order_of_a_clients_examples_is_as_likely() -> None:
    people = population(3000, 12_000, sigma=None)
    orders = [plan_batches(people, np.arange(3000), Shuffled(batch=None), seed=1, round=round) for round in range(4)]
    ranks = torch.cat([plan.batches[:, 0] for plan in orders]).argsort(dim=1)
    _, counts = np.unique(ranks.numpy(), axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("rate", [0.02, 0.3, 1.0])
def test_poisson_batches_are_independent_coins(rate: float) -> None:
    people = population(200, 200 * 50, sigma=0.5)
    plan = plan_batches(people, np.arange(200), Poisson(rate=rate, steps=40), seed=1, round=3)
    check_padding(plan)
    counts = (plan.batches >= 0).sum(dim=2).numpy()
    sizes = plan.examples.numpy()[:, None]
    if rate == 1:
        assert (counts == sizes).all()
        return
    standard = (counts - rate * sizes) / np.sqrt(rate * (1 - rate) * sizes)
    assert abs(standard.mean()) < 0.05
    assert abs(standard.std() - 1) < 0.05
    # Steps are independent of each other, and so are the examples of a client.
    assert abs(np.corrcoef(standard[:, :-1].ravel(), standard[:, 1:].ravel())[0, 1]) < 0.05
    chosen = np.bincount(plan.batches[plan.batches >= 0].numpy(), minlength=10_000)
    assert abs(chosen.var() / (40 * rate * (1 - rate)) - 1) < 0.1
    for client in range(3):
        for step in plan.batches[client]:
            taken = step[step >= 0]
            assert len(taken.unique()) == len(taken)


def test_a_cohort_of_a_thousand_is_planned_in_milliseconds() -> None:
    people = population(1000, 20_000, sigma=None)

    def once(round: int) -> float:
        start = time.process_time()
        plan_batches(people, np.arange(1000), Shuffled(batch=10), seed=1, round=round)
        return time.process_time() - start

    assert min(once(round) for round in range(10)) < 0.01  # 1.5 ms on the machine of the docs
