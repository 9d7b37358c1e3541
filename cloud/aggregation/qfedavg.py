"""q-FedAvg: Li et al. 2020 (arXiv:1905.10497), "Fair resource allocation in federated learning", algorithm 2."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from cloud.aggregation.averaging import begin_mean
from cloud.aggregation.errors import MissingLossError, NothingToAggregateError
from cloud.aggregation.rule import NOTHING, Fold, State, Updates, Vector

_LOSS_MIN = 1e-10
"""Added to each loss, as Flower does: the power of zero is not finite where q is below one."""


@dataclass(frozen=True)
class QFedAvg:
    """Clients on whose data the model is bad pull it harder; with q = 0, the plain mean of all updates.

    `w - (sum of F_k^q g_k) / (sum of q F_k^(q-1) |g_k|^2 + L F_k^q)`, where g_k is `-L * delta_k`, F_k the loss of the
    model as it was sent, and L is `1 / client_learning_rate`. Weights are not used: fairness is among clients.
    """

    q: float = 0.1
    client_learning_rate: float = 0.1

    def init(self, model: Vector) -> State:
        return {}

    def sent(self, state: State) -> Mapping[str, Vector]:
        return {}

    def begin(self, model: Vector, sent: Mapping[str, Vector] = NOTHING) -> Fold:
        total = begin_mean(model)["sum"]
        return {"sum": total, "curvature": total.new_zeros(())}

    def add(self, fold: Fold, updates: Updates) -> None:
        if not (updates.losses >= 0).all():
            raise MissingLossError("Expected with each update the loss of the model as it was sent, 0 or more")
        lipschitz, losses = 1 / self.client_learning_rate, updates.losses.to(updates.deltas.device) + _LOSS_MIN
        pull = lipschitz * losses**self.q
        norms = lipschitz * torch.linalg.vector_norm(updates.deltas, dim=1, dtype=torch.float64)
        fold["sum"] += pull.to(updates.deltas.dtype) @ updates.deltas
        fold["curvature"] += (self.q * losses ** (self.q - 1) * norms.square() + pull).sum()

    def finish(self, model: Vector, state: State, fold: Fold) -> tuple[Vector, State]:
        if not fold["curvature"] > 0:
            raise NothingToAggregateError("Expected updates with losses above 0, got none")
        return (model.double() + fold["sum"] / fold["curvature"]).to(model.dtype), {}
