"""What a population is to everybody else: a number of clients, and the examples of those that are asked for.

Nothing here is as long as the population, so that ten million clients cost what one cohort costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulations.problem import Problem

Clients = NDArray[np.int64]
"""Numbers of clients, `(K,)`, each from 0 and below `Population.clients`."""


@dataclass(frozen=True)
class Holdings:
    """The examples of K clients, one client after the other."""

    rows: NDArray[np.int64]
    """Rows of `Problem.train`, `(examples,)`."""
    sizes: NDArray[np.int64]
    """How many each client holds, `(K,)`; at least 1."""


class Population(Protocol):
    """Who could take part, and what each of them holds; the same whenever it is asked."""

    @property
    def clients(self) -> int:
        """How many there are."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of the results should know about it, one sentence each."""
        ...

    def sizes(self, clients: Clients) -> NDArray[np.int64]:
        """How many examples each of these clients holds, `(K,)`."""
        ...

    def holdings(self, clients: Clients) -> Holdings:
        """Their examples; in the order of `clients`."""
        ...


@dataclass(frozen=True)
class Populated:
    """A problem and who holds it. A partition may change the problem's inputs, as a feature shift does."""

    problem: Problem
    population: Population
