"""How good each client's own model is, on what that client holds out: the reason for which clients keep one.

The clients are a sample, the same in every round. Of a strategy without own models it is the shared one that is
measured, so that figures can be compared; a client that never took part has what it would begin with.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.aggregation.rule import Vector
from edge_agent.training.algorithms.algorithm import ClientAlgorithm, Vectors
from edge_agent.training.algorithms.personal import HasPersonalModel
from simulations.keyed import Stream
from simulations.populations.held_out import HeldOutPopulation
from simulations.populations.port import Clients
from simulations.populations.segments import starts
from simulations.problem import Data
from simulations.rounds.evaluation import Evaluator

KeptOf = Callable[[Clients], Vectors]
"""What these clients keep, `(K, ...)` each."""


@dataclass(frozen=True)
class PersonalSample:
    """Clients that are measured, and what on."""

    clients: Clients
    """`(K,)`, each with something held out."""
    rows: NDArray[np.int64]
    """Of the training data, one client's after the other's."""
    sizes: NDArray[np.int64]
    """`(K,)`."""

    @classmethod
    def draw(cls, population: HeldOutPopulation, most: int, *, seed: int) -> "PersonalSample":
        """So many clients at most, of those that hold something out."""
        places = np.arange(min(most, population.clients))
        clients = np.sort(Stream.named(seed, "measured").permuted(places, population.clients))
        held = population.held_out(clients)
        return cls(clients[held.sizes > 0], held.rows, held.sizes[held.sizes > 0])

    def accuracies(
        self, evaluator: Evaluator, data: Data, algorithm: ClientAlgorithm, model: Vector, kept_of: KeptOf
    ) -> NDArray[np.float64]:
        """Each client's, `(K,)`.

        Args:
            evaluator: Of the problem.
            data: The training data, which the rows are of.
            algorithm: Whose models they are.
            model: The shared one.
            kept_of: What clients keep; asked for one after the other, whose models may be large.
        """
        rows = torch.from_numpy(self.rows)
        if not isinstance(algorithm, HasPersonalModel):
            right = evaluator.right(model, Data(data.inputs[rows], data.labels[rows])).numpy()
            return np.add.reduceat(right, starts(self.sizes)) / self.sizes if len(right) else np.zeros(0)
        found = np.zeros(len(self.clients))
        for place, own in enumerate(torch.split(rows, self.sizes.tolist())):
            kept = {name: values[0] for name, values in kept_of(self.clients[place : place + 1]).items()}
            personal = algorithm.personal_model(model, kept)
            found[place] = float(evaluator.right(personal, Data(data.inputs[own], data.labels[own])).mean())
        return found
