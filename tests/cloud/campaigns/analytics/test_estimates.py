"""From sums to figures: numpy's without noise; with noise, errors that are as large as they say."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cloud.campaigns.analytics.estimates import findings
from shared.analytics.query import Query, Statistic, sums_of, tree_of
from shared.api.analytics import Findings

QUERY = Query(feature="f", low=-4, high=8, bins=60, examples_max=100_000)
VALUES = np.random.default_rng(1).normal(1.5, 1.2, 4000).clip(-4, 8)
SUMS = sums_of(QUERY, VALUES, np.zeros(len(VALUES), np.int64))
NOISE = 30.0
QUANTILES = (0.1, 0.5, 0.9)
Floats = NDArray[np.float64]


def _noised(seed: int, noise: float = NOISE, *, quantiles: tuple[float, ...] = ()) -> Findings:
    """What is found, told that the noise is `NOISE`, whatever it was."""
    noised = SUMS + np.random.default_rng(seed).normal(0, noise, len(SUMS))
    return findings(QUERY, noised, noise=NOISE, devices=9, quantiles=quantiles)


def test_without_noise_the_figures_are_numpys_on_the_pooled_data() -> None:
    found = findings(QUERY, SUMS, noise=0.0, devices=9, quantiles=QUANTILES)
    assert found.mean is not None
    assert found.variance is not None
    assert found.devices == 9
    assert found.count.value == pytest.approx(4000)
    assert found.mean.value == pytest.approx(VALUES.mean())
    assert found.variance.value == pytest.approx(VALUES.var())
    np.testing.assert_allclose(
        [each.count for each in found.histogram], np.histogram(VALUES, 60, (-4, 8))[0], atol=1e-6
    )
    width = 12 / 60
    for each in found.quantiles:
        assert each.value == pytest.approx(np.quantile(VALUES, each.q), abs=width)
        assert each.low == each.value == each.high


def _z_scores(noise: float) -> dict[str, Floats]:
    """Each figure's error by the standard deviation that it says, over many draws of the noise."""
    scores: dict[str, list[float]] = {"count": [], "mean": [], "variance": [], "bin": []}
    for seed in range(400):
        found = _noised(seed, noise)
        assert found.mean is not None
        assert found.variance is not None
        scores["count"].append((found.count.value - len(VALUES)) / found.count.error)
        scores["mean"].append((found.mean.value - VALUES.mean()) / found.mean.error)
        scores["variance"].append((found.variance.value - VALUES.var()) / found.variance.error)
        middle = found.histogram[27]
        scores["bin"].append((middle.count - SUMS[-60 + 27]) / middle.error)
    return {name: np.array(values) for name, values in scores.items()}


def _are_standard(scores: Floats) -> bool:
    """Mean 0 and variance 1, each at four standard errors of 400 draws."""
    return abs(float(scores.mean())) < 4 / 20 and abs(float(scores.var()) - 1) < 4 * (2 / 400) ** 0.5


def test_errors_are_as_large_as_they_say_and_wrong_noise_would_be_seen() -> None:
    assert {name: _are_standard(values) for name, values in _z_scores(NOISE).items()} == dict.fromkeys(
        ("count", "mean", "variance", "bin"), True
    )
    for wrong in (NOISE / 1.5, NOISE * 1.5):
        assert not any(_are_standard(values) for values in _z_scores(wrong).values())


def test_a_quantiles_interval_holds_the_truth_95_times_in_100() -> None:
    truth = findings(QUERY, SUMS, noise=0.0, devices=9, quantiles=QUANTILES)
    held = np.zeros(len(QUANTILES))
    for seed in range(300):
        for place, (each, true) in enumerate(
            zip(_noised(seed, quantiles=QUANTILES).quantiles, truth.quantiles, strict=True)
        ):
            held[place] += each.low <= true.value <= each.high
    # Four standard errors of 300 draws: 0.05.
    assert (held / 300 > 0.90).all()


def test_the_tree_makes_quantiles_better_than_leaves_alone() -> None:
    """The sum of thirty bins has a fraction of the error that thirty noisy leaves have (Hay et al. 2010)."""
    tree = tree_of(QUERY)
    covariance = np.linalg.inv(tree.T @ tree)
    assert covariance[:30, :30].sum() < 30 / 4
    # And what all of it costs in sensitivity is less than that.
    flat = QUERY.model_copy(update={"statistics": (Statistic.HISTOGRAM,)})
    tall = QUERY.model_copy(update={"statistics": (Statistic.QUANTILES,)})
    assert (tall.sensitivity / flat.sensitivity) ** 2 < 4


def test_least_squares_is_the_constrained_inference_of_the_paper() -> None:
    """Hay et al. 2010, theorem 3, on a full tree: up with weights, then down with what the children lack."""
    query = Query(feature="f", low=0, high=1, bins=64, statistics=(Statistic.QUANTILES,))
    noisy = np.random.default_rng(3).normal(0, 1, query.size)
    found = findings(query, noisy, noise=1.0, devices=1)
    np.testing.assert_allclose([each.count for each in found.histogram], _by_the_paper(noisy), atol=1e-9)


def _by_the_paper(noisy: Floats) -> Floats:
    k, levels = 8, [noisy[:1], noisy[1:9], noisy[9:]]
    up = [levels[2]]
    for height, own in ((2, levels[1]), (3, levels[0])):
        a, b = k**height, k ** (height - 1)
        children = up[0].reshape(-1, k).sum(axis=1)
        up.insert(0, ((a - b) * own + (b - 1) * children) / (a - 1))
    best = up[0]
    for own in up[1:]:
        lacking = (best - own.reshape(-1, k).sum(axis=1)) / k
        best = own + np.repeat(lacking, k)
    return best


def test_nothing_is_divided_by_a_count_that_may_be_none() -> None:
    found = findings(QUERY, np.ones(QUERY.size), noise=5.0, devices=3, quantiles=QUANTILES)
    assert (found.mean, found.variance, found.quantiles) == (None, None, [])
    assert len(found.histogram) == 60


def test_what_was_not_asked_is_not_told() -> None:
    query = QUERY.model_copy(update={"statistics": (Statistic.MEAN,)})
    found = findings(query, SUMS[:2], noise=0.0, devices=2, quantiles=QUANTILES)
    assert found.mean is not None
    assert found.mean.value == pytest.approx(VALUES.mean())
    assert (found.variance, found.histogram, found.quantiles) == (None, [], [])
