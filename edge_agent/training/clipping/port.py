"""What a clipping engine does: it turns a batch into one sum of clipped gradients."""

from collections.abc import Callable
from typing import Protocol

import torch

from edge_agent.training.clipping.sums import Sums
from edge_agent.training.clipping.units import Units

MeanLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""`(outputs, labels)` to the batch's mean loss."""


class ClippingEngine(Protocol):
    """Sums of clipped gradients of one model."""

    @property
    def name(self) -> str:
        """In one word, for logs and metrics."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the log should know; one sentence each."""
        ...

    def clipped_sums(self, inputs: torch.Tensor, labels: torch.Tensor, units: Units, sums: Sums) -> None:
        """Overwrites `sums` with the sum over units of their average gradients, each clipped.

        Guarantees:
            With a unit added or removed, `sums.vector` changes by at most the engine's `max_grad_norm` in L2, to
            rounding. Void where the model mixes examples in a way that no layer's type tells.
        """
        ...

    def close(self) -> None:
        """Leaves the model as it was found."""
        ...
