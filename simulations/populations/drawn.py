"""A population of any size over one pool of examples: what a client holds is computed when it is asked for.

Client k's size, mixture of classes and examples are pure functions of (seed, k). Setting up costs the pool, asking
costs the cohort, ten million clients cost nothing.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simulations.keyed import Stream
from simulations.partitions.settings import Drawn
from simulations.partitions.shares import Rows
from simulations.populations.port import Clients, Holdings
from simulations.populations.segments import starts, within


class DrawnPopulation:
    """Clients that share examples; none is twice with one client.

    Args:
        settings: Sizes and mixtures.
        labels: Of the pool, `(n,)`.
        clients: How many there are.
        seed: Decides everything that is drawn.
    """

    def __init__(self, settings: Drawn, labels: Rows, *, clients: int, seed: int) -> None:
        self._settings = settings
        self.clients = clients
        # With mixtures the pool lies class by class; without, it is one class.
        self._pool = np.argsort(labels, kind="stable") if settings.alpha else np.arange(len(labels))
        self._class_sizes = np.bincount(labels) if settings.alpha else np.array([len(labels)])
        self._sizes, self._mixtures, self._classes, self._rows = (
            Stream.named(seed, name) for name in ("sizes", "mixtures", "classes", "rows")
        )

    @property
    def notes(self) -> Sequence[str]:
        """A client whose mixture asks for more of a class than there is holds fewer examples."""
        return (f"{self.clients:,} clients share {len(self._pool):,} examples.",)

    def sizes(self, clients: Clients) -> NDArray[np.int64]:
        return self.holdings(clients).sizes if self._settings.alpha else self._wanted(clients)

    def holdings(self, clients: Clients) -> Holdings:
        wanted = self._wanted(clients)
        position = np.repeat(np.arange(len(clients)), wanted)
        label = self._labels(clients, position, within(wanted))
        table = position * len(self._class_sizes) + label
        counts = np.bincount(table, minlength=len(clients) * len(self._class_sizes))
        held = np.minimum(counts.reshape(len(clients), -1), self._class_sizes)
        return Holdings(self._examples(clients, held), held.sum(axis=1))

    def _wanted(self, clients: Clients) -> NDArray[np.int64]:
        median, sigma = self._settings.examples, self._settings.sigma
        sizes = median * np.exp(sigma * self._sizes.normal(clients)) if sigma else np.full(len(clients), median)
        wanted: NDArray[np.int64] = np.clip(np.rint(sizes), 1, len(self._pool)).astype(np.int64)
        return wanted

    def _labels(self, clients: Clients, position: Rows, draw: Rows) -> Rows:
        """A class for each of a client's examples, from its mixture."""
        if self._settings.alpha is None:
            return np.zeros_like(position)
        prior = self._class_sizes / len(self._pool)
        ends = np.cumsum(self._mixtures.dirichlet(self._settings.alpha * prior, clients), axis=1)
        ends[:, -1] = 1.0
        # One search for all clients: client k's mixture lies between k and k + 1.
        chances = position + self._classes.uniform(clients[position], draw)
        found = np.searchsorted((ends + np.arange(len(clients))[:, None]).ravel(), chances)
        labels: Rows = np.minimum(found - position * len(prior), len(prior) - 1)
        return labels

    def _examples(self, clients: Clients, held: Rows) -> Rows:
        """Rows of the pool: for each client and class as many as the table says, by a permutation of its own."""
        counts = held.ravel()
        label = np.repeat(np.tile(np.arange(held.shape[1]), len(held)), counts)
        client = np.repeat(clients, held.sum(axis=1))
        first = starts(self._class_sizes)
        place = self._rows.permuted(within(counts), self._class_sizes[label], client, label)
        rows: Rows = self._pool[first[label] + place]
        return rows
