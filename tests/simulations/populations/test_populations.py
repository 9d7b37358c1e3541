"""Populations hand out the same examples whenever and in whatever company they are asked."""

import resource
import time

import numpy as np
import pytest
import torch
from scipy import stats

from simulations.partitions.errors import ImpossiblePartitionError
from simulations.partitions.settings import Dirichlet, Drawn, FeatureShift, Iid
from simulations.populations.cohorts import poisson_cohort, uniform_cohort
from simulations.populations.drawn import DrawnPopulation
from simulations.populations.errors import CohortTooLargeError
from simulations.populations.populate import PopulationSettings, populate
from simulations.populations.port import Population
from simulations.problem import Data, Problem, cross_entropy


def problem(examples: int = 600, shape: tuple[int, ...] = (4,)) -> Problem:
    generator = torch.Generator().manual_seed(0)
    data = Data(torch.randn(examples, *shape, generator=generator), torch.arange(examples) % 10)
    return Problem("noise", lambda _: torch.nn.Linear(4, 10), cross_entropy, data, data, classes=10)


def populations() -> list[Population]:
    settings = [
        PopulationSettings(clients=50, partition=Iid()),
        PopulationSettings(clients=50, partition=Dirichlet(alpha=0.2)),
        PopulationSettings(clients=10_000_000, partition=Drawn(examples=20)),
        PopulationSettings(clients=10_000_000, partition=Drawn(examples=20, sigma=0.7, alpha=0.3)),
    ]
    return [populate(problem(), each, seed=5).population for each in settings]


@pytest.mark.parametrize("population", populations())
def test_a_client_holds_the_same_in_any_company(population: Population) -> None:
    cohort = np.array([3, 49, 17, 0])
    together = population.holdings(cohort)
    parts = np.split(together.rows, np.cumsum(together.sizes)[:-1])
    for client, rows in zip(cohort, parts, strict=True):
        alone = population.holdings(np.array([client]))
        assert np.array_equal(alone.rows, rows)
        assert len(np.unique(rows)) == len(rows)
        assert 1 <= len(rows) == population.sizes(np.array([client]))[0]


def test_drawn_clients_use_every_example_alike() -> None:
    population = DrawnPopulation(Drawn(examples=20), np.arange(600) % 10, clients=10_000_000, seed=1)
    counts = np.bincount(population.holdings(np.arange(10_000)).rows, minlength=600)
    # Drawing without replacement makes counts a little more even than independent draws.
    assert stats.chisquare(counts).pvalue > 0.001


def test_drawn_mixtures_are_skewed_as_asked() -> None:
    labels = np.arange(60_000) % 10
    for alpha, classes_held in ((0.1, (1, 2.5)), (1000.0, (9.5, 10))):
        population = DrawnPopulation(Drawn(examples=50, alpha=alpha), labels, clients=10_000_000, seed=1)
        holdings = population.holdings(np.arange(0, 10_000_000, 50_000))
        table = np.zeros((200, 10))
        np.add.at(table, (np.repeat(np.arange(200), holdings.sizes), labels[holdings.rows]), 1)
        assert classes_held[0] <= (table > 0).sum(axis=1).mean() <= classes_held[1]
        assert abs(table.mean(axis=0) / 5 - 1).max() < 0.5


def test_a_mixture_takes_no_more_of_a_class_than_there_is() -> None:
    labels = np.array([0] * 30 + [1] * 2)
    population = DrawnPopulation(Drawn(examples=25, alpha=0.5), labels, clients=1000, seed=1)
    holdings = population.holdings(np.arange(1000))
    owner = np.repeat(np.arange(1000), holdings.sizes)
    assert len(np.unique(owner * 32 + holdings.rows)) == len(owner)
    assert holdings.sizes.min() >= 1


def test_sizes_are_log_normal_around_their_median() -> None:
    population = DrawnPopulation(Drawn(examples=1000, sigma=0.5), np.zeros(100_000, int), clients=10**7, seed=1)
    logs = np.log(population.sizes(np.arange(5000)) / 1000)
    assert stats.kstest(logs / 0.5, "norm").pvalue > 0.001


