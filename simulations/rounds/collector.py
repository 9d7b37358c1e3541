"""What becomes of a cohort's updates: the client's algorithm ends its round, then the server's rule folds what came.

The functions are those of the devices and of the coordinator; only who calls them differs. A value: engines send it to
their worker processes, each collects there, and the folds are added up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from cloud.aggregation.rule import Fold, Updates, Vector
from edge_agent.training.algorithms.algorithm import ClientAlgorithm
from simulations.engines.port import Assignment, Trained
from simulations.rounds.aggregation import Aggregation

Vectors = Mapping[str, Vector]
_AGGREGATION, _KEPT = "aggregation/", "kept/"
ACCEPTED, LOSSES, NORMS, DELTAS = "accepted", "losses", "norms", "deltas"


@dataclass(frozen=True)
class DeltaCollector:
    """Keeps every update as it is, `(K, parameters)`: for trainings whose result stays with the client."""

    def begin(self, assignment: Assignment) -> Fold:
        return {DELTAS: assignment.start.new_zeros(len(assignment), assignment.start.shape[-1])}

    def add(self, fold: Fold, assignment: Assignment, trained: Trained) -> None:
        fold[DELTAS][trained.positions] = trained.deltas


@dataclass(frozen=True)
class RoundCollector:
    """The training whose update is for the cloud."""

    aggregation: Aggregation
    algorithm: ClientAlgorithm
    model: Vector
    """As it was sent."""
    received: Vectors
    """Sent beside the model."""
    kept: Vectors
    """What each client of the cohort kept, `(K, ...)` each."""
    weights: torch.Tensor
    """What each update counts, `(K,)` float64."""
    learning_rate: float
    """Of the clients' steps in this round."""
    others: tuple[torch.Tensor, ...] = field(default=())
    """What the clients' other trainings changed, `(K, parameters)` each."""

    def begin(self, assignment: Assignment) -> Fold:
        per_client = self.weights.new_zeros(len(assignment))
        fold = {ACCEPTED: per_client, LOSSES: per_client.clone(), NORMS: per_client.clone()}
        fold |= {
            _AGGREGATION + name: value for name, value in self.aggregation.begin(self.model, len(assignment)).items()
        }
        return fold | {_KEPT + name: torch.zeros_like(value) for name, value in self.kept.items()}

    def add(self, fold: Fold, assignment: Assignment, trained: Trained) -> None:
        norms = torch.linalg.vector_norm(trained.deltas, dim=1)
        if not bool(torch.isfinite(norms).all()):
            # The coordinator refuses such an update too; the client keeps what it had.
            trained, norms = _only(trained, torch.isfinite(norms)), norms[torch.isfinite(norms)]
        if len(trained.positions):
            self._add_finite(fold, assignment, trained)
        fold[ACCEPTED][trained.positions] = 1.0
        fold[LOSSES][trained.positions] = trained.losses
        fold[NORMS][trained.positions] = norms.double()

    def _add_finite(self, fold: Fold, assignment: Assignment, trained: Trained) -> None:
        positions = trained.positions
        done = self.algorithm.finish(
            self.model,
            self.received,
            {name: rows[positions] for name, rows in self.kept.items()},
            (trained.deltas, *(rows[positions] for rows in self.others)),
            steps=assignment.steps[positions],
            learning_rate=self.learning_rate,
        )
        for name, rows in done.kept.items():
            fold[_KEPT + name][positions] = rows
        updates = Updates(
            deltas=done.delta,
            weights=self.weights[positions],
            steps=assignment.steps[positions].double(),
            losses=trained.start_losses,
            staleness=torch.zeros_like(self.weights[positions]),
            extras=done.extras,
        )
        inner = _part(fold, _AGGREGATION)
        self.aggregation.add(inner, positions, updates)
        fold.update({_AGGREGATION + name: value for name, value in inner.items()})


def aggregated(fold: Fold) -> Fold:
    """The aggregation's own part of a collector's fold."""
    return _part(fold, _AGGREGATION)


def kept_rows(fold: Fold) -> Fold:
    """What the clients keep now, `(K, ...)`; rows of clients that were not accepted mean nothing."""
    return _part(fold, _KEPT)


def _part(fold: Fold, prefix: str) -> Fold:
    return {name.removeprefix(prefix): value for name, value in fold.items() if name.startswith(prefix)}


def _only(trained: Trained, chosen: torch.Tensor) -> Trained:
    return Trained(
        trained.positions[chosen], trained.deltas[chosen], trained.losses[chosen], trained.start_losses[chosen]
    )
