"""Small real training under attack: fifteen clients learn digits, three of them lie."""

from dataclasses import dataclass
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from cloud.aggregation.rows import InMemoryRows
from cloud.aggregation.rule import Combined, Fold, RobustRule, Rows
from simulations.attacks.data import DataAttack
from simulations.attacks.updates import UpdateAttack
from simulations.engines.port import Assignment, Collector, LocalTraining, Sgd, Trained
from simulations.engines.reference import ReferenceEngine
from simulations.problem import Data, Problem

CLIENTS, LIARS, EXAMPLES = 15, 3, 80
ROUNDS, BATCH, RATE, MOMENTUM = 5, 10, 0.1, 0.9
LIED_WEIGHT = 20.0
"""A liar says it has so many times the examples it has: nothing can check that."""


@dataclass(frozen=True)
class Mean:
    """The negative control: what FedAvg combines, as if it were a robust rule."""

    def combine(self, rows: Rows, weights: torch.Tensor) -> Combined:
        values = rows.columns(0, rows.parameters)
        return Combined((weights / weights.sum()).float() @ values, torch.zeros(rows.clients), weights > 0)


def network(seed: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = torch.nn.Flatten(), torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10)
        return torch.nn.Sequential(*layers)


@cache
def digits() -> Problem:
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    inputs = torch.from_numpy(pixels).float()[order].reshape(-1, 1, 8, 8) / 16
    targets = torch.from_numpy(labels)[order]
    train = CLIENTS * EXAMPLES
    return Problem(
        "digits",
        network,
        lambda outputs, labels: functional.cross_entropy(outputs, labels, reduction="none"),
        train=Data(inputs[:train], targets[:train]),
        test=Data(inputs[train:], targets[train:]),
        classes=10,
    )


class _Stack(Collector):
    """Keeps every update, in its row."""

    def begin(self, assignment: Assignment) -> Fold:
        return {"deltas": torch.zeros(len(assignment), assignment.start.shape[-1])}

    def add(self, fold: Fold, assignment: Assignment, trained: Trained) -> None:
        fold["deltas"][trained.positions] = trained.deltas


def rounds(rule: RobustRule, *, update: UpdateAttack | None = None, data: DataAttack | None = None) -> torch.nn.Module:
    """The model after all rounds; clients 0, 1 and 2 lie."""
    problem, liars = digits(), torch.arange(LIARS * EXAMPLES)
    train = data.poisoned(problem.train, liars, classes=10) if data else problem.train
    attacked = Problem(problem.name, network, problem.losses, train, problem.test, classes=10)
    engine = ReferenceEngine(attacked, LocalTraining(Sgd(RATE, momentum=MOMENTUM)))
    weights = torch.full((CLIENTS,), float(EXAMPLES), dtype=torch.float64)
    weights[:LIARS] *= LIED_WEIGHT
    model = network(0)
    vector = parameters_to_vector(model.parameters()).detach()
    for number in range(ROUNDS):
        deltas = engine.train(_assignment(vector, seed=number), _Stack())["deltas"]
        if update:
            deltas[:LIARS] = update.lies(deltas[:LIARS], seeds=[100 * number + liar for liar in range(LIARS)])
        vector = vector + rule.combine(InMemoryRows(deltas), weights).delta
    vector_to_parameters(vector, model.parameters())
    return model


def _assignment(start: torch.Tensor, *, seed: int) -> Assignment:
    """Everybody, one epoch, in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(CLIENTS, EXAMPLES, generator=generator).argsort(dim=1)
    rows = (torch.arange(CLIENTS)[:, None] * EXAMPLES + order).view(CLIENTS, -1, BATCH)
    return Assignment(torch.arange(CLIENTS), rows, torch.full((CLIENTS,), rows.shape[1]), start)


def accuracy(model: torch.nn.Module, data: Data) -> float:
    with torch.no_grad():
        return float((model(data.inputs).argmax(dim=1) == data.labels).float().mean())
