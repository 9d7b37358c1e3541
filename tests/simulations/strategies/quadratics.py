"""Clients whose losses are parabolas: where the best model is known, and so is what FedAvg makes of it instead.

Client i has the loss `curvature_i / 2 * |w - optimum_i|^2`; the mean of all losses is least at `best`.
"""

from dataclasses import dataclass

import torch

from cloud.aggregation.choice import rule_of
from cloud.aggregation.rule import Updates
from edge_agent.training.algorithms.choice import algorithm_of
from shared.layout import Layout
from shared.strategies import StrategySettings


@dataclass(frozen=True)
class Parabolas:
    curvatures: torch.Tensor
    """`(clients,)`."""
    optima: torch.Tensor
    """`(clients, parameters)`."""

    @property
    def best(self) -> torch.Tensor:
        """The mean loss is least here, `(parameters,)`."""
        return (self.curvatures[:, None] * self.optima).sum(dim=0) / self.curvatures.sum()

    def mean_loss(self, model: torch.Tensor) -> torch.Tensor:
        """Of each client, `(clients,)`."""
        return self.curvatures / 2 * (model - self.optima).square().sum(dim=1)


@dataclass(frozen=True)
class Run:
    """What is left after some rounds of full gradient steps."""

    model: torch.Tensor
    kept: dict[str, torch.Tensor]
    """Of all clients, `(clients, parameters)` each."""
    state: dict[str, torch.Tensor]


def run(
    problem: Parabolas,
    settings: StrategySettings,
    *,
    rounds: int,
    steps: torch.Tensor,
    learning_rate: float = 0.1,
    cohort: int | None = None,
) -> Run:
    """Rounds from zero; `cohort` clients take part in each, drawn with a fixed seed, by default all."""
    clients, parameters = problem.optima.shape
    # Nothing is normalized here, and the second parameter is what FedPer may keep.
    network = torch.nn.ParameterDict({"body": torch.zeros(parameters - 1), "head": torch.zeros(1)})
    layout = Layout(("body", "head"), ((parameters - 1,), (1,)))
    rule, algorithm = rule_of(settings, population=clients), algorithm_of(settings, network, layout)
    model = torch.zeros(parameters)
    state = rule.init(model)
    kept = {name: value.expand(clients, -1).clone() for name, value in algorithm.init(model).items()}
    random = torch.Generator().manual_seed(0)
    for _ in range(rounds):
        chosen = torch.randperm(clients, generator=random)[: cohort or clients]
        received, own = rule.sent(state), {name: value[chosen] for name, value in kept.items()}
        deltas = [
            _train(problem, chosen, start.weights, start.linear, pull=pull, steps=steps[chosen], rate=learning_rate)
            for start, pull in zip(algorithm.starts(model, received, own), algorithm.proximals, strict=True)
        ]
        done = algorithm.finish(model, received, own, deltas, steps=steps[chosen], learning_rate=learning_rate)
        for name, value in done.kept.items():
            kept[name][chosen] = value
        fold = rule.begin(model, received)
        found = Updates(
            done.delta,
            torch.ones(len(chosen)).double(),
            steps=steps[chosen].double(),
            losses=problem.mean_loss(model)[chosen].double(),
            staleness=torch.zeros(len(chosen)).double(),
            extras=done.extras,
        )
        rule.add(fold, found)
        model, state = rule.finish(model, state, fold)
    return Run(model, kept, state)


def _train(
    problem: Parabolas,
    chosen: torch.Tensor,
    start: torch.Tensor,
    linear: torch.Tensor | None,
    *,
    pull: float,
    steps: torch.Tensor,
    rate: float,
) -> torch.Tensor:
    start = start.expand(len(chosen), -1)
    weights = start.clone()
    for step in range(int(steps.max())):
        gradient = problem.curvatures[chosen, None] * (weights - problem.optima[chosen])
        gradient = gradient + pull * (weights - start) + (0.0 if linear is None else linear)
        weights -= rate * gradient * (step < steps)[:, None]
    return weights - start
