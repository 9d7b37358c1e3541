"""Krum and Multi-Krum: Blanchard, El Mhamdi, Guerraoui and Stainer 2017 (arXiv:1703.02757)."""

from dataclasses import dataclass

import torch

from cloud.aggregation.errors import TooFewUpdatesError
from cloud.aggregation.robust.geometry import gram_matrix, squared_distances_between, sum_of
from cloud.aggregation.robust.tolerance import expect_updates
from cloud.aggregation.rule import Combined, Rows


@dataclass(frozen=True)
class Krum:
    """The one update that lies nearest to its `clients - liars - 2` nearest others.

    Scores are the sums of these squared distances. Needs `2 * liars + 3` updates (proposition 1).
    """

    liars: int

    def combine(self, rows: Rows, weights: torch.Tensor) -> Combined:
        return _mean_of_best(rows, liars=self.liars, selected=1)


@dataclass(frozen=True)
class MultiKrum:
    """The mean of the `selected` updates with the best scores of Krum.

    Weights are ignored, as in the paper: a liar chooses its own.
    """

    liars: int
    selected: int | None = None
    """How many; at most `clients - liars - 2` (Damaskinos et al. 2019, AggregaThor), which is also the default."""

    def combine(self, rows: Rows, weights: torch.Tensor) -> Combined:
        return _mean_of_best(rows, liars=self.liars, selected=self.selected or rows.clients - self.liars - 2)


def _mean_of_best(rows: Rows, *, liars: int, selected: int) -> Combined:
    at_least = max(2 * liars + 3, selected + liars + 2)
    expect_updates(rows, at_least, f"the best {selected} with {liars} liars among them")
    scores = krum_scores(squared_distances_between(gram_matrix(rows)), liars=liars)
    used = torch.zeros_like(scores, dtype=torch.bool)
    used[best(scores, selected)] = True
    return Combined(sum_of(rows, used / used.sum()), scores, used)


def krum_scores(distances: torch.Tensor, *, liars: int) -> torch.Tensor:
    """Each client's sum of squared distances to its nearest others, `(clients,)`.

    Args:
        distances: Squared, `(clients, clients)`, zero on the diagonal.
        liars: How many of the clients may lie.
    """
    neighbours = max(1, len(distances) - liars - 2)
    others = distances.clone().fill_diagonal_(torch.inf)
    return others.topk(neighbours, dim=1, largest=False).values.sum(dim=1)


def best(scores: torch.Tensor, count: int) -> torch.Tensor:
    """The clients with the lowest scores, `(count,)`. Raises TooFewUpdatesError if some of them are not finite."""
    chosen = scores.argsort(stable=True)[:count]
    if not scores[chosen].isfinite().all():
        raise TooFewUpdatesError(
            f"Expected {count} updates with enough finite neighbours, got {int(scores.isfinite().sum())}",
            hint="Look at the devices whose training diverged; a smaller learning rate may help.",
        )
    return chosen
