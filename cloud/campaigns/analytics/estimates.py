"""From noisy sums over the fleet to what was asked, each figure with the error that the noise gives it. Pure.

All nodes of the tree have the same noise, so the best unbiased histogram is an ordinary least-squares solution, and
that is what Hay et al.'s constrained inference computes (2010, arXiv:0904.0942, theorem 3); the trees here are small
enough to solve it as such, which also gives the error of each sum of bins. Post-processing costs no privacy.

Errors are of the noise alone: how well the devices asked stand for others is not in them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.analytics.query import Floats, Query, Statistic, tree_of
from shared.api.analytics import Bin, Estimate, Findings, Quantile

DEVIATIONS = 1.96
"""Of a quantile's interval: 95 times in 100."""
_COUNT_DEVIATIONS_MIN = 3.0
"""A count nearer to 0 than this may be none at all, and nothing is divided by it."""


@dataclass(frozen=True)
class _Histogram:
    leaves: Floats
    """Consistent counts, `(bins,)`; noise may make some negative."""
    covariance: Floats
    """Of them, in units of the noise's variance, `(bins, bins)`."""

    def below(self, leaf: int) -> tuple[float, float]:
        """How many are in the first `leaf` bins, and the standard deviation, in units of the noise's."""
        part = self.covariance[:leaf, :leaf]
        return float(self.leaves[:leaf].sum()), math.sqrt(max(0.0, float(part.sum())))


def findings(query: Query, sums: Floats, *, noise: float, devices: int, quantiles: Sequence[float] = ()) -> Findings:
    """What the sums say.

    Args:
        query: What was asked.
        sums: Over the fleet, `(query.size,)`.
        noise: Standard deviation of the noise on each sum.
        devices: How many answered.
        quantiles: Which, between 0 and 1.
    """
    moments, nodes = sums[1 : 1 + query.moments], np.concatenate([sums[:1], sums[1 + query.moments :]])
    histogram = _fitted(query, nodes) if query.levels else None
    count, deviation = histogram.below(query.bins) if histogram else (float(nodes[0]), 1.0)
    is_enough = count > max(_COUNT_DEVIATIONS_MIN * noise * deviation, 0.0)
    asked = query.statistics
    return Findings(
        devices=devices,
        count=Estimate(value=count, error=noise * deviation),
        mean=_mean(query, moments, count, deviation, noise) if Statistic.MEAN in asked and is_enough else None,
        variance=_variance(query, moments, count, deviation, noise)
        if Statistic.VARIANCE in asked and is_enough
        else None,
        histogram=_bins(query, histogram, noise) if histogram else [],
        quantiles=[_quantile(query, histogram, each, noise) for each in quantiles] if histogram and is_enough else [],
    )


def _fitted(query: Query, nodes: Floats) -> _Histogram:
    tree = tree_of(query)
    covariance: Floats = np.linalg.inv(tree.T @ tree).astype(np.float64)
    return _Histogram(covariance @ (tree.T @ nodes), covariance)


def _mean(query: Query, moments: Floats, count: float, deviation: float, noise: float) -> Estimate:
    """By the delta method: the sum's noise and the count's are independent."""
    scale, middle = (query.high - query.low) / 2, float(moments[0]) / count
    error = scale * noise / count * math.hypot(1, middle * deviation)
    # The mean of numbers in a range is in it; beyond is noise.
    return Estimate(value=query.low + scale * (1 + min(1.0, max(-1.0, middle))), error=error)


def _variance(query: Query, moments: Floats, count: float, deviation: float, noise: float) -> Estimate:
    scale = ((query.high - query.low) / 2) ** 2
    middle, square = moments / count
    error = scale * noise / count * math.hypot(1, 2 * middle, (2 * middle**2 - square) * deviation)
    return Estimate(value=scale * min(1.0, max(0.0, float(square - middle**2))), error=error)


def _bins(query: Query, histogram: _Histogram, noise: float) -> list[Bin]:
    edges, deviations = query.edges(), np.sqrt(np.diag(histogram.covariance))
    return [
        Bin(low=low, high=high, count=count, error=noise * deviation)
        for low, high, count, deviation in zip(edges, edges[1:], histogram.leaves, deviations, strict=False)
    ]


def _quantile(query: Query, histogram: _Histogram, q: float, noise: float) -> Quantile:
    """Where cumulative counts pass `q` of all; the interval has every place at which noise may be all that they lack.

    That interval inverts a test at each edge of a bin, so it errs only to the side of being too wide.
    """
    below = np.tri(query.bins + 1, query.bins, -1)
    cumulative = below @ histogram.leaves
    wanted = q * float(cumulative[-1])
    contrasts = below - q
    variances = np.einsum("ij,jk,ik->i", contrasts, histogram.covariance, contrasts)
    margins = DEVIATIONS * noise * np.sqrt(np.maximum(variances, 0.0))
    # Counts do not fall: between the lowest and the highest curve that never does.
    rising = (np.maximum.accumulate(cumulative) + np.minimum.accumulate(cumulative[::-1])[::-1]) / 2
    upper, lower = cumulative + margins, cumulative - margins
    first = int(np.argmax(upper >= wanted))
    last = query.bins - int(np.argmax(lower[::-1] <= wanted))
    edges = query.edges()
    return Quantile(
        q=q,
        value=_crossing(edges, rising, wanted, leaf=int(np.searchsorted(rising, wanted))),
        low=_crossing(edges, upper, wanted, leaf=first),
        high=_crossing(edges, lower, wanted, leaf=last + 1),
    )


def _crossing(edges: Floats, curve: Floats, wanted: float, *, leaf: int) -> float:
    """The place in the bin before this edge where the curve is at `wanted`, rising evenly in the bin."""
    leaf = min(max(leaf, 1), len(edges) - 1)
    inside = curve[leaf] - curve[leaf - 1]
    part = (wanted - curve[leaf - 1]) / inside if inside > 0 else 1.0
    return float(edges[leaf - 1] + min(1.0, max(0.0, float(part))) * (edges[leaf] - edges[leaf - 1]))
