"""A question about one feature over a fleet, as a value; and one device's part of the answer, as a vector that adds up.

Everything asked comes from one vector of sums, so that one look at the data pays for all of it:

    count, sum of z, sum of z squared, counts in each node of a tree over the range

where z is the value, scaled from the range to [-1, 1].

The tree is Hay et al.'s (2010, arXiv:0904.0942): its leaves are the histogram's bins, and a quantile, which is a sum of
many bins, becomes a sum of few nodes. What a part of the fleet sends is the sum of its devices' vectors, plus noise.

Guarantees:
    One protected thing, a unit of privacy or a whole device, counts as at most `examples_max` examples: where it has
    more, all of them share that weight. Adding or removing it changes the vector by at most `sensitivity` in L2 norm,
    whatever the data, since values beyond the range count as the range's ends. Void where the range, the bins or the
    weight were chosen by looking at the data.
"""

import math
from enum import StrEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Floats = NDArray[np.float64]
SUMS = "sums"
"""Name of the vector, as a tensor on the wire."""
FANOUT = 8
"""Children of a node. Between 8 and 16 the error hardly depends on it (Qardaji et al. 2013, PVLDB 6(14), section 4)."""


class Statistic(StrEnum):
    COUNT = "count"
    """Always told: the others are divided by it."""
    MEAN = "mean"
    VARIANCE = "variance"
    HISTOGRAM = "histogram"
    QUANTILES = "quantiles"


class Protected(StrEnum):
    """What is added or removed in the guarantee."""

    UNIT = "unit"
    """The task's own unit of privacy: a recording, a person."""
    DEVICE = "device"
    """All that one device holds."""


class Query(BaseModel):
    """What is asked. Fewer statistics have less noise: all share one budget."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    feature: str = Field(min_length=1, max_length=200)
    """One of the task's schema."""
    low: float
    high: float
    """Smaller and larger values count as these; chosen from what the feature can be, not from what devices hold."""
    statistics: tuple[Statistic, ...] = tuple(Statistic)
    bins: int = Field(default=32, ge=2, le=512)
    """Of equal width; a quantile is as exact as the bin that it is in."""
    protects: Protected = Protected.UNIT
    examples_max: int = Field(default=1, ge=1, le=1_000_000)
    """Most that one of what is protected counts for."""

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"Expected a range with low below high, got {self.low:g} to {self.high:g}")
        return self

    @property
    def moments(self) -> int:
        """How many powers of z are summed, the count not among them."""
        if Statistic.VARIANCE in self.statistics:
            return 2
        return int(Statistic.MEAN in self.statistics)

    @property
    def levels(self) -> tuple[int, ...]:
        """Nodes in each level of the tree below its root, which is the count; leaves last."""
        if Statistic.QUANTILES in self.statistics:
            sizes = [self.bins]
            while sizes[0] > FANOUT:
                sizes.insert(0, -(-sizes[0] // FANOUT))
            return tuple(sizes)
        return (self.bins,) if Statistic.HISTOGRAM in self.statistics else ()

    @property
    def size(self) -> int:
        """Numbers in the vector."""
        return 1 + self.moments + sum(self.levels)

    @property
    def sensitivity(self) -> float:
        """L2 norm of the most that one of what is protected can add: each entry of one example is at most 1."""
        return self.examples_max * math.sqrt(1 + self.moments + len(self.levels))

    def edges(self) -> Floats:
        """Of the bins, `(bins + 1,)`."""
        return np.linspace(self.low, self.high, self.bins + 1)


def sums_of(query: Query, values: NDArray[np.floating], units: NDArray[np.int64]) -> Floats:
    """One device's vector, without noise, `(query.size,)`: count, powers of z, then the tree's levels from the top.

    Args:
        query: What is asked.
        values: The feature's, `(n,)`; those that are not numbers do not count.
        units: The unit of privacy of each, `(n,)`.
    """
    is_number = ~np.isnan(values)
    values, groups = np.asarray(values[is_number], np.float64), units[is_number]
    if query.protects is Protected.DEVICE:
        groups = np.zeros_like(groups)
    weights = _weights(groups, query.examples_max)
    share = (np.clip(values, query.low, query.high) - query.low) / (query.high - query.low)
    powers = [float(weights @ (2 * share - 1) ** power) for power in range(1, query.moments + 1)]
    leaves = np.minimum((share * query.bins).astype(np.int64), query.bins - 1)
    levels = zip(query.levels, _widths(query), strict=True)
    nodes = [np.bincount(leaves // width, weights, size) for size, width in levels]
    return np.concatenate([[weights.sum()], powers, *nodes])


def tree_of(query: Query) -> Floats:
    """Which leaves each node of the tree covers, the root first: 0 and 1, `(nodes, bins)`."""
    leaves = np.arange(query.bins)
    levels = [
        (leaves // width == np.arange(size)[:, None]).astype(np.float64)
        for size, width in zip(query.levels, _widths(query), strict=True)
    ]
    return np.concatenate([np.ones((1, query.bins)), *levels])


def _widths(query: Query) -> list[int]:
    """Leaves below a node of each level."""
    return [FANOUT**depth for depth in reversed(range(len(query.levels)))]


def _weights(groups: NDArray[np.int64], examples_max: int) -> Floats:
    """What each example counts, `(n,)`: 1, or less where its group has more than `examples_max`."""
    _, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
    weights: Floats = np.minimum(1.0, examples_max / counts)[place]
    return weights
