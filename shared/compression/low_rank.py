"""Two thin factors of each large layer travel: PowerSGD (Vogels et al. 2019, arXiv:1905.13727).

A layer's update as a matrix M `(n, m)` becomes P `(n, rank)`, orthonormal, and Q = M^T P `(m, rank)`; the receiver
reads P Q^T, the projection of M onto P's columns. Layers where that would not be fewer numbers travel as they are.

Deviations: a device may be away between rounds, so there is no warm start; a second power iteration takes its place.
Each device sends its own factors, so that nothing is exchanged while they are made.

Guarantees:
    P Q^T is an orthogonal projection of M: what does not travel is never larger than M, so error feedback applies.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from shared.compression.draws import dither
from shared.layout import Layout

if TYPE_CHECKING:
    import torch

ITERATIONS = 2


@dataclass(frozen=True)
class Matrix:
    """One layer that travels as two factors."""

    start: int
    """Where it begins in the vector."""
    rows: int
    columns: int

    @property
    def stop(self) -> int:
        return self.start + self.rows * self.columns

    @property
    def place(self) -> slice:
        return slice(self.start, self.stop)

    def factors(self, rank: int) -> int:
        """Numbers in two factors of this rank."""
        return rank * (self.rows + self.columns)


@dataclass(frozen=True)
class Factoring:
    """How a layout's vectors become factors, and back."""

    layout: Layout
    rank: int

    @cached_property
    def matrices(self) -> tuple[Matrix, ...]:
        """Layers of two or more dimensions for which two factors are fewer numbers."""
        starts = [place.start for place in self.layout.slices.values()]
        layers = [
            Matrix(start, shape[0], math.prod(shape[1:]))
            for start, shape in zip(starts, self.layout.shapes, strict=True)
            if len(shape) >= 2
        ]
        return tuple(layer for layer in layers if layer.factors(self.rank) < layer.rows * layer.columns)

    @property
    def numbers(self) -> int:
        """How many numbers travel."""
        return self.layout.size - sum(one.rows * one.columns - one.factors(self.rank) for one in self.matrices)

    def shrink(self, values: "torch.Tensor", seeds: "torch.Tensor") -> "torch.Tensor":
        """Vectors `(clients, parameters)` as factors, layer by layer, then all else, `(clients, numbers)`."""
        import torch

        parts = []
        for matrix in self.matrices:
            layer = values[:, matrix.place].view(-1, matrix.rows, matrix.columns)
            parts += _factors(layer, rank=self.rank, seeds=seeds)
        return torch.cat([part.flatten(1) for part in parts] + self._rest(values), dim=1)

    def expand(self, numbers: "torch.Tensor") -> "torch.Tensor":
        """The vectors that these numbers stand for, `(clients, parameters)`."""
        values = numbers.new_empty((len(numbers), self.layout.size))
        start = 0
        for matrix in self.matrices:
            middle, stop = start + matrix.rows * self.rank, start + matrix.factors(self.rank)
            left = numbers[:, start:middle].view(-1, matrix.rows, self.rank)
            right = numbers[:, middle:stop].view(-1, matrix.columns, self.rank)
            values[:, matrix.place] = (left @ right.mT).flatten(1)
            start = stop
        for rest in self._rest(values):
            rest.copy_(numbers[:, start : start + rest.shape[1]])
            start += rest.shape[1]
        return values

    def _rest(self, values: "torch.Tensor") -> list["torch.Tensor"]:
        """Views of what lies between the matrices."""
        ends = [
            0,
            *(end for matrix in self.matrices for end in (matrix.start, matrix.stop)),
            values.shape[1],
        ]
        return [values[:, start:stop] for start, stop in zip(ends[::2], ends[1::2], strict=True) if start < stop]


def _factors(matrices: "torch.Tensor", *, rank: int, seeds: "torch.Tensor") -> list["torch.Tensor"]:
    """P and Q of each client's matrix `(clients, n, m)`; where M is zero so is Q."""
    import torch

    right = dither(seeds, 0, matrices.shape[2] * rank).sub_(0.5).view(len(seeds), -1, rank)
    left = right
    for _ in range(ITERATIONS):
        left = torch.linalg.qr(matrices @ right).Q
        right = matrices.mT @ left
    return [left, right]
