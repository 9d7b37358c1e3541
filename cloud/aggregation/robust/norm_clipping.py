"""Norm clipping: Sun, Kairouz, Suresh and McMahan 2019 (arXiv:1911.07963), section 4.

It bounds what one client can do, and no more: liars whose updates are as small as the honest ones get through. Against
scaled updates (model replacement) that is enough, and it costs the honest little.
"""

from dataclasses import dataclass

import torch

from cloud.aggregation.errors import TooFewUpdatesError
from cloud.aggregation.robust.geometry import sum_of
from cloud.aggregation.robust.tolerance import expect_updates
from cloud.aggregation.rows import blocks
from cloud.aggregation.rule import Combined, Rows

_UPDATES_MIN = 3


@dataclass(frozen=True)
class NormClipping:
    """The mean of all updates, each shortened to a bound. Every client counts the same.

    Scores are norms in units of the bound: above 1 it was shortened. An update with NaN or infinity is left out.
    """

    norm_max: float | None = None
    """The bound; the median of the round's norms unless given, which a minority of liars cannot move far."""

    def combine(self, rows: Rows, weights: torch.Tensor) -> Combined:
        expect_updates(rows, 1 if self.norm_max else _UPDATES_MIN, "a bound that one liar cannot choose")
        norms = norms_of(rows)
        used = norms.isfinite()
        if used.sum() <= rows.clients / 2:
            raise TooFewUpdatesError(f"Expected most of {rows.clients} updates to be finite, got {int(used.sum())}")
        bound = torch.as_tensor(self.norm_max or _median(norms), dtype=norms.dtype, device=norms.device)
        factors = (bound / norms).nan_to_num(nan=1.0).clamp(max=1) * used / used.sum()
        return Combined(sum_of(rows, factors), (norms / bound).nan_to_num(nan=0.0, posinf=torch.inf), used)


def _median(norms: torch.Tensor) -> torch.Tensor:
    return norms.sort().values[(len(norms) - 1) // 2]


def norms_of(rows: Rows) -> torch.Tensor:
    """Each update's norm, `(clients,)` float64; infinite where a number is NaN or infinite."""
    squares = torch.zeros(0)
    for _, block in blocks(rows):
        piece: torch.Tensor = torch.linalg.vector_norm(block, dim=1, dtype=torch.float64).square()
        squares = piece if not len(squares) else squares + piece
    return squares.nan_to_num(nan=torch.inf, posinf=torch.inf).sqrt()
