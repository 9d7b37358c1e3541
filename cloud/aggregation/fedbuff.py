"""FedBuff: Nguyen et al. 2022 (arXiv:2106.06639), asynchronous rounds: a step whenever a buffer of updates is full.

Whoever collects the updates calls `finish` once `buffer` of them were added, and lets nobody wait for anybody.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cloud.aggregation.averaging import begin_mean, mean_of
from cloud.aggregation.rule import NOTHING, Fold, State, Updates, Vector


@dataclass(frozen=True)
class FedBuff:
    """`w + server_learning_rate * mean of s(staleness) * delta`, where s is `(1 + staleness) ** -staleness_exponent`.

    A buffer of stale updates moves the model less: the mean is over the weights themselves, not over what staleness
    left of them.
    """

    buffer: int = 10
    """The paper's K: updates to a step."""
    server_learning_rate: float = 1.0
    staleness_exponent: float = 0.5

    def init(self, model: Vector) -> State:
        return {}

    def sent(self, state: State) -> Mapping[str, Vector]:
        return {}

    def begin(self, model: Vector, sent: Mapping[str, Vector] = NOTHING) -> Fold:
        return begin_mean(model)

    def add(self, fold: Fold, updates: Updates) -> None:
        trusted = updates.weights * (1 + updates.staleness) ** -self.staleness_exponent
        fold["sum"] += trusted.to(updates.deltas) @ updates.deltas
        fold["weight"] += updates.weights.sum().to("cpu")

    def finish(self, model: Vector, state: State, fold: Fold) -> tuple[Vector, State]:
        return (model.double() + self.server_learning_rate * mean_of(fold)).to(model.dtype), {}
