"""What an engine does: it trains a cohort as it was assigned, and hands the updates on, block by block.

Everything that is a decision was made before: who takes part, which examples are in which batch, where training starts.
An engine only computes, so all engines compute the same, to float tolerance. What becomes of the updates (attack,
compression, clipping, aggregation) is the collector's business; engines that train in several processes collect in
each and add up the folds, so that updates need not travel.

Dropout and noise draw from each client's own seed; engines that cannot draw the same numbers as the reference (CUDA,
stacked dropout) draw others of the same distribution, and say so in `Engine.notes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from cloud.aggregation.rule import Fold
from edge_agent.training.algorithms.alternation import Alternation


@dataclass(frozen=True)
class Sgd:
    """`v <- momentum * v + g`, `w <- w - learning_rate * v`; g includes `weight_decay * w`. As torch.optim.SGD."""

    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba 2015, as torch.optim.Adam. Moments are fresh in every round."""

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0


@dataclass(frozen=True)
class ExamplePrivacy:
    """Example-level DP-SGD inside a client (Abadi et al. 2016): each example's gradient clipped, the sum noised.

    The step is `(sum of clipped gradients + noise_multiplier * max_grad_norm * N(0, 1)) / expected_batch`.
    """

    max_grad_norm: float
    noise_multiplier: float
    expected_batch: float


@dataclass(frozen=True)
class LocalTraining:
    """How every client trains in every round of a run."""

    optimizer: Sgd | Adam
    privacy: ExamplePrivacy | None = None
    proximal: float = 0.0
    """FedProx's mu: `proximal * (w - start)` is added to each gradient."""
    alternation: Alternation | None = None
    """Steps that take turns on parts of the model (FedRep). Engines without it refuse, and say so."""
    wants_start_loss: bool = False
    """Whether the mean loss of the starting model on the client's batches is needed (q-FedAvg, Oort)."""


@dataclass(frozen=True)
class Assignment:
    """One round's work for K clients."""

    clients: torch.Tensor
    """Their numbers in the population, `(K,)` int64."""
    batches: torch.Tensor
    """Rows of `Problem.train` in each step's batch, `(K, steps, batch)` int64; -1 is padding, at a batch's end."""
    steps: torch.Tensor
    """Steps each client takes, `(K,)` int64; later ones in `batches` are padding. A private step may be empty."""
    start: torch.Tensor
    """The model each starts from: `(parameters,)` for all, or `(K, parameters)`."""
    learning_rate_factor: float = 1.0
    """Times the optimizer's learning rate, in this round."""
    linear: torch.Tensor | None = None
    """Added to each gradient: `(parameters,)` or `(K, parameters)` (SCAFFOLD's and FedDyn's corrections)."""
    seeds: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """One for each client, `(K,)` int64: noise and dropout."""

    def __len__(self) -> int:
        return len(self.clients)


@dataclass(frozen=True)
class Trained:
    """What some clients of an assignment made of it."""

    positions: torch.Tensor
    """Which rows of the assignment these are, `(k,)` int64."""
    deltas: torch.Tensor
    """Trained minus start, `(k, parameters)` float32. The engine may use the memory again after `Collector.add`."""
    losses: torch.Tensor
    """Mean over the steps of each batch's mean loss before the step, `(k,)` float64."""
    start_losses: torch.Tensor
    """`(k,)` float64: NaN unless wanted."""


class Collector(Protocol):
    """What becomes of updates. Folds of disjoint clients add up, tensor by tensor, to the fold of all of them."""

    def begin(self, assignment: Assignment) -> Fold: ...
    def add(self, fold: Fold, assignment: Assignment, trained: Trained) -> None: ...


@runtime_checkable
class RemembersChoices(Protocol):
    """An engine whose way to compute was measured: another way gives other last bits."""

    def remember_in(self, file: Path) -> None:
        """Computes as the file says, and writes there what it chooses: a resumed run goes on to the same bits."""
        ...


class Engine(Protocol):
    """Trains cohorts of one problem under one `LocalTraining`."""

    @property
    def notes(self) -> Sequence[str]:
        """What it chose and why, and where it differs from the reference; one sentence each."""
        ...

    def train(self, assignment: Assignment, collector: Collector) -> Fold:
        """The fold of all clients' updates; a client that diverged has NaN in its own row, and in no other."""
        ...

    def close(self) -> None:
        """Ends worker processes; an engine that has none does nothing."""
        ...
