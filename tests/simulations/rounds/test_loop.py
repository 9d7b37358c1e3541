"""Rounds against plain arithmetic, and what becomes of clients that diverge."""

import numpy as np
import pytest
import torch

from cloud.aggregation.errors import TooFewUpdatesError
from simulations.experiments.experiment import Experiment
from simulations.experiments.file import experiment_of
from simulations.experiments.run import run
from simulations.populations.batches import plan_batches
from simulations.rounds.kept import KeptVectors
from simulations.rounds.loop import RoundLoop
from simulations.rounds.setup import set_up


def experiment(**settings: object) -> Experiment:
    small = {"rounds": 3, "population": {"clients": 8}, "cohort": {"clients": 4}, "local": {"batch_size": 20}}
    return experiment_of(small | settings)


def test_a_round_is_the_weighted_mean_of_what_each_client_learned() -> None:
    setup = set_up(experiment(population={"clients": 8, "partition": {"kind": "dirichlet_by_class", "alpha": 1}}), 5)
    loop = RoundLoop(setup, KeptVectors({}))
    loop.run_round()
    plan = plan_batches(setup.population, setup.cohort(1), setup.work, seed=5, round=1)
    mean, weight = torch.zeros(len(setup.start), dtype=torch.float64), 0
    for client in range(4):
        model = setup.problem.model(5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for batch in plan.batches[client, : plan.steps[client]]:
            rows = batch[batch >= 0]
            optimizer.zero_grad()
            loss = setup.problem.losses(model(setup.problem.train.inputs[rows]), setup.problem.train.labels[rows])
            loss.mean().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
        examples = int(plan.examples[client])
        mean += examples * torch.nn.utils.parameters_to_vector(model.parameters()).detach().double()
        weight += examples
    torch.testing.assert_close(loop.state.model, (mean / weight).float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "strategy", ["fedavg", "fedadam", "scaffold", "fednova", "feddyn", "qfedavg", "ditto", "median", "multi_krum"]
)
def test_every_strategy_learns(strategy: str) -> None:
    rate = {"strategy": {"name": "fedadam", "server_learning_rate": 0.02}} if strategy == "fedadam" else {}
    cohort = {"cohort": {"clients": 8}, "rounds": 8, "local": {"epochs": 3}}
    result = run(experiment(**({"strategy": strategy} | cohort | rate)))
    accuracy = result.metrics.columns["test_accuracy"]
    assert accuracy[-1] > accuracy[0] + 0.3


def test_an_update_that_is_not_finite_is_left_out_and_counted() -> None:
    diverging = {"local": {"optimizer": {"name": "sgd", "learning_rate": 1e30}, "epochs": 5}}
    result = run(experiment(**diverging))
    assert result.metrics.columns["rejected"].tolist() == [0, 4, 4, 4]
    assert all(np.isfinite(tensor).all() for tensor in result.models[0].values())


def test_a_cohort_too_small_for_a_robust_rule_is_refused_before_the_run() -> None:
    with pytest.raises(TooFewUpdatesError):
        set_up(experiment(strategy={"name": "bulyan", "liars": 1}), 0)


def test_seeds_are_runs_of_their_own_and_repeat() -> None:
    both = run(experiment(seeds=[3, 4]))
    alone = run(experiment(seeds=[4]))
    assert both.metrics.of_seed(4)["test_loss"].tolist() == alone.metrics.of_seed(4)["test_loss"].tolist()
    assert both.metrics.of_seed(3)["test_loss"].tolist() != alone.metrics.of_seed(4)["test_loss"].tolist()
