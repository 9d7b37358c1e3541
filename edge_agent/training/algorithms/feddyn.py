"""FedDyn, the client's half: Acar et al. 2021 (arXiv:2111.04263), algorithm 1."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edge_agent.training.algorithms.algorithm import Done, Start, Vector, Vectors
from edge_agent.training.algorithms.alternation import Alternation

GRADIENT = "gradient"


@dataclass(frozen=True)
class FedDyn:
    """Minimizes its own loss `- <g, w> + strength / 2 * |w - sent|^2`; then `g <- g - strength * delta`.

    `g` is the gradient of the client's own loss where its last training ended.
    """

    strength: float = 0.1
    wants_start_loss: bool = False
    alternation: Alternation | None = None

    @property
    def proximals(self) -> tuple[float, ...]:
        return (self.strength,)

    def init(self, model: Vector) -> Vectors:
        return {GRADIENT: torch.zeros_like(model)}

    def starts(self, model: Vector, received: Vectors, kept: Vectors) -> tuple[Start, ...]:
        return (Start(model, -kept[GRADIENT]),)

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
        return Done(delta, {GRADIENT: kept[GRADIENT] - self.strength * delta})
