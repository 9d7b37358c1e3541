"""What a layer does in a block: its pass forward, its pass backward, and the gradient of its own parameters.

Activations are `(clients, batch, features)` or, channels last, `(clients, batch, height, width, channels)`; one spatial
dimension is a height of 1. Only the clients that still train have a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from simulations.engines.vector.block import Block
from simulations.engines.vector.layers.parameter import Parameter


@dataclass(frozen=True)
class Run:
    """What the layers of one block share."""

    block: Block
    rate: float
    """The learning rate."""
    is_fused: bool
    """Whether gradients go straight into the parameters: plain SGD without other terms."""
    draws: Sequence[torch.Generator]
    """Each client's own, for dropout and noise."""


class Layer(Protocol):
    @property
    def parameters(self) -> Sequence[Parameter]:
        """Its own, of which it holds a copy for each client."""
        ...

    def begin(self, run: Run) -> None: ...
    def forward(self, inputs: torch.Tensor, step: int) -> torch.Tensor: ...

    def backward(self, slopes: torch.Tensor, step: int, *, wants_inputs: bool) -> torch.Tensor:
        """The loss's slope by the inputs, from that by the outputs; anything at all if it is not wanted."""
        ...

    def square_norms(self) -> torch.Tensor | None:
        """Squared length of each example's own gradient after `backward`, `(clients, batch)`."""
        ...

    def gradient(self, factors: torch.Tensor | None) -> None:
        """Makes the parameters' gradients after `backward`, each example's times its factor, `(clients, batch)`."""
        ...

    def write_deltas(self, deltas: torch.Tensor, clients: slice) -> None:
        """Writes what training changed into these clients' rows, `(clients, parameters)`."""
        ...


class Bare:
    """A layer without parameters: what such a one leaves out."""

    parameters: Sequence[Parameter] = ()

    def begin(self, run: Run) -> None: ...

    def square_norms(self) -> torch.Tensor | None:
        return None

    def gradient(self, factors: torch.Tensor | None) -> None: ...
    def write_deltas(self, deltas: torch.Tensor, clients: slice) -> None: ...


class Owning:
    """A layer whose parameters have a copy for each client."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = parameters
        self._block: Block | None = None

    def begin(self, run: Run) -> None:
        self._block = run.block
        for parameter in self.parameters:
            parameter.begin(run.block, rate=run.rate, is_fused=run.is_fused)

    def share(self, whole: "Owning", client: int) -> None:
        """Works on the parameters of one client of `whole`, the same layer for all of them."""
        for own, shared in zip(self.parameters, whole.parameters, strict=True):
            own.rate, own.values = shared.rate, shared.values[client : client + 1]
            own.gradients = None if shared.gradients is None else shared.gradients[client : client + 1]

    def write_deltas(self, deltas: torch.Tensor, clients: slice) -> None:
        assert self._block is not None
        for parameter in self.parameters:
            parameter.write_deltas(deltas, self._block, clients)
