"""Why each strategy exists, on losses where the answer is known."""

from typing import Any

import pytest
import torch

from shared.strategies import StrategySettings, strategy
from tests.simulations.strategies.quadratics import Parabolas, run

UNLIKE = Parabolas(torch.tensor([0.2, 1.0, 3.0, 5.0]), torch.tensor([[4.0, 1.0], [1.0, 0.0], [-1.0, 2.0], [0.0, -3.0]]))
"""Curvatures differ, so clients that take many steps end in their own optima."""
ALIKE = Parabolas(torch.ones(4), UNLIKE.optima)
TEN = torch.full((4,), 10)


def distance(problem: Parabolas, settings: StrategySettings, **how: Any) -> float:
    """`Any`: what `run` takes."""
    return float((run(problem, settings, **how).model - problem.best).norm())


def test_fedavg_drifts_to_a_model_that_is_best_for_nobody() -> None:
    assert distance(UNLIKE, strategy("fedavg"), rounds=200, steps=TEN) > 0.3


@pytest.mark.parametrize(("name", "settings"), [("scaffold", {}), ("feddyn", {"strength": 1.0})])
def test_scaffold_and_feddyn_do_not_drift(name: str, settings: dict[str, float]) -> None:
    assert distance(UNLIKE, strategy(name, settings), rounds=200, steps=TEN) < 1e-3


@pytest.mark.parametrize(("name", "settings"), [("scaffold", {}), ("feddyn", {"strength": 1.0})])
def test_nor_where_half_of_the_clients_are_away_in_each_round(name: str, settings: dict[str, float]) -> None:
    assert distance(UNLIKE, strategy(name, settings), rounds=400, steps=TEN, cohort=2) < 1e-2
    assert distance(UNLIKE, strategy("fedavg"), rounds=400, steps=TEN, cohort=2) > 0.3


def test_fedprox_drifts_less_the_stronger_it_pulls() -> None:
    distances = [
        distance(UNLIKE, strategy("fedprox", {"proximal": mu}), rounds=200, steps=TEN) for mu in (0.0, 1.0, 4.0)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] == distance(UNLIKE, strategy("fedavg"), rounds=200, steps=TEN)


def test_unequal_steps_favour_the_busy_in_fedavg_and_nobody_in_fednova() -> None:
    steps, how = torch.tensor([1, 1, 1, 30]), {"rounds": 300, "learning_rate": 0.004}
    favoured = distance(ALIKE, strategy("fedavg"), steps=steps, **how)
    assert favoured > 2.0
    assert distance(ALIKE, strategy("fednova"), steps=steps, **how) < favoured / 20


def test_momentum_on_the_server_gets_there_in_fewer_rounds() -> None:
    how: dict[str, Any] = {"rounds": 40, "steps": torch.ones(4), "learning_rate": 0.01}
    plain, heavy = (distance(ALIKE, strategy(name), **how) for name in ("fedavg", "fedavgm"))
    assert heavy < plain / 2


@pytest.mark.parametrize("name", ["fedadagrad", "fedadam", "fedyogi"])
def test_adaptive_servers_get_there_too(name: str) -> None:
    rate = {"fedadagrad": 0.3}.get(name, 0.03)
    settings = strategy(name, {"server_learning_rate": rate, "adaptivity": 0.01})
    assert distance(ALIKE, settings, rounds=400, steps=torch.ones(4)) < 0.1


def test_the_more_q_the_better_the_worst_client_fares() -> None:
    """The mean of all losses is least at 1, where the fourth client has 4.5; at 2 all have 2."""
    lonely = Parabolas(torch.ones(4), torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [4.0, 0.0]]))
    models = [
        run(lonely, strategy("qfedavg", {"q": q}), rounds=400, steps=torch.ones(4)).model for q in (0.0, 1.0, 5.0)
    ]
    worst = [float(lonely.mean_loss(model).max()) for model in models]
    assert worst == pytest.approx([4.5, worst[1], worst[2]], rel=1e-3)
    assert worst[0] > worst[1] > worst[2] > 2.0
    assert worst[2] < 2.5


def test_scaffolds_server_knows_the_mean_of_all_clients_controls() -> None:
    found = run(UNLIKE, strategy("scaffold"), rounds=50, steps=TEN, cohort=2)
    torch.testing.assert_close(found.state["control"], found.kept["control"].mean(dim=0), rtol=1e-4, atol=1e-4)


def test_feddyns_clients_know_their_own_gradients_where_they_end() -> None:
    found = run(UNLIKE, strategy("feddyn", {"strength": 1.0}), rounds=200, steps=TEN)
    gradients = UNLIKE.curvatures[:, None] * (UNLIKE.best - UNLIKE.optima)
    torch.testing.assert_close(found.kept["gradient"], gradients, rtol=1e-2, atol=1e-2)


def test_ditto_lies_between_learning_alone_and_the_shared_model() -> None:
    """At rest, each client's own model is `(curvature * optimum + strength * shared) / (curvature + strength)`."""
    found = run(UNLIKE, strategy("ditto", {"strength": 2.0}), rounds=200, steps=TEN)
    own, curvatures = found.kept["personal"], UNLIKE.curvatures[:, None]
    torch.testing.assert_close(own, (curvatures * UNLIKE.optima + 2.0 * found.model) / (curvatures + 2.0))
    assert torch.equal(found.model, run(UNLIKE, strategy("fedavg"), rounds=200, steps=TEN).model)


def test_a_local_head_is_each_clients_own_optimum_under_a_shared_body() -> None:
    found = run(UNLIKE, strategy("fedper", {"local": "head"}), rounds=200, steps=TEN)
    torch.testing.assert_close(found.kept["personal"], UNLIKE.optima[:, 1:], rtol=1e-3, atol=1e-3)
    assert found.model[1] == 0
