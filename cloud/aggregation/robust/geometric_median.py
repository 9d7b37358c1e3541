"""Geometric median (RFA): Pillutla, Kakade and Harchaoui 2022 (arXiv:1912.13445), smoothed Weiszfeld, algorithm 2.

Every iterate is a weighted sum of the updates, `z = sum of b_i x_i`, so `|x_i - z|^2 = G_ii - 2 (G b)_i + b^T G b` with
the Gram matrix G: after one pass over the updates all iterations run on `(clients, clients)` numbers, and a second pass
makes the sum.
"""

from dataclasses import dataclass

import torch

from cloud.aggregation.errors import TooFewUpdatesError
from cloud.aggregation.robust.geometry import gram_matrix, squared_distances_between, sum_of
from cloud.aggregation.robust.tolerance import expect_updates
from cloud.aggregation.rule import Combined, Rows

_UPDATES_MIN = 3
_ITERATIONS_MAX = 1000
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class GeometricMedian:
    """The point with the least sum of distances to all updates. Withstands any minority.

    Scores are distances from it. The paper weighs clients by their examples; here each counts the same, because a liar
    would claim most of the examples.
    """

    smoothing: float = 1e-6
    """The paper's nu: distances below this count as this, in the units of an update's norm."""

    def combine(self, rows: Rows, weights: torch.Tensor) -> Combined:
        expect_updates(rows, _UPDATES_MIN, "a geometric median that one liar cannot move at will")
        gram = gram_matrix(rows)
        used = gram.diagonal().isfinite()
        if used.sum() <= rows.clients / 2:
            raise TooFewUpdatesError(f"Expected most of {rows.clients} updates to be finite, got {int(used.sum())}")
        shares, distances = _weiszfeld(gram[used][:, used], self.smoothing)
        factors = torch.zeros_like(gram[0]).masked_scatter(used, shares)
        scores = torch.full_like(gram[0], torch.inf).masked_scatter(used, distances)
        return Combined(sum_of(rows, factors), scores, used)


def _weiszfeld(gram: torch.Tensor, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Each update's share in the geometric median, and its distance from it, `(clients,)` each."""
    # The paper starts from the mean, which a single liar puts out of reach of double precision. Who is far from most
    # others starts with a small share.
    shares = _shares(squared_distances_between(gram).median(dim=1).values.sqrt(), smoothing)
    for _ in range(_ITERATIONS_MAX):
        distances = _distances_from(gram, shares)
        before, shares = shares, _shares(distances, smoothing)
        if (shares - before).abs().sum() < _TOLERANCE:
            break
    return shares, _distances_from(gram, shares)


def _distances_from(gram: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    products = gram @ shares
    return (gram.diagonal() - 2 * products + shares @ products).clamp(min=0).sqrt()


def _shares(distances: torch.Tensor, smoothing: float) -> torch.Tensor:
    nearness = 1 / distances.clamp(min=smoothing)
    return nearness / nearness.sum()
