"""The compression that secure aggregation admits: one mask of random positions for a whole cohort, known beforehand.

The server may see the sum of what devices send and nothing of any one of them, so what they send must add up: the same
positions for all, and no scale of a device's own. Random-k with the round's seed is linear; the values then become
fixed-point words (`shared.secagg.fixed_point`), whose format is the cohort's.

    mask = SharedMask.of(compression, parameters=layout.size, seed=mask_seed(round_id))
    values = mask.restricted(delta + residual)          # a device; residual = corrected - mask.expanded(values)
    delta = mask.expanded(total / clients)              # the server

Guarantees:
    For any vectors x and y: restricted(x) + restricted(y) = restricted(x + y), and expanded likewise (to rounding).
    Positions depend on the seed alone, so they say nothing about anybody's data.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from shared.compression import random_k
from shared.compression.draws import seed_tensor
from shared.compression.errors import UnknownCompressionError
from shared.compression.settings import Compression, Number, Travels

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SharedMask:
    """Which positions of a round's updates travel."""

    parameters: int
    k: int
    seed: int
    """The round's, the same for all devices; whoever chooses it must not know the updates."""

    @classmethod
    def of(cls, compression: Compression, *, parameters: int, seed: int) -> "SharedMask":
        """The mask of a compression; all positions where all numbers travel. Raises UnknownCompressionError."""
        if not is_linear(compression):
            raise UnknownCompressionError(
                f"Expected a compression that adds up, got {compression}: {why_not_linear(compression)}",
                hint="Under secure aggregation: random-k=0.05, or none.",
            )
        return cls(parameters, compression.numbers_of(parameters), seed)

    def restricted(self, vectors: "torch.Tensor") -> "torch.Tensor":
        """What travels of vectors, `(..., parameters)` to `(..., k)`."""
        return vectors[..., self._positions.to(vectors.device)]

    def expanded(self, values: "torch.Tensor") -> "torch.Tensor":
        """The vectors of these values, zero where nothing travelled, `(..., k)` to `(..., parameters)`."""
        vectors = values.new_zeros((*values.shape[:-1], self.parameters))
        vectors[..., self._positions.to(values.device)] = values
        return vectors

    @cached_property
    def _positions(self) -> "torch.Tensor":
        return random_k.positions(seed_tensor(self.seed), k=self.k, parameters=self.parameters)[0]


def mask_seed(round_id: str) -> int:
    """The round's seed: it follows from the round's name, which is decided before anybody trains."""
    return int.from_bytes(hashlib.sha256(f"mask {round_id}".encode()).digest()[:8], "little")


def is_linear(compression: Compression) -> bool:
    """Whether sums of what is sent mean anything."""
    return not why_not_linear(compression)


def why_not_linear(compression: Compression) -> str:
    """What in it is each device's own; empty where nothing is."""
    reasons = {
        Travels.TOP_K: "each device's own positions would travel, and tell of its data",
        Travels.LOW_RANK: "each device has factors of its own, and products do not add up",
    }
    if compression.travels in reasons:
        return reasons[compression.travels]
    if compression.number is not Number.FLOAT32:
        return "each block has a scale of its device's own; the fixed-point format of the sum decides the bits"
    return ""
