"""What one layer's parameter adds to each example's gradient, in the smallest form that norms and sums follow from.

The gradients themselves where they are small (`Rows`, `Slopes`), products (`Outer`, `Products`), unfolded products
(`Convolved`), and rows looked up (`Lookups`). Each answers the same three questions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from edge_agent.training.clipping.products import is_direct, row_squares, sequence_squared_norms, weighted_sum
from edge_agent.training.clipping.units import Units

_BLOCK_NUMBERS = 1 << 20
"""About as many numbers are unfolded at a time: a block stays in the cache, and is never given back to the system."""


class Contribution(Protocol):
    """One parameter's part of all examples' gradients."""

    def squared_norms(self, units: Units) -> torch.Tensor:
        """`(units,)`: of each unit's average gradient."""
        ...

    def sum_into(self, total: torch.Tensor, weights: torch.Tensor) -> None:
        """Writes the sum of gradients times `weights`, `(examples,)`; `total` has the parameter's shape."""
        ...

    def rows(self) -> torch.Tensor:
        """`(examples, *shape)`: the gradients themselves."""
        ...


@dataclass(frozen=True)
class Rows:
    """Gradients as they are, `(examples, *shape)`."""

    gradients: torch.Tensor

    def squared_norms(self, units: Units) -> torch.Tensor:
        norms: torch.Tensor = torch.linalg.vector_norm(units.averages(self.gradients).flatten(1), dim=1)
        return norms.square()

    def sum_into(self, total: torch.Tensor, weights: torch.Tensor) -> None:
        torch.mm(weights[None], self.gradients.flatten(1), out=total.view(1, -1))

    def rows(self) -> torch.Tensor:
        return self.gradients


@dataclass(frozen=True)
class Slopes:
    """A dense layer's bias where examples have no tokens: its gradients are the outputs', `(examples, out)`."""

    gradients: torch.Tensor

    @cached_property
    def squared(self) -> torch.Tensor:
        """`(examples,)`: of each gradient alone. The weight needs it too."""
        return row_squares(self.gradients)

    def squared_norms(self, units: Units) -> torch.Tensor:
        return self.squared if units.equal_size == 1 else Rows(self.gradients).squared_norms(units)

    def sum_into(self, total: torch.Tensor, weights: torch.Tensor) -> None:
        torch.mv(self.gradients.mT, weights, out=total)

    def rows(self) -> torch.Tensor:
        return self.gradients


@dataclass(frozen=True)
class Outer:
    """A dense layer's weight where examples have no tokens: activations `(examples, in)`, and the outputs' slopes."""

    activations: torch.Tensor
    slopes: Slopes

    def squared_norms(self, units: Units) -> torch.Tensor:
        if units.equal_size == 1:
            return row_squares(self.activations).mul_(self.slopes.squared)
        return self.products().squared_norms(units)

    def sum_into(self, total: torch.Tensor, weights: torch.Tensor) -> None:
        weighted_sum(self.activations, self.slopes.gradients, weights, out=total)

    def rows(self) -> torch.Tensor:
        return self.products().rows()

    def products(self) -> "Products":
        """The same, each example a sequence of one token."""
        return Products(self.activations[:, None], self.slopes.gradients[:, None])


@dataclass(frozen=True)
class Products:
    """A dense layer's weight: activations `(examples, tokens, in)`, output gradients `(examples, tokens, out)`."""

    activations: torch.Tensor
    gradients: torch.Tensor

    def squared_norms(self, units: Units) -> torch.Tensor:
        """A unit is a longer sequence: its average gradient is the sum over all of its tokens, by its size."""
        if size := units.equal_size:
            return sequence_squared_norms(_joined(self.activations, size), _joined(self.gradients, size)) / size**2
        sizes = list(units.sizes)
        pairs = zip(torch.split(self.activations, sizes), torch.split(self.gradients, sizes), strict=True)
        norms = torch.stack([sequence_squared_norms(a.flatten(0, 1), b.flatten(0, 1)) for a, b in pairs])
        return norms / torch.tensor(units.sizes, dtype=norms.dtype).square()

    def sum_into(self, total: torch.Tensor, weights: torch.Tensor) -> None:
        tokens = weights.repeat_interleave(self.activations.shape[1]) if self.activations.shape[1] > 1 else weights
        weighted_sum(self.activations.flatten(0, 1), self.gradients.flatten(0, 1), tokens, out=total)

    def rows(self) -> torch.Tensor:
        return self.gradients.mT @ self.activations


