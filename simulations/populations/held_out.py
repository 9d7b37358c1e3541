"""Clients that keep some of their examples to themselves: what their own models are measured on, and never trained on.

Which ones is a pure function of (seed, client), like everything about a population.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simulations.keyed import Stream
from simulations.populations.port import Clients, Holdings, Population
from simulations.populations.segments import within


class HeldOutPopulation:
    """Another population, whose clients train on what they do not hold out; at least one example each.

    Args:
        inner: Who holds what.
        fraction: Of each client's examples, held out; rounded down.
        seed: Decides which.
    """

    def __init__(self, inner: Population, fraction: float, *, seed: int) -> None:
        self._inner, self._fraction = inner, fraction
        self._order = Stream.named(seed, "held out")

    @property
    def clients(self) -> int:
        return self._inner.clients

    @property
    def notes(self) -> Sequence[str]:
        return (
            *self._inner.notes,
            f"Each client holds out {self._fraction:.0%} of its examples for its own accuracy.",
        )

    def sizes(self, clients: Clients) -> NDArray[np.int64]:
        sizes = self._inner.sizes(clients)
        return sizes - self._held(sizes)

    def holdings(self, clients: Clients) -> Holdings:
        """What they train on."""
        all_of_it, is_held = self._split(clients)
        return Holdings(all_of_it.rows[~is_held], all_of_it.sizes - self._held(all_of_it.sizes))

    def held_out(self, clients: Clients) -> Holdings:
        """What they are measured on; a client with too few examples has none."""
        all_of_it, is_held = self._split(clients)
        return Holdings(all_of_it.rows[is_held], self._held(all_of_it.sizes))

    def _held(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        held: NDArray[np.int64] = np.minimum((sizes * self._fraction).astype(np.int64), sizes - 1)
        return held

    def _split(self, clients: Clients) -> tuple[Holdings, NDArray[np.bool_]]:
        held = self._inner.holdings(clients)
        owner = np.repeat(np.arange(len(clients)), held.sizes)
        order = np.lexsort((self._order.bits(clients[owner], held.rows), owner))
        is_held = np.zeros(len(held.rows), np.bool_)
        # Segments stay in their places: a position in the sorted order is one of the same client's.
        is_held[order] = within(held.sizes) < np.repeat(self._held(held.sizes), held.sizes)
        return held, is_held
