"""Coordinate-wise trimmed mean: Yin, Chen, Ramchandran and Bartlett 2018 (arXiv:1803.01498), definition 2."""

import math
from dataclasses import dataclass

import torch

from cloud.aggregation.robust.coordinates import mean_of_middle
from cloud.aggregation.robust.tolerance import expect_updates
from cloud.aggregation.rule import Combined, Rows


@dataclass(frozen=True)
class TrimmedMean:
    """In each parameter the mean without the smallest and the largest values."""

    trimmed_fraction: float = 0.2
    """Cut from each end, below 0.5: the share of liars that is withstood. Rounded down to whole clients."""

    def combine(self, rows: Rows, weights: torch.Tensor) -> Combined:
        assert 0 < self.trimmed_fraction < 0.5, f"Expected a fraction between 0 and 0.5, got {self.trimmed_fraction}"
        expect_updates(rows, math.ceil(1 / self.trimmed_fraction), f"a cut of {self.trimmed_fraction:g} at each end")
        return mean_of_middle(rows, cut=int(self.trimmed_fraction * rows.clients))