@dataclass(frozen=True)
class Convolved:
    """A convolution's weight, where even one example's gradient is larger than what it is made of.

    Args:
        inputs: `(examples, channels, ...)`, padded.
        gradients: `(examples, out, ...)`.
        unfold: Some of the inputs to `(examples, tokens, in)`: the patch that each output position saw.
        sum_weights: Some inputs and gradients to the weight's gradient, summed over examples.
    """

    inputs: torch.Tensor
    gradients: torch.Tensor
    unfold: Callable[[torch.Tensor], torch.Tensor]
    sum_weights: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def squared_norms(self, units: Units) -> torch.Tensor:
        """A few units at a time, so that no more than those are ever unfolded."""
        norms = []
        for part in units.parts(self._units_at_once(units)):
            block = Products(self.unfold(self.inputs[part.rows]), self.gradients[part.rows].flatten(2).mT)
            norms.append(block.squared_norms(part.units))
        return torch.cat(norms)

    def sum_into(self, total: torch.Tensor, weights: torch.Tensor) -> None:
        scaled = self.gradients * weights.reshape(-1, *(1,) * (self.gradients.dim() - 1))
        total.copy_(self.sum_weights(self.inputs, scaled))

    def rows(self) -> torch.Tensor:
        one_by_one = zip(torch.split(self.inputs, 1), torch.split(self.gradients, 1), strict=True)
        return torch.stack([self.sum_weights(inputs, gradients) for inputs, gradients in one_by_one])

    def _units_at_once(self, units: Units) -> int:
        numbers = self.unfold(self.inputs[:1]).numel() * max(units.sizes)
        return max(1, _BLOCK_NUMBERS // numbers)


@dataclass(frozen=True)
class Lookups:
    """An embedding: indices `(examples, tokens)`, output gradients `(examples, tokens, width)`."""

    indices: torch.Tensor
    gradients: torch.Tensor
    entries: int

    def squared_norms(self, units: Units) -> torch.Tensor:
        """Gradients of one entry in one unit add up before they are squared."""
        tokens = self.indices.shape[1]
        unit = units.positions[:, None].expand(-1, tokens)
        keys, place = torch.unique(unit * self.entries + self.indices, return_inverse=True)
        weights = units.spread(self.gradients.new_ones(len(units.sizes)))
        sums = self.gradients.new_zeros(len(keys), self.gradients.shape[2])
        sums.index_add_(0, place.flatten(), (self.gradients * weights[:, None, None]).flatten(0, 1))
        norms = self.gradients.new_zeros(len(units.sizes))
        return norms.index_add_(0, keys // self.entries, sums.square().sum(dim=1))

    def sum_into(self, total: torch.Tensor, weights: torch.Tensor) -> None:
        scaled = (self.gradients * weights[:, None, None]).flatten(0, 1)
        total.zero_().index_add_(0, self.indices.flatten(), scaled)

    def rows(self) -> torch.Tensor:
        rows = self.gradients.new_zeros(len(self.indices), self.entries, self.gradients.shape[2])
        places = self.indices[:, :, None].expand_as(self.gradients)
        return rows.scatter_add_(1, places, self.gradients)


def merged(parts: list[Contribution]) -> Contribution:
    """One contribution of a parameter that was used several times, as weights of a recurrent cell are.

    The norm of a sum is not the sum of norms: uses in products are one longer sequence, others add up as rows.
    """
    if len(parts) == 1:
        return parts[0]
    sequences = [part.products() if isinstance(part, Outer) else part for part in parts]
    products = [part for part in sequences if isinstance(part, Products)]
    if len(products) == len(parts):
        activations = torch.cat([part.activations for part in products], dim=1)
        return Products(activations, torch.cat([part.gradients for part in products], dim=1))
    return Rows(torch.stack([part.rows() for part in parts]).sum(dim=0))


def smallest(products: Products) -> Contribution:
    """The gradients themselves where they are no larger than activations and output gradients."""
    _, tokens, inputs = products.activations.shape
    is_small = is_direct(tokens, inputs=inputs, outputs=products.gradients.shape[2])
    return Rows(products.rows()) if is_small else products


def _joined(tokens: torch.Tensor, size: int) -> torch.Tensor:
    """`(examples, tokens, width)` with the tokens of every `size` examples in one row."""
    return tokens.reshape(-1, size * tokens.shape[1], tokens.shape[2])
