"""Rounds against plain arithmetic, and what becomes of clients that diverge."""

import numpy as np
import pytest
import torch

from cloud.aggregation.errors import PrivacyExcludesError, TooFewUpdatesError
from simulations.experiments.errors import ExperimentError
from simulations.experiments.experiment import Experiment
from simulations.experiments.file import experiment_of
from simulations.experiments.run import run
from simulations.populations.batches import plan_batches
from simulations.rounds.kept import KeptVectors
from simulations.rounds.loop import RoundLoop
from simulations.rounds.setup import check_layers, set_up

LONG = {"cohort": {"clients": 8}, "rounds": 8, "local": {"epochs": 3}}


def experiment(**settings: object) -> Experiment:
    small = {"rounds": 3, "population": {"clients": 8}, "cohort": {"clients": 4}, "local": {"batch_size": 20}}
    return experiment_of(small | settings)


def test_a_round_is_the_weighted_mean_of_what_each_client_learned() -> None:
    setup = set_up(experiment(population={"clients": 8, "partition": {"kind": "dirichlet_by_class", "alpha": 1}}), 5)
    loop = RoundLoop(setup, KeptVectors({}))
    loop.run_round()
    plan = plan_batches(setup.population, setup.participants.turn(1, {})[0].clients, setup.work, seed=5, round=1)
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
    result = run(experiment(**({"strategy": strategy} | LONG | rate)))
    accuracy = result.metrics.columns["test_accuracy"]
    assert accuracy[-1] > accuracy[0] + 0.3


def test_an_update_that_is_not_finite_is_left_out_and_counted() -> None:
    diverging = {"local": {"optimizer": {"name": "sgd", "learning_rate": 1e30}, "epochs": 5}}
    result = run(experiment(**diverging))
    assert result.metrics.columns["rejected"].tolist() == [0, 4, 4, 4]
    assert all(np.isfinite(tensor).all() for tensor in result.models[0].values())


def test_compressed_updates_cost_their_bytes_and_still_teach() -> None:
    whole, sparse = run(experiment(**LONG)), run(experiment(compression="top-k=0.1+int8", **LONG))
    assert sparse.metrics.columns["bytes_up"][-1] < whole.metrics.columns["bytes_up"][-1] / 15
    assert sparse.accuracy > whole.metrics.columns["test_accuracy"][0] + 0.3


def test_a_liar_that_is_alone_changes_the_mean_by_its_lie() -> None:
    attack = {"attacks": [{"share": 1.0, "attack": {"name": "sign_flip"}}], "rounds": 1}
    honest, flipped = run(experiment(rounds=1)), run(experiment(**attack))
    start = set_up(experiment(), 0).start
    moved, back = (
        np.concatenate([tensor.reshape(-1) for tensor in result.models[0].values()]) - start.numpy()
        for result in (honest, flipped)
    )
    np.testing.assert_allclose(back, -moved, atol=1e-6)


def test_liars_who_confer_send_the_same_whatever_the_blocks_they_come_in() -> None:
    attack = {"attacks": [{"share": 0.6, "attack": {"name": "a_little"}}]}
    setup = set_up(experiment(cohort={"clients": 8}, **attack), 0)
    loop = RoundLoop(setup, KeptVectors({}))
    loop.run_round()
    (lie,) = setup.lies(np.arange(8))
    assert 1 < int(lie.is_liar.sum()) < 8
    plain = RoundLoop(set_up(experiment(cohort={"clients": 8}), 0), KeptVectors({}))
    plain.run_round()
    assert not torch.allclose(loop.state.model, plain.state.model)


def test_poisoned_data_teach_the_backdoor() -> None:
    attack = {"attacks": [{"share": 0.5, "attack": {"name": "backdoor", "target": 3}}]}
    success = run(experiment(**attack, **LONG)).metrics.columns["attack_success"]
    assert success[-1] > success[0] + 0.3


def test_virtual_time_goes_on_and_some_are_late_or_lost() -> None:
    behaviour = {
        "behaviour": {"dropout": 0.3, "devices": {"sigma": 1.5, "seconds_per_example": 1}},
        "cohort": {"clients": 8, "deadline_s": 300},
    }
    columns = run(experiment(**behaviour, rounds=6)).metrics.columns
    assert (np.diff(columns["clock_s"][1:]) > 0).all()
    assert columns["lost"].sum() > 0
    assert columns["late"].sum() > 0
    assert (columns["clients"] + columns["late"] + columns["lost"] == columns["asked"]).all()


def test_a_buffered_step_takes_updates_from_older_models() -> None:
    result = run(experiment(strategy={"name": "fedbuff", "buffer": 2}, rounds=12))
    assert result.metrics.columns["clients"][1:].tolist() == [2] * 12
    assert result.accuracy > result.metrics.columns["test_accuracy"][0] + 0.2


def test_private_training_spends_by_the_rounds_that_a_client_took_part_in() -> None:
    result = run(experiment(privacy={"example": {"noise_multiplier": 2.0}}))
    spent = result.metrics.columns["example_epsilon"]
    assert (np.diff(spent[1:]) >= 0).all()
    assert "Planned epsilon" in result.notes[0]
    setup = set_up(experiment(privacy={"example": {"noise_multiplier": 2.0}}), 0)
    assert setup.examples is not None
    assert spent[1] == setup.examples.epsilon(1)


def test_user_level_privacy_keeps_its_budget_with_cohorts_drawn_by_coins() -> None:
    result = run(
        experiment(
            privacy={"user": {"epsilon": 8.0, "adaptive": {"count_noise": 1.0}}}, rounds=10, cohort={"clients": 3}
        )
    )
    columns = result.metrics.columns
    assert len(set(columns["clients"][1:])) > 1
    assert columns["user_epsilon"][-1] == pytest.approx(8.0, rel=0.02)
    assert (np.diff(columns["user_epsilon"][1:]) > 0).all()


def test_user_level_privacy_refuses_strategies_that_are_no_mean() -> None:
    with pytest.raises(PrivacyExcludesError, match="scaffold"):
        set_up(experiment(strategy="scaffold", privacy={"user": {"epsilon": 8.0}}), 0)


def test_batch_norm_under_privacy_is_refused_before_the_run() -> None:
    class WithBatchNorm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(3)

    with pytest.raises(ExperimentError, match=r"got 'norm', a BatchNorm1d.*Use GroupNorm"):
        check_layers(experiment(privacy={"example": {}}), WithBatchNorm())


def test_a_cohort_too_small_for_a_robust_rule_is_refused_before_the_run() -> None:
    with pytest.raises(TooFewUpdatesError):
        set_up(experiment(strategy={"name": "bulyan", "liars": 1}), 0)


def test_seeds_are_runs_of_their_own_and_repeat() -> None:
    both = run(experiment(seeds=[3, 4]))
    alone = run(experiment(seeds=[4]))
    assert both.metrics.of_seed(4)["test_loss"].tolist() == alone.metrics.of_seed(4)["test_loss"].tolist()
    assert both.metrics.of_seed(3)["test_loss"].tolist() != alone.metrics.of_seed(4)["test_loss"].tolist()
