"""SCAFFOLD, the server's half: Karimireddy et al. 2020 (arXiv:1910.06378), algorithm 1.

The client's half is `edge_agent/training/algorithms/scaffold.py`: it corrects each of its steps by the difference of
the server's control (which way all clients' gradients point) and its own, and sends what its own changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from cloud.aggregation.averaging import add_to_mean, begin_mean, mean_of
from cloud.aggregation.rule import NOTHING, Fold, State, Updates, Vector

CONTROL = "control"
"""Name of the server's control where it is sent, and of the change of a client's where it comes back."""


@dataclass(frozen=True)
class Scaffold:
    """FedAvg, and a control that follows the clients' own: `c <- c + (|S| / N) * mean of their changes`.

    The paper's means are plain. Ours are weighted, so that the objective is FedAvg's; equal weights give the paper's,
    and the server's control is the mean of all clients' controls then.
    """

    population: int
    """The paper's N: clients that may ever take part. The control of one that never did is zero."""
    server_learning_rate: float = 1.0

    def init(self, model: Vector) -> State:
        return {CONTROL: torch.zeros_like(model)}

    def sent(self, state: State) -> Mapping[str, Vector]:
        return {CONTROL: state[CONTROL]}

    def begin(self, model: Vector, sent: Mapping[str, Vector] = NOTHING) -> Fold:
        clients = torch.zeros((), dtype=torch.float64, device=model.device)
        return begin_mean(model) | {CONTROL: begin_mean(model)["sum"], "clients": clients}

    def add(self, fold: Fold, updates: Updates) -> None:
        add_to_mean(fold, updates.deltas, updates.weights)
        changes = updates.extras[CONTROL]
        fold[CONTROL] += updates.weights.to(changes) @ changes
        fold["clients"] += len(updates.weights)

    def finish(self, model: Vector, state: State, fold: Fold) -> tuple[Vector, State]:
        moved = model.double() + self.server_learning_rate * mean_of(fold)
        share = fold["clients"] / self.population
        control = state[CONTROL].double() + share * fold[CONTROL] / fold["weight"]
        return moved.to(model.dtype), {CONTROL: control.to(state[CONTROL].dtype)}
