"""Coordinate-wise median: Yin, Chen, Ramchandran and Bartlett 2018 (arXiv:1803.01498), definition 1."""

from dataclasses import dataclass

import torch

from cloud.aggregation.robust.coordinates import mean_of_middle
from cloud.aggregation.robust.tolerance import expect_updates
from cloud.aggregation.rule import Combined, Rows

_UPDATES_MIN = 3


@dataclass(frozen=True)
class Median:
    """In each parameter the median of all clients; between two middle values, their mean. Withstands any minority."""

    def combine(self, rows: Rows, weights: torch.Tensor) -> Combined:
        expect_updates(rows, _UPDATES_MIN, "a median that one liar cannot move at will")
        return mean_of_middle(rows, cut=(rows.clients - 1) // 2)