def test_ten_million_clients_cost_what_a_thousand_do() -> None:
    """CPU time and memory of a cohort of 1,000; a factor of 3 is far from the 10,000 of a cost per client."""
    labels = np.arange(60_000) % 10

    def cost(clients: int) -> float:
        population = DrawnPopulation(Drawn(examples=20, alpha=0.3), labels, clients=clients, seed=1)
        start = time.process_time()
        for round in range(5):
            population.holdings(uniform_cohort(clients, 1000, seed=1, round=round))
        return time.process_time() - start

    cost(1000)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    small = min(cost(1000) for _ in range(3))
    large = min(cost(10_000_000) for _ in range(3))
    assert large < 3 * small + 0.01
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 60_000


def test_uniform_cohorts_are_without_repetition_and_fair() -> None:
    counts = np.zeros(50)
    for round in range(2000):
        cohort = uniform_cohort(50, 10, seed=1, round=round)
        assert (np.diff(cohort) > 0).all()
        counts[cohort] += 1
    assert stats.chisquare(counts).pvalue > 0.001
    assert np.array_equal(uniform_cohort(50, 10, seed=1, round=3), uniform_cohort(50, 10, seed=1, round=3))
    assert len(uniform_cohort(10_000_000, 5000, seed=1, round=1)) == 5000


def test_poisson_cohorts_vary_as_independent_coins() -> None:
    sizes = np.array([len(poisson_cohort(100_000, 0.001, seed=1, round=round)) for round in range(2000)])
    assert abs(sizes.mean() - 100) < 1.5
    assert 85 < sizes.var() < 115


@pytest.mark.parametrize("size", [0, 51])
def test_a_cohort_larger_than_the_population_is_refused(size: int) -> None:
    with pytest.raises(CohortTooLargeError, match="between 1 and 50"):
        uniform_cohort(50, size, seed=1, round=1)


def test_a_feature_shift_is_a_clients_own_and_leaves_test_data_alone() -> None:
    plain = problem(600)
    settings = PopulationSettings(clients=20, partition=FeatureShift(gain=0.5, offset=2))
    shifted, population = (lambda made: (made.problem, made.population))(populate(plain, settings, seed=1))
    assert shifted.test is plain.test
    for client in range(20):
        rows = torch.from_numpy(population.holdings(np.array([client])).rows)
        before, after = plain.train.inputs[rows], shifted.train.inputs[rows]
        gain = (after[0] - after[1]) / (before[0] - before[1])
        offset = after[0] - gain * before[0]
        torch.testing.assert_close(before * gain + offset, after, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(plain.train.inputs.mean(), shifted.train.inputs.mean(), atol=1e-4)


def test_noise_grows_from_the_first_client_to_the_last() -> None:
    plain = problem(6000)
    made = populate(plain, PopulationSettings(clients=10, partition=FeatureShift(noise=1.0)), seed=1)
    added = made.problem.train.inputs - plain.train.inputs
    for client in range(10):
        rows = made.population.holdings(np.array([client])).rows
        assert abs(float(added[torch.from_numpy(rows)].std()) - (client + 1) / 10) < 0.08


def test_images_turn_by_an_angle_of_the_clients_own() -> None:
    bar = torch.zeros(40, 1, 15, 15)
    bar[:, :, 7, 2:13] = 1
    data = Data(bar, torch.zeros(40, dtype=torch.int64))
    plain = Problem("bars", lambda _: torch.nn.Linear(1, 1), cross_entropy, data, data, classes=1)
    made = populate(plain, PopulationSettings(clients=4, partition=FeatureShift(rotation_deg=90)), seed=2)
    images = made.problem.train.inputs
    seen = [images[torch.from_numpy(made.population.holdings(np.array([client])).rows)] for client in range(4)]
    assert all(torch.equal(own, own[:1].expand_as(own)) for own in seen)
    assert not torch.allclose(seen[0][0], seen[1][0])
    with pytest.raises(ImpossiblePartitionError, match="images"):
        populate(problem(), PopulationSettings(clients=4, partition=FeatureShift(rotation_deg=90)), seed=2)
