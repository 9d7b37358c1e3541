"""What happens to an update between a client's training and the cloud: liars change it, and it is compressed.

The lies are `simulations.attacks`', the codec is the one that devices write to the wire with.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from shared.compression.codec import Codec
from shared.compression.error_feedback import round_trip_with_feedback
from shared.compression.settings import Compression
from shared.layout import Layout
from simulations.attacks.updates import ALittle, UpdateAttack

Vectors = Mapping[str, torch.Tensor]
RESIDUAL = "compression"
"""What did not travel, among what clients keep."""


@dataclass(frozen=True)
class Lie:
    """One attack on updates, and who commits it."""

    attack: UpdateAttack
    is_liar: torch.Tensor
    """`(K,)` bool."""


@dataclass(frozen=True)
class Channel:
    """How updates of one model are written."""

    codec: Codec
    beside: Codec
    """For vectors that travel with the update: whole, in the same kind of numbers."""

    @classmethod
    def of(cls, compression: Compression, layout: Layout) -> "Channel":
        flat = Layout(("vector",), ((layout.size,),))
        return cls(Codec(compression, layout), Codec(Compression(number=compression.number), flat))

    @property
    def keeps_residual(self) -> bool:
        return self.codec.compression.has_feedback

    def bytes_up(self, vectors_beside: int) -> int:
        """Of one client's update."""
        return self.codec.size_bytes + vectors_beside * self.beside.size_bytes

    def received(
        self, deltas: torch.Tensor, residuals: torch.Tensor | None, seeds: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the cloud decodes, `(k, parameters)`, and what clients keep of the rest."""
        if residuals is None:
            return self.codec.round_trip(deltas, seeds), None
        return round_trip_with_feedback(self.codec, deltas, residuals, seeds)

    def received_beside(self, extras: Vectors, seeds: torch.Tensor) -> Vectors:
        """Vectors beside the update as the cloud decodes them."""
        if self.beside.compression.is_lossless:
            return extras
        # Another purpose, other draws.
        return {name: self.beside.round_trip(rows, ~seeds) for name, rows in extras.items()}


def lied(deltas: torch.Tensor, positions: torch.Tensor, lies: tuple[Lie, ...], seeds: torch.Tensor) -> torch.Tensor:
    """The updates `(k, parameters)` of the clients at these positions, liars' rows changed."""
    for lie in lies:
        rows = lie.is_liar[positions].nonzero()[:, 0]
        if len(rows):
            deltas = deltas.clone()
            deltas[rows] = lie.attack.lies(deltas[rows], seeds[rows].tolist())
    return deltas


def who_confer(lies: tuple[Lie, ...], clients: int) -> torch.Tensor:
    """Liars who must see each other's updates before any of them sends its own, `(K,)` bool."""
    confer = torch.zeros(clients, dtype=torch.bool)
    for lie in lies:
        if isinstance(lie.attack, ALittle):
            confer |= lie.is_liar
    return confer
