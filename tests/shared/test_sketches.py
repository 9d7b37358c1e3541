"""Drift counts: features of any number of bins, exact sums, and profiles that are histograms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.messages.base import MalformedMessageError
from shared.sketches import DriftProfile, FeatureProfile, count, population_stability_index

MANY = FeatureProfile(feature="many", edges=[-1, 0, 1], proportions=[0.25, 0.25, 0.25, 0.25], threshold=0.4)
FEW = FeatureProfile(feature="few", edges=[0.5], proportions=[0.5, 0.5], threshold=0.4)
PROFILE = DriftProfile(features=[MANY, FEW], examples_min=4, reference_examples=100)
VALUES = st.lists(st.tuples(*[st.floats(width=32)] * 2), min_size=1, max_size=20)


def test_features_with_different_numbers_of_bins_are_counted_together() -> None:
    counts = count(PROFILE, np.array([[-2, 0], [0.5, 1], [3, 1]], np.float32))
    assert counts.tolist() == [[1, 0, 1, 1], [1, 2, 0, 0]]


def test_bins_that_a_feature_does_not_have_do_not_count_as_drift() -> None:
    calm = count(PROFILE, np.array([[-2, 0], [-0.5, 0], [0.5, 1], [3, 1]], np.float32))
    assert population_stability_index(np.asarray(FEW.proportions), calm[1]) == pytest.approx(0)


def test_what_is_not_a_number_is_as_far_away_as_can_be() -> None:
    assert count(PROFILE, np.full((1, 2), np.nan, np.float32)).tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]]


@given(VALUES, VALUES)
def test_counts_of_two_windows_add_up_to_the_counts_of_both(one: list[object], other: list[object]) -> None:
    first, second = np.array(one, np.float32), np.array(other, np.float32)
    together = count(PROFILE, np.concatenate([first, second]))
    assert (count(PROFILE, first) + count(PROFILE, second) == together).all()


@given(VALUES)
def test_the_index_is_finite_and_never_below_zero(values: list[object]) -> None:
    counts = count(PROFILE, np.array(values, np.float32))
    for feature, row in zip(PROFILE.features, counts, strict=True):
        index = population_stability_index(np.asarray(feature.proportions), row)
        assert np.isfinite(index)
        assert index >= -1e-12


@pytest.mark.parametrize(
    ("edges", "proportions"),
    [([0.0], [1.0]), ([0.0], [0.3, 0.3, 0.4]), ([1.0, 0.0], [0.3, 0.3, 0.4])],
)
def test_refuses_a_profile_that_is_no_histogram(edges: list[float], proportions: list[float]) -> None:
    document = {"feature": "x", "edges": edges, "proportions": proportions, "threshold": 0.4}
    with pytest.raises(MalformedMessageError):
        FeatureProfile.parse_document(document)
