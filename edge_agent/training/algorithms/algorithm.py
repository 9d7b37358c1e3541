"""What a client algorithm is: where training starts, what is added to its gradients, what comes of the result.

Tensors in, tensors out. Every function works on one client, `(parameters,)`, and on a stacked cohort,
`(clients, parameters)`, alike: the device and the simulator call the very same.

    kept = algorithm.init(model)                        # a client that takes part for the first time
    starts = algorithm.starts(model, received, kept)    # one for each training of this round; most have one
    deltas = train from each start; gradients are g + proximal * (w - start) + linear
    done = algorithm.finish(model, received, kept, deltas, steps=steps, learning_rate=learning_rate)

What is added to a gradient is added after clipping and noise: it depends on what was noised before, and costs no
privacy. Only `Done.delta` and `Done.extras` leave the client.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from edge_agent.training.algorithms.alternation import Alternation

Vector = torch.Tensor
"""`(..., parameters)` float32."""
Vectors = Mapping[str, Vector]


@dataclass(frozen=True)
class Start:
    """Where one training starts, and what is added to each of its gradients."""

    weights: Vector
    linear: Vector | None = None


@dataclass(frozen=True)
class Done:
    """A client's round."""

    delta: Vector
    """The update for the cloud."""
    kept: Vectors
    """What the client keeps until its next round, however late that is."""
    extras: Vectors = field(default_factory=dict)
    """Sent beside the update. A vector that is kept under the same name is the sum of all that was ever sent of it."""


class ClientAlgorithm(Protocol):
    """The client's half of a strategy: a frozen value of settings."""

    @property
    def proximals(self) -> tuple[float, ...]:
        """One `proximal` for each training of a round. The first training's update is for the cloud."""
        ...

    @property
    def alternation(self) -> Alternation | None:
        """How the first training's steps take turns on parts of the model; None where each moves all of it."""
        ...

    @property
    def wants_start_loss(self) -> bool:
        """Whether the loss of the model as it was sent must be measured, on the client's training data."""
        ...

    def init(self, model: Vector) -> Vectors:
        """What a client keeps that never took part; without names, nothing is ever kept."""
        ...

    def starts(self, model: Vector, received: Vectors, kept: Vectors) -> tuple[Start, ...]:
        """The trainings of this round, in any order.

        Args:
            model: As it was sent, `(parameters,)`.
            received: What was sent beside the model (`Rule.sent`), `(parameters,)` each.
            kept: `(..., parameters)` each.
        """
        ...

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
        """What comes of the trainings.

        Args:
            model: As it was sent.
            received: As it was sent.
            kept: From before this round.
            deltas: What each training changed, `(..., parameters)`.
            steps: Optimizer steps of the first training, `(...)`.
            learning_rate: Of its steps.
        """
        ...
