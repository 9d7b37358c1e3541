"""Drift: a reference profile of each feature, and how far recent data is from it.

A profile cuts each feature's reference values into bins of equal probability; recent values are counted in the same
bins, and the population stability index compares the two: PSI = sum((q - p) ln(q / p)) (Siddiqi 2006, Credit Risk
Scorecards). Counts add up, so windows and devices merge exactly. The threshold is the profile's own, per feature,
measured at packaging on people the reference has not seen.
"""

from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from shared.messages.base import Message

Counts = NDArray[np.int64]
"""`(features, bins)`; as wide as the feature with the most bins, and zero beyond a feature's own."""


class FeatureProfile(Message):
    """One feature's reference distribution."""

    feature: str
    edges: list[float]
    """Inner edges of the bins, ascending; the outer bins are open."""
    proportions: list[float]
    """Reference share of each bin, `len(edges) + 1` values."""
    threshold: float = Field(gt=0)
    """PSI above which the feature drifts."""

    @model_validator(mode="after")
    def _is_a_histogram(self) -> Self:
        if len(self.proportions) != len(self.edges) + 1:
            raise ValueError(f"expected {len(self.edges) + 1} proportions, got {len(self.proportions)}")
        if any(left > right for left, right in pairwise(self.edges)):
            raise ValueError("expected ascending edges")
        return self


class DriftProfile(Message):
    """A release's `profile.json`."""

    features: list[FeatureProfile]
    examples_min: int = Field(gt=0)
    """Fewer recent examples than this say nothing."""
    reference_examples: int = Field(gt=0)


def count(profile: DriftProfile, features: NDArray[np.float32]) -> Counts:
    """Counts of feature values in the profile's bins.

    Args:
        profile: With F features, whose numbers of bins may differ: values that repeat merge bins.
        features: `(examples, F)`; not-a-number counts in a feature's last bin, as far away as a value can be.
    """
    bins = max((len(feature.proportions) for feature in profile.features), default=0)
    return np.array(
        [
            np.bincount(np.searchsorted(feature.edges, column, side="right"), minlength=bins)
            for feature, column in zip(profile.features, features.T, strict=True)
        ],
        np.int64,
    )


def population_stability_index(proportions: NDArray[np.float64], counts: Counts) -> float:
    """PSI of one feature's row of counts against its reference proportions `(bins,)`.

    Both sides are smoothed by half a count, so that an empty bin is finite and small samples are not alarming.
    """
    bins = len(proportions)
    counts = counts[:bins]
    q = (counts + 0.5) / (counts.sum() + 0.5 * bins)
    p = (proportions * counts.sum() + 0.5) / (counts.sum() + 0.5 * bins)
    return float(np.sum((q - p) * np.log(q / p)))
