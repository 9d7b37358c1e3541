"""One parameter of a layer, with a copy for each client of a block."""

from dataclasses import dataclass

import torch

from simulations.engines.vector.block import Block


@dataclass(frozen=True)
class Place:
    """Where a parameter lies in the flat vector, and how a layer wants to see it.

    Args:
        part: Its slice of the vector.
        shape: As the module has it.
        order: The layer's order of these dimensions: convolutions want channels last.
    """

    part: slice
    shape: tuple[int, ...]
    order: tuple[int, ...]

    def read(self, vectors: torch.Tensor) -> torch.Tensor:
        """A view `(rows, *layer's shape)` of `(parameters,)`, which is one row, or `(rows, parameters)`."""
        rows = vectors[None] if vectors.dim() == 1 else vectors
        return self._ordered(rows[:, self.part].view(rows.shape[0], *self.shape))

    def _ordered(self, values: torch.Tensor) -> torch.Tensor:
        return values.permute(0, *(1 + dimension for dimension in self.order))


class Parameter:
    """A trained tensor: values, and gradients where the update is not fused into the product that makes them."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.values = torch.empty(0)
        """`(clients, *layer's shape)`, contiguous."""
        self.gradients: torch.Tensor | None = None
        """None: products are added to the values at once, times `-rate`."""
        self.rate = 0.0

    def begin(self, block: Block, *, rate: float, is_fused: bool) -> None:
        """Values at the start of the block's training."""
        start = self.place.read(block.start)
        self.values = torch.empty((block.clients, *start.shape[1:])).copy_(start)
        self.gradients = None if is_fused else torch.empty_like(self.values)
        self.rate = rate

    def add_product(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """The gradient is `left @ right`, `(active, m, k) @ (active, k, n)`: steps, or keeps it for the update."""
        active = left.shape[0]
        shape = (active, left.shape[1], right.shape[2])
        if self.gradients is None:
            self.values[:active].view(shape).baddbmm_(left, right, alpha=-self.rate)
        else:
            torch.bmm(left, right, out=self.gradients[:active].view(shape))

    def add(self, gradients: torch.Tensor, *, client: slice) -> None:
        """The gradient of these clients is this."""
        if self.gradients is None:
            self.values[client].add_(gradients, alpha=-self.rate)
        else:
            self.gradients[client].copy_(gradients)

    def write_deltas(self, deltas: torch.Tensor, block: Block, clients: slice) -> None:
        """Writes trained minus start of these clients into their rows, `(clients, parameters)`."""
        start = self.place.read(block.start)
        torch.sub(self.values[clients], start if start.shape[0] == 1 else start[clients], out=self.place.read(deltas))
