"""What becomes of a cohort's updates, from a client's training to the server's fold.

    algorithm.finish  ->  liars' changes  ->  compression  ->  aggregation.add

The functions are those of the devices and of the coordinator; only who calls them differs. A collector is a value:
engines send it to their worker processes, each collects there, and the folds are added up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from cloud.aggregation.rule import Fold, Updates, Vector
from edge_agent.training.algorithms.algorithm import ClientAlgorithm
from simulations.engines.port import Assignment, Trained
from simulations.rounds.aggregation import Aggregation
from simulations.rounds.sending import RESIDUAL, Channel, Lie, lied, who_confer

Vectors = Mapping[str, Vector]
_AGGREGATION, _KEPT, _CONFERRING = "aggregation/", "kept/", "conferring/"
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
    channel: Channel
    model: Vector
    """As it was sent to most: the newest."""
    received: Vectors
    """Sent beside the model."""
    kept: Vectors
    """What each client of the cohort kept, `(K, ...)` each."""
    weights: torch.Tensor
    """What each update counts, `(K,)` float64."""
    staleness: torch.Tensor
    """Rounds since each client's model was made, `(K,)` float64."""
    learning_rate: float
    """Of the clients' steps in this round."""
    lies: tuple[Lie, ...] = ()
    others: tuple[torch.Tensor, ...] = ()
    """What the clients' other trainings changed, `(K, parameters)` each."""

    def begin(self, assignment: Assignment) -> Fold:
        per_client = self.weights.new_zeros(len(assignment))
        fold = {ACCEPTED: per_client, LOSSES: per_client.clone(), NORMS: per_client.clone()}
        begun = self.aggregation.begin(self.model, self.received, len(assignment))
        fold |= {_AGGREGATION + name: value for name, value in begun.items()}
        if bool(who_confer(self.lies, len(assignment)).any()):
            fold[_CONFERRING + "deltas"] = self.model.new_zeros(len(assignment), len(self.model))
            fold[_CONFERRING + "start_losses"] = per_client.clone()
        return fold | {_KEPT + name: torch.zeros_like(rows) for name, rows in self.kept.items()}

    def add(self, fold: Fold, assignment: Assignment, trained: Trained) -> None:
        norms = torch.linalg.vector_norm(trained.deltas, dim=1)
        finite = torch.isfinite(norms)
        if not bool(finite.all()):
            # The coordinator refuses such an update too; the client keeps what it had.
            trained, norms = _only(trained, finite), norms[finite]
        positions = trained.positions
        fold[ACCEPTED][positions] = 1.0
        fold[LOSSES][positions] = trained.losses.to(fold[LOSSES])
        fold[NORMS][positions] = norms.to(fold[NORMS])
        self._pass_on(fold, assignment, self._without_conferring(fold, assignment, trained))

    def complete(self, fold: Fold, assignment: Assignment) -> None:
        """Once all have trained: what liars send who wait for each other."""
        confer = who_confer(self.lies, len(assignment)) & (fold[ACCEPTED] > 0).cpu()
        positions = confer.nonzero()[:, 0]
        if len(positions):
            deltas, losses = (fold[_CONFERRING + name][positions] for name in ("deltas", "start_losses"))
            self._pass_on(fold, assignment, Trained(positions, deltas, losses, losses))

    def _without_conferring(self, fold: Fold, assignment: Assignment, trained: Trained) -> Trained:
        """The others; what those trained who confer is put aside."""
        confer = who_confer(self.lies, len(assignment))[trained.positions]
        if not bool(confer.any()):
            return trained
        aside = _only(trained, confer)
        fold[_CONFERRING + "deltas"][aside.positions] = aside.deltas
        fold[_CONFERRING + "start_losses"][aside.positions] = aside.start_losses.to(fold[ACCEPTED])
        return _only(trained, ~confer)

    def _pass_on(self, fold: Fold, assignment: Assignment, trained: Trained) -> None:
        """From what clients learned to what the cloud adds."""
        if not len(positions := trained.positions):
            return
        seeds = assignment.seeds[positions]
        done = self.algorithm.finish(
            self.model,
            self.received,
            {name: rows[positions] for name, rows in self.kept.items() if name != RESIDUAL},
            (trained.deltas, *(rows[positions] for rows in self.others)),
            steps=assignment.steps[positions].to(trained.deltas.device),
            learning_rate=self.learning_rate,
        )
        for name, rows in done.kept.items():
            fold[_KEPT + name][positions] = rows
        residuals = self.kept[RESIDUAL][positions] if RESIDUAL in self.kept else None
        deltas = lied(done.delta, positions, self.lies, seeds)
        received, residuals = self.channel.received(deltas, residuals, seeds.to(deltas.device))
        if residuals is not None:
            fold[_KEPT + RESIDUAL][positions] = residuals
        updates = Updates(
            deltas=received,
            weights=self.weights[positions],
            steps=assignment.steps[positions].double(),
            losses=trained.start_losses,
            staleness=self.staleness[positions],
            extras=self.channel.received_beside(done.extras, seeds.to(deltas.device)),
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
    here = chosen.to(trained.positions.device)
    return replace(
        trained,
        positions=trained.positions[here],
        deltas=trained.deltas[chosen.to(trained.deltas.device)],
        losses=trained.losses[chosen.to(trained.losses.device)],
        start_losses=trained.start_losses[chosen.to(trained.start_losses.device)],
    )
