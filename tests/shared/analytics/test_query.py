"""A device's sums: what one more of what is protected can change, and that sums of parts are the sum of the whole."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from shared.analytics.query import Protected, Query, Statistic, sums_of, tree_of

RANGE = (-2.0, 6.0)
VALUES = st.lists(st.floats(-10, 10) | st.just(float("nan")), max_size=30)


@st.composite
def queries(draw: st.DrawFn, *, protects: Protected | None = None) -> Query:
    return Query(
        feature="f",
        low=RANGE[0],
        high=RANGE[1],
        statistics=tuple(draw(st.sets(st.sampled_from(Statistic), min_size=1))),
        bins=draw(st.integers(2, 100)),
        protects=protects or draw(st.sampled_from(Protected)),
        examples_max=draw(st.integers(1, 5)),
    )


def _units(values: list[float], *, of: int) -> NDArray[np.int64]:
    """Units that differ in size, all different from other numbers of `of`."""
    return np.array([of * 1000 + number // 3 for number in range(len(values))], np.int64)


@given(queries(protects=Protected.UNIT), VALUES, VALUES)
def test_one_more_unit_changes_the_sums_by_at_most_the_sensitivity(
    query: Query, others: list[float], own: list[float]
) -> None:
    units = np.concatenate([_units(others, of=1), np.full(len(own), 7)])
    without = sums_of(query, np.array(others), _units(others, of=1))
    with_it = sums_of(query, np.array(others + own), units)
    assert np.linalg.norm(with_it - without) <= query.sensitivity * (1 + 1e-12)


@given(queries(protects=Protected.DEVICE), VALUES)
def test_a_whole_device_adds_at_most_the_sensitivity(query: Query, own: list[float]) -> None:
    assert np.linalg.norm(sums_of(query, np.array(own), _units(own, of=1))) <= query.sensitivity * (1 + 1e-12)


def test_the_sensitivity_is_reached_and_no_larger_than_it_must_be() -> None:
    query = Query(feature="f", low=0, high=1, bins=16, examples_max=3)
    sums = sums_of(query, np.ones(9), np.zeros(9, np.int64))
    assert np.linalg.norm(sums) == pytest.approx(query.sensitivity)


@given(queries(protects=Protected.UNIT), VALUES, VALUES)
def test_the_sums_of_two_devices_are_those_of_their_data_together(
    query: Query, one: list[float], other: list[float]
) -> None:
    parts = [(np.array(values), _units(values, of=number)) for number, values in enumerate((one, other))]
    together = sums_of(query, *(np.concatenate(both) for both in zip(*parts, strict=True)))
    np.testing.assert_allclose(sum(sums_of(query, *part) for part in parts), together, atol=1e-9)


@given(queries(), VALUES)
def test_every_level_of_the_tree_has_everybody_once(query: Query, own: list[float]) -> None:
    sums = sums_of(query, np.array(own), _units(own, of=1))
    assert len(sums) == query.size
    nodes = np.concatenate([sums[:1], sums[1 + query.moments :]])
    if query.levels:
        leaves = nodes[-query.bins :]
        np.testing.assert_allclose(tree_of(query) @ leaves, nodes, atol=1e-9)


def test_moments_and_bins_are_numpys_where_no_unit_is_cut() -> None:
    values = np.random.default_rng(0).normal(1, 2, 500)
    query = Query(feature="f", low=RANGE[0], high=RANGE[1], bins=20, examples_max=500)
    sums = sums_of(query, values, np.zeros(500, np.int64))
    clipped = values.clip(*RANGE)
    z = (clipped - 2) / 4
    np.testing.assert_allclose(sums[:3], [500, z.sum(), (z**2).sum()])
    np.testing.assert_allclose(sums[-20:], np.histogram(clipped, 20, RANGE)[0])


@pytest.mark.parametrize("wrong", [{"low": 1, "high": 1}, {"low": 2, "high": 1}, {"bins": 1}, {"high": float("inf")}])
def test_refuses_a_question_without_a_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Query(**{"feature": "f", "low": 0, "high": 1, **wrong})
