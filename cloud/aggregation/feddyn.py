"""FedDyn, the server's half: Acar et al. 2021 (arXiv:2111.04263), algorithm 1.

The client's half is `edge_agent/training/algorithms/feddyn.py`: each client's objective is bent so that all agree where
the sum of their own has its minimum.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from cloud.aggregation.averaging import add_to_mean, begin_mean, mean_of
from cloud.aggregation.rule import NOTHING, Fold, State, Updates, Vector


@dataclass(frozen=True)
class FedDyn:
    """`h <- h - strength * (|P| / m) * mean delta`, then `w <- w + mean delta - h / strength`.

    The paper's means are plain. Ours are weighted, so that the objective is FedAvg's; equal weights give the paper's.
    """

    population: int
    """The paper's m: clients that may ever take part."""
    strength: float = 0.1
    """The paper's alpha; the clients' must be the same."""

    def init(self, model: Vector) -> State:
        return {"drift": torch.zeros_like(model)}

    def sent(self, state: State) -> Mapping[str, Vector]:
        return {}

    def begin(self, model: Vector, sent: Mapping[str, Vector] = NOTHING) -> Fold:
        return begin_mean(model) | {"clients": torch.zeros((), dtype=torch.float64, device=model.device)}

    def add(self, fold: Fold, updates: Updates) -> None:
        add_to_mean(fold, updates.deltas, updates.weights)
        fold["clients"] += len(updates.weights)

    def finish(self, model: Vector, state: State, fold: Fold) -> tuple[Vector, State]:
        mean = mean_of(fold)
        drift = state["drift"].double() - self.strength * fold["clients"] / self.population * mean
        moved = model.double() + mean - drift / self.strength
        return moved.to(model.dtype), {"drift": drift.to(state["drift"].dtype)}
