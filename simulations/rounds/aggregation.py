"""The server's half of a strategy, streaming or side by side, behind one shape that the collector can fill.

Both call what the coordinator calls: a streaming rule folds updates as they come; a robust rule needs all of a round's
side by side, `(K, parameters)`, and a server optimizer makes the step with what it combined.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from cloud.aggregation.central_privacy.choice import private_rule_of
from cloud.aggregation.central_privacy.noise import SeededNoise
from cloud.aggregation.choice import robust_rule_of, rule_of, server_optimizer_of
from cloud.aggregation.rows import InMemoryRows
from cloud.aggregation.rule import Fold, RobustRule, Rule, State, Updates, Vector
from cloud.aggregation.server_optimizers import ServerOptimizer
from shared.privacy import UserPrivacySpec
from shared.strategies import RobustSettings, StrategySettings

_ROWS, _WEIGHTS, _IS_THERE = "rows", "weights", "is_there"


class Aggregation(Protocol):
    """From a round's updates to the next model. A value without state of its own."""

    def init(self, model: Vector) -> State: ...

    def sent(self, state: State) -> Mapping[str, Vector]: ...

    def begin(self, model: Vector, sent: Mapping[str, Vector], clients: int) -> Fold:
        """A fold of no updates of a cohort of so many clients, to which this was sent beside the model."""
        ...

    def add(self, fold: Fold, positions: torch.Tensor, updates: Updates) -> None:
        """Adds updates of the clients at these positions of the cohort, in place."""
        ...

    def finish(self, model: Vector, state: State, fold: Fold) -> tuple[Vector, State]: ...


@dataclass(frozen=True)
class Streaming:
    """A rule that folds updates as they come."""

    rule: Rule

    def init(self, model: Vector) -> State:
        return self.rule.init(model)

    def sent(self, state: State) -> Mapping[str, Vector]:
        return self.rule.sent(state)

    def begin(self, model: Vector, sent: Mapping[str, Vector], clients: int) -> Fold:
        return self.rule.begin(model, sent)

    def add(self, fold: Fold, positions: torch.Tensor, updates: Updates) -> None:
        self.rule.add(fold, updates)

    def finish(self, model: Vector, state: State, fold: Fold) -> tuple[Vector, State]:
        return self.rule.finish(model, state, fold)


@dataclass(frozen=True)
class SideBySide:
    """A rule that must see all updates of a round; they stay in memory until it has."""

    rule: RobustRule
    optimizer: ServerOptimizer

    def init(self, model: Vector) -> State:
        return self.optimizer.init(model)

    def sent(self, state: State) -> Mapping[str, Vector]:
        return {}

    def begin(self, model: Vector, sent: Mapping[str, Vector], clients: int) -> Fold:
        per_client = torch.zeros(clients, dtype=torch.float64)
        return {_ROWS: model.new_zeros(clients, len(model)), _WEIGHTS: per_client, _IS_THERE: per_client.clone()}

    def add(self, fold: Fold, positions: torch.Tensor, updates: Updates) -> None:
        fold[_ROWS][positions] = updates.deltas
        fold[_WEIGHTS][positions] = updates.weights.to(fold[_WEIGHTS])
        fold[_IS_THERE][positions] = 1.0

    def finish(self, model: Vector, state: State, fold: Fold) -> tuple[Vector, State]:
        chosen = fold[_IS_THERE] > 0
        rows = fold[_ROWS] if bool(chosen.all()) else fold[_ROWS][chosen]
        combined = self.rule.combine(InMemoryRows(rows), fold[_WEIGHTS][chosen])
        return self.optimizer.step(model, state, combined.delta)


def aggregation_of(
    strategy: StrategySettings, *, population: int, cohort: int, spec: UserPrivacySpec | None = None, seed: int = 0
) -> Aggregation:
    """The strategy's server half.

    Args:
        strategy: Of the experiment.
        population: How many clients there are.
        cohort: How many updates a round has.
        spec: Of user-level privacy.
        seed: Of its noise.

    Raises:
        TooFewUpdatesError: A cohort of this size is too small for what the robust rule promises.
        PrivacyExcludesError: The strategy is not one that user-level privacy goes with.
    """
    if spec is not None:
        return Streaming(private_rule_of(strategy, spec, SeededNoise(seed)))
    if not isinstance(strategy, RobustSettings):
        return Streaming(rule_of(strategy, population=population))
    rule = robust_rule_of(strategy)
    # Said now rather than in the first round.
    rule.combine(InMemoryRows(torch.zeros(cohort, 1)), torch.ones(cohort, dtype=torch.float64))
    return SideBySide(rule, server_optimizer_of(strategy.server))
