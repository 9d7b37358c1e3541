"""FedAvg's client, and FedProx's: Li et al. 2020 (arXiv:1812.06127), algorithm 2."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edge_agent.training.algorithms.algorithm import Done, Start, Vector, Vectors
from edge_agent.training.algorithms.alternation import Alternation


@dataclass(frozen=True)
class Plain:
    """Trains from the model that was sent; `proximal` is FedProx's mu, and zero is FedAvg."""

    proximal: float = 0.0
    wants_start_loss: bool = False
    alternation: Alternation | None = None

    @property
    def proximals(self) -> tuple[float, ...]:
        return (self.proximal,)

    def init(self, model: Vector) -> Vectors:
        return {}

    def starts(self, model: Vector, received: Vectors, kept: Vectors) -> tuple[Start, ...]:
        return (Start(model),)

    def finish(
        self,
        model: Vector,
        received: Vectors,
        kept: Vectors,
        deltas: Sequence[Vector],
        *,
        steps: torch.Tensor,
        learning_rate: float,
    ) -> Done:
        (delta,) = deltas
        return Done(delta, {})
