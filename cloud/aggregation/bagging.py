"""Federated XGBoost by bagging: every client boosts from the same ensemble, the server appends all their new trees.

As Flower's `FedXgbBagging` (flwr 1.41), which cites no paper: the boosting is Chen and Guestrin's (2016,
arXiv:1603.02754), and bagging Breiman's (1996), with each client's data in the place of a bootstrap sample. Beyond
Flower's: all trees of a client that boosts several steps are taken (Flower takes the first `num_parallel_tree`, and no
others), classes may be more than two, and `is_averaged` lets a round's trees count as one step.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from cloud.aggregation.errors import NothingToAggregateError
from shared.trees.ensemble import Ensemble, joined


@dataclass(frozen=True)
class Bagging:
    """What a round adds to the ensemble; a value of settings."""

    is_averaged: bool = False
    """Each leaf is divided by the number of clients, as XGBoost does with `num_parallel_tree`: a round's step is as
    long as the learning rate says. Otherwise it grows with the cohort, and a large one needs a small learning rate."""

    def appended(self, updates: Iterable[Ensemble]) -> Ensemble:
        """What goes behind the model: the trees of all updates, in their order; each update is read once.

        Memory is that of the next model, which holds every tree of them. Raises NothingToAggregateError.
        """
        grown = list(updates)
        if not grown:
            raise NothingToAggregateError("Expected trees of one client at least, got none")
        if self.is_averaged:
            grown = [each.scaled(1 / len(grown)) for each in grown]
        return joined(grown)
