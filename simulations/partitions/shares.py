"""A partition as a value: which client holds which examples, each example held once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.partitions.errors import ImpossiblePartitionError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Shares:
    """Client k holds `rows[offsets[k]:offsets[k + 1]]`."""

    rows: Rows
    """A permutation of all examples, `(n,)`."""
    offsets: Rows
    """`(clients + 1,)`, from 0 to n."""

    @property
    def clients(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Rows:
        return np.diff(self.offsets)

    def of(self, client: int) -> Rows:
        """One client's examples."""
        return self.rows[self.offsets[client] : self.offsets[client + 1]]

    def owners(self) -> Rows:
        """Which client holds each example, `(n,)`."""
        owners = np.empty_like(self.rows)
        owners[self.rows] = np.repeat(np.arange(self.clients), self.sizes)
        return owners


def shares_by_size(rows: Rows, sizes: Rows) -> Shares:
    """The first `sizes[0]` rows to client 0, the next to client 1, and so on."""
    return Shares(rows, np.concatenate([[0], np.cumsum(sizes)]))


def shares_by_owner(owners: Rows, *, clients: int) -> Shares:
    """Each example to its owner; a client's examples in ascending order."""
    return shares_by_size(np.argsort(owners, kind="stable"), np.bincount(owners, minlength=clients))


def even_sizes(examples: int, clients: int) -> Rows:
    """As equal as whole numbers allow; the first clients hold one more."""
    return np.full(clients, examples // clients) + (np.arange(clients) < examples % clients)


def check_enough(examples: int, clients: int, *, each: int = 1) -> None:
    """Raises ImpossiblePartitionError where the clients cannot all get so many."""
    if clients < 1:
        raise ImpossiblePartitionError(f"Expected at least one client, got {clients}")
    if examples < clients * each:
        raise ImpossiblePartitionError(
            f"Expected at least {each} for each of {clients} clients, got {examples} examples",
            hint=f"Ask for at most {examples // each} clients, or let clients share examples: "
            'partition = { kind = "drawn" }.',
        )
