"""FedNova: Wang et al. 2020 (arXiv:2007.07481), "Tackling the objective inconsistency problem", equation 8.

A client that takes more steps moves further, so FedAvg minimizes an objective that favours it. FedNova averages
movement per step, and moves as far as the mean client did.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch

from cloud.aggregation.averaging import begin_mean, mean_of
from cloud.aggregation.rule import NOTHING, Fold, State, Updates, Vector


@dataclass(frozen=True)
class FedNova:
    """`w + (sum of p_i a_i) * (sum of p_i delta_i / a_i)`: p_i are the weights' shares, a_i the effective steps.

    Effective steps are how far a client with a constant gradient would have moved, in learning rates: the paper's
    `||a_i||_1` for the client's optimizer. Their mean is the paper's `tau_eff`, so equal steps give FedAvg.
    """

    momentum: float = 0.0
    """Of the clients' SGD."""
    proximal_rate: float = 0.0
    """FedProx's mu times the clients' learning rate: each step is pulled back by this share of the way so far."""

    def init(self, model: Vector) -> State:
        return {}

    def sent(self, state: State) -> Mapping[str, Vector]:
        return {}

    def begin(self, model: Vector, sent: Mapping[str, Vector] = NOTHING) -> Fold:
        return begin_mean(model) | {"steps": begin_mean(model)["weight"]}

    def add(self, fold: Fold, updates: Updates) -> None:
        steps = self._effective(updates.steps)
        # A client that took no step has not moved: it counts in both means, with nothing.
        per_step = torch.where(steps > 0, updates.weights / steps.clamp(min=1), 0.0)
        fold["sum"] += per_step.to(updates.deltas) @ updates.deltas
        fold["weight"] += updates.weights.sum().to("cpu")
        fold["steps"] += (updates.weights * steps).sum().to("cpu")

    def finish(self, model: Vector, state: State, fold: Fold) -> tuple[Vector, State]:
        per_step = mean_of(fold)
        return (model.double() + fold["steps"] / fold["weight"] * per_step).to(model.dtype), {}

    def _effective(self, steps: torch.Tensor) -> torch.Tensor:
        if not self.momentum and not self.proximal_rate:
            return steps
        counted = [_distance(round(count), self.momentum, self.proximal_rate) for count in steps.tolist()]
        return torch.tensor(counted, dtype=torch.float64, device=steps.device)


@lru_cache(maxsize=4096)
def _distance(steps: int, momentum: float, pull: float) -> float:
    """How far so many steps lead under a constant gradient of one, at a learning rate of one."""
    position = velocity = 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 1 - pull * position
        position += velocity
    return position
