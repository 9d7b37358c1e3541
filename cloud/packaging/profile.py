"""The drift reference profile of a release, with thresholds that were measured and not guessed.

Bins: four of equal probability over the public data, and one beyond each end, half of the data's range away, which
public data never reach. Recent traffic of one person is concentrated: a minute of one exercise fills one bin, as a
stuck sensor does, and no threshold can tell the two apart. What tells a broken sensor is values that nobody's body
makes, and those the outer bins catch: with no reference share, they weigh more than any concentration inside.

Thresholds: traffic of people the reference has not seen is imitated with validation data, as windows of `EXAMPLES_MIN`
examples: whole units (recordings) in random order, for that is how a device meets data, and each long unit by itself.
The largest index of all these windows, times `MARGIN`, is the feature's threshold, and never below 0.25, which is
customary for "large shift". With few validation subjects (one, in the reference task) the margin stands for everybody
else. docs/explanation/releases.md has what that gives on the reference task: which disturbances come out, which do not,
and how often somebody's normal traffic is taken for one.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from shared.sketches import DriftProfile, FeatureProfile, count, population_stability_index

Features = NDArray[np.float32]
"""`(examples, features)`"""

INNER_BINS = 4
OUTER_DISTANCE = 0.5
"""How far beyond the reference's ends the outer bins begin, in ranges of the reference."""
EXAMPLES_MIN = 64
"""A window of a device: a minute of the reference task. Thresholds hold for windows of about this size."""
LONG_UNIT = EXAMPLES_MIN // 4
"""A unit of this many examples may fill a window by itself: somebody repeats one exercise."""
WINDOWS = 200
MARGIN = 1.25
THRESHOLD_MIN = 0.25


def drift_profile(
    names: tuple[str, ...], *, reference: Features, unseen: Features, unseen_units: NDArray[np.int64], seed: int = 0
) -> DriftProfile:
    """The profile of the reference, with thresholds that traffic of unseen people stays below.

    Args:
        names: Of the features, in order.
        reference: Features of public data.
        unseen: Features of people who are not in the reference: validation data.
        unseen_units: `(examples,)`: which unit, such as a recording, each of them belongs to.
        seed: Of the order in which units are put together.
    """
    features = [_feature(name, column) for name, column in zip(names, reference.T, strict=True)]
    profile = DriftProfile(features=features, examples_min=EXAMPLES_MIN, reference_examples=len(reference))
    windows = _traffic(unseen, unseen_units, np.random.default_rng(seed))
    largest = np.max([stability_indices(profile, window) for window in windows], axis=0)
    calibrated = [
        feature.model_copy(update={"threshold": max(THRESHOLD_MIN, round(float(index) * MARGIN, 4))})
        for feature, index in zip(features, largest, strict=True)
    ]
    return profile.model_copy(update={"features": calibrated})


def stability_indices(profile: DriftProfile, features: Features) -> NDArray[np.float64]:
    """Each feature's population stability index `(features,)` for these examples."""
    counts = count(profile, features)
    return np.array(
        [
            population_stability_index(np.asarray(feature.proportions), row)
            for feature, row in zip(profile.features, counts, strict=True)
        ]
    )


def _feature(name: str, values: NDArray[np.float32]) -> FeatureProfile:
    column = values.astype(np.float64)
    low, high = float(column.min()), float(column.max())
    quantiles = np.quantile(column, np.linspace(0, 1, INNER_BINS + 1)[1:-1])
    edges = np.unique([*quantiles, *_outer_edges(low=low, high=high)])
    counts = np.bincount(np.searchsorted(edges, column, side="right"), minlength=len(edges) + 1)
    return FeatureProfile(
        feature=name, edges=edges.tolist(), proportions=(counts / counts.sum()).tolist(), threshold=THRESHOLD_MIN
    )


def _outer_edges(*, low: float, high: float) -> tuple[float, float]:
    """Where the outer bins begin, below and above the reference's ends.

    A feature that is never zero, such as a size, has zero for its end: half-way there is far, and a sensor that reads
    nothing lies beyond.
    """
    # A constant feature has no range of its own; its size, or 1, stands in.
    distance = OUTER_DISTANCE * ((high - low) or abs(low) or 1.0)
    below = max(low - distance, low / 2) if low > 0 else low - distance
    above = min(high + distance, high / 2) if high < 0 else high + distance
    return below, above


def _traffic(features: Features, units: NDArray[np.int64], rng: np.random.Generator) -> Iterator[Features]:
    """Windows as devices meet them: whole units one after another, cut at the window's length; or a long one alone."""
    rows_by_unit = [np.flatnonzero(units == unit) for unit in np.unique(units)]
    for rows in rows_by_unit:
        if len(rows) >= LONG_UNIT:
            yield features[np.resize(rows, EXAMPLES_MIN)]
    for _ in range(WINDOWS):
        rows = np.concatenate([rows_by_unit[index] for index in rng.permutation(len(rows_by_unit))])
        yield features[rows[:EXAMPLES_MIN]]
