"""Rounds of a rule over updates that come however they come."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from cloud.aggregation.rule import Fold, Rule, State, Updates, Vector


def updates(
    deltas: torch.Tensor,
    *,
    weights: Sequence[float] | torch.Tensor | None = None,
    steps: Sequence[float] | torch.Tensor | None = None,
    losses: Sequence[float] | torch.Tensor | None = None,
    staleness: Sequence[float] | torch.Tensor | None = None,
    control: torch.Tensor | None = None,
) -> Updates:
    """Updates with one of everything where nothing is said; staleness 0."""

    def each(values: Sequence[float] | torch.Tensor | None, otherwise: float) -> torch.Tensor:
        given = torch.full((len(deltas),), otherwise) if values is None else torch.as_tensor(values)
        return given.double()

    return Updates(
        deltas,
        each(weights, 1),
        steps=each(steps, 1),
        losses=each(losses, 1),
        staleness=each(staleness, 0),
        extras={"control": torch.zeros_like(deltas) if control is None else control},
    )


def rows_of(found: Updates, rows: Sequence[int]) -> Updates:
    """Some of the updates, in this order."""
    kept = list(rows)
    return replace(
        found,
        deltas=found.deltas[kept],
        weights=found.weights[kept],
        steps=found.steps[kept],
        losses=found.losses[kept],
        staleness=found.staleness[kept],
        extras={name: value[kept] for name, value in found.extras.items()},
    )


def folded(rule: Rule, model: Vector, blocks: Sequence[Updates]) -> Fold:
    fold = rule.begin(model)
    for block in blocks:
        rule.add(fold, block)
    return fold


def after(rule: Rule, model: Vector, *rounds: Updates) -> tuple[Vector, State]:
    """The model and state after these rounds, from a fresh state."""
    state = rule.init(model)
    for each in rounds:
        model, state = rule.finish(model, state, folded(rule, model, [each]))
    return model, state
