"""What a strategy is, in arithmetic: a rule folds updates as they come, and ends in the next model.

A rule is a frozen value of settings. All that changes is in its arguments: `State` lives from round to round (a server
optimizer's moments), `Fold` from the first update of a round to its last. Both are dictionaries of tensors, so that
storing one is storing tensors. Both stay on the model's device; only single numbers that a rule must look at stay with
the CPU, as do an update's weights, so that on a GPU nothing waits.

    state = rule.init(model)
    fold = rule.begin(model, rule.sent(state))
    rule.add(fold, updates)            # as often as updates come: one client at a time, or a thousand
    model, state = rule.finish(model, state, fold)

Streaming rules need memory for one model, whatever the cohort. Robust rules must see all updates side by side; they
read them column by column (`Rows`), from disk or from memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import torch

Vector = torch.Tensor
"""A model's trained parameters, `(parameters,)` float32, in the order of a `shared.layout.Layout`."""
NOTHING: Mapping[str, Vector] = MappingProxyType({})
State = dict[str, torch.Tensor]
Fold = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Updates:
    """Some clients' updates of one round, one row each."""

    deltas: torch.Tensor
    """What training changed: trained minus sent, `(clients, parameters)` float32."""
    weights: torch.Tensor
    """What each counts, usually its number of examples, `(clients,)` float64."""
    steps: torch.Tensor
    """Optimizer steps each took, `(clients,)` float64."""
    losses: torch.Tensor
    """Mean loss of the model as it was sent, on each client's data, `(clients,)` float64; NaN where nobody asked."""
    staleness: torch.Tensor
    """Model versions made since each client got its own, `(clients,)` float64; 0 in a synchronous round."""
    extras: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """What a client algorithm sends beside the update, `(clients, parameters)` each."""


class Rule(Protocol):
    """A streaming rule. Two folds of one round may be added tensor by tensor: that is the fold of all their updates."""

    def init(self, model: Vector) -> State:
        """The state before the first round."""
        ...

    def sent(self, state: State) -> Mapping[str, Vector]:
        """Vectors that clients get beside the model; none for most."""
        ...

    def begin(self, model: Vector, sent: Mapping[str, Vector] = NOTHING) -> Fold:
        """A fold of no updates: zeros, except for what the rule needs of `sent` while updates come."""
        ...

    def add(self, fold: Fold, updates: Updates) -> None:
        """Adds the updates to the fold, in place."""
        ...

    def finish(self, model: Vector, state: State, fold: Fold) -> tuple[Vector, State]:
        """The next model and state; the arguments stay as they are.

        Raises:
            NothingToAggregateError: The fold is empty, or its weights sum to nothing.
        """
        ...


class Rows(Protocol):
    """All updates of a round side by side, read in blocks of columns: a model may be larger than memory allows."""

    @property
    def clients(self) -> int: ...
    @property
    def parameters(self) -> int: ...

    def columns(self, start: int, stop: int) -> torch.Tensor:
        """These parameters of every update, `(clients, stop - start)` float32; may be a view, never written to."""
        ...


@dataclass(frozen=True)
class Combined:
    """What a robust rule made of the rows."""

    delta: Vector
    """The update to apply, `(parameters,)`."""
    scores: torch.Tensor
    """How unlike the others each client is, `(clients,)`, higher is stranger; what it measures is the rule's."""
    used: torch.Tensor
    """Clients whose update had a part in it, `(clients,)` bool."""


class RobustRule(Protocol):
    """A rule that withstands some clients who lie."""

    def combine(self, rows: Rows, weights: torch.Tensor) -> Combined:
        """One update out of many.

        Args:
            rows: All updates, `(clients, parameters)`.
            weights: `(clients,)` float64; most robust rules ignore them, since a liar chooses its own.

        Raises:
            TooFewUpdatesError: Fewer rows than the rule's tolerance of liars needs.
        """
        ...
