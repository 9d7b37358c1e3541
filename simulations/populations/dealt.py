"""A population that a partition made: every example with one client."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simulations.partitions.shares import Shares
from simulations.populations.port import Clients, Holdings
from simulations.populations.segments import within


class DealtPopulation:
    """Looks examples up; its memory is the data's number of rows."""

    def __init__(self, shares: Shares, *, notes: Sequence[str] = ()) -> None:
        self._shares = shares
        self.notes = notes

    @property
    def clients(self) -> int:
        return self._shares.clients

    def sizes(self, clients: Clients) -> NDArray[np.int64]:
        return self._shares.offsets[clients + 1] - self._shares.offsets[clients]

    def holdings(self, clients: Clients) -> Holdings:
        sizes = self.sizes(clients)
        places = np.repeat(self._shares.offsets[clients], sizes) + within(sizes)
        return Holdings(self._shares.rows[places], sizes)
