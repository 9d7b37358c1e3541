"""Which examples belong together: their gradients are averaged, and the average is clipped once."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Units:
    """A batch's units of privacy. The examples of one unit lie together.

    Example:
        >>> Units.of(np.array([4, 4, 9])).sizes
        (2, 1)
    """

    sizes: tuple[int, ...]
    """Examples of each unit, at least 1, in the batch's order."""

    @classmethod
    def of(cls, numbers: NDArray[np.int64]) -> "Units":
        """From each example's unit, ascending."""
        assert (np.diff(numbers) >= 0).all(), "Expected the examples in the order of their units"
        return cls(tuple(np.unique(numbers, return_counts=True)[1].tolist()))

    @classmethod
    def single(cls, examples: int) -> "Units":
        """Each example is a unit of its own."""
        return cls((1,) * examples)

    @cached_property
    def examples(self) -> int:
        return sum(self.sizes)

    @cached_property
    def equal_size(self) -> int:
        """The size of all units, or 0 where they differ."""
        return self.sizes[0] if len(set(self.sizes)) == 1 else 0

    @cached_property
    def positions(self) -> torch.Tensor:
        """Each example's unit, `(examples,)`, counted from 0."""
        return torch.repeat_interleave(torch.arange(len(self.sizes)), torch.tensor(self.sizes))

    def averages(self, values: torch.Tensor) -> torch.Tensor:
        """`(units, ...)` means of `(examples, ...)`."""
        if self.equal_size:
            return values.reshape(-1, self.equal_size, *values.shape[1:]).mean(dim=1) if self.equal_size > 1 else values
        sums = values.new_zeros(len(self.sizes), *values.shape[1:]).index_add_(0, self.positions, values)
        return sums / torch.tensor(self.sizes, dtype=values.dtype).reshape(-1, *(1,) * (values.dim() - 1))

    def spread(self, factors: torch.Tensor) -> torch.Tensor:
        """`(examples,)`: what each example's gradient counts in a sum of averages times `factors`, `(units,)`."""
        if self.equal_size:
            return factors if self.equal_size == 1 else (factors / self.equal_size).repeat_interleave(self.equal_size)
        return (factors / torch.tensor(self.sizes, dtype=factors.dtype))[self.positions]

    def parts(self, at_once: int) -> Iterator["Part"]:
        """The batch, `at_once` units at a time."""
        end = 0
        for first in range(0, len(self.sizes), at_once):
            units = Units(self.sizes[first : first + at_once])
            start, end = end, end + units.examples
            yield Part(units, slice(start, end))


@dataclass(frozen=True)
class Part:
    """Some units that lie together, and their examples' rows in the batch."""

    units: Units
    rows: slice
