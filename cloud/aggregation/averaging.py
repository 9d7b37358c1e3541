"""Federated averaging: McMahan et al. 2017 (arXiv:1602.05629), algorithm 1."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from cloud.aggregation.errors import NothingToAggregateError
from cloud.aggregation.rule import NOTHING, Fold, State, Updates, Vector


@dataclass(frozen=True)
class FedAvg:
    """The model plus the weighted mean of its updates, times `server_learning_rate`."""

    server_learning_rate: float = 1.0

    def init(self, model: Vector) -> State:
        return {}

    def sent(self, state: State) -> Mapping[str, Vector]:
        return {}

    def begin(self, model: Vector, sent: Mapping[str, Vector] = NOTHING) -> Fold:
        return begin_mean(model)

    def add(self, fold: Fold, updates: Updates) -> None:
        add_to_mean(fold, updates.deltas, updates.weights)

    def finish(self, model: Vector, state: State, fold: Fold) -> tuple[Vector, State]:
        return (model.double() + self.server_learning_rate * mean_of(fold)).to(model.dtype), {}


def begin_mean(model: Vector) -> Fold:
    """A mean of nothing yet. Sums are kept in double precision: thousands of float32 updates lose digits otherwise.

    The weight is kept by the CPU: it is looked at in every round, and looking at a number on a GPU waits for the GPU.
    """
    return {"sum": torch.zeros_like(model, dtype=torch.float64), "weight": torch.zeros((), dtype=torch.float64)}


def add_to_mean(fold: Fold, values: torch.Tensor, weights: torch.Tensor) -> None:
    """Adds rows `(clients, parameters)` with weights `(clients,)`."""
    # One product per block in the rows' own type, one addition in double.
    # Nobody waits until a GPU has its copy of the weights.
    fold["sum"] += weights.to(values, non_blocking=True) @ values
    fold["weight"] += weights.sum().to("cpu")


def mean_of(fold: Fold) -> torch.Tensor:
    """The mean, `(parameters,)` float64. Raises NothingToAggregateError."""
    if not fold["weight"] > 0:
        raise NothingToAggregateError(f"Expected updates of some weight, got {float(fold['weight']):g} in all")
    return fold["sum"] / fold["weight"]
