"""SCAFFOLD, the client's half: Karimireddy et al. 2020 (arXiv:1910.06378), algorithm 1 with option II."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edge_agent.training.algorithms.algorithm import Done, Start, Vector, Vectors
from edge_agent.training.algorithms.alternation import Alternation

CONTROL = "control"
"""The client's control where it is kept; the server's where it is received; the change of the client's where sent."""


@dataclass(frozen=True)
class Scaffold:
    """Each gradient is corrected by `c - c_i`: the direction of all clients instead of the client's own.

    `c_i <- c_i - c - delta / (steps * learning_rate)`: for plain SGD, the mean of the client's gradients. With momentum
    or Adam, that is a mean of directions, and SCAFFOLD is a heuristic.
    """

    proximals: tuple[float, ...] = (0.0,)
    wants_start_loss: bool = False
    alternation: Alternation | None = None

    def init(self, model: Vector) -> Vectors:
        return {CONTROL: torch.zeros_like(model)}

    def starts(self, model: Vector, received: Vectors, kept: Vectors) -> tuple[Start, ...]:
        return (Start(model, received[CONTROL] - kept[CONTROL]),)

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
        rate = (steps.clamp(min=1) * learning_rate).to(delta.dtype)[..., None]
        change = -received[CONTROL] - delta / rate
        # A client that took no step has seen no gradient, and knows what it knew.
        change = torch.where(steps[..., None] > 0, change, 0.0)
        return Done(delta, {CONTROL: kept[CONTROL] + change}, {CONTROL: change})
