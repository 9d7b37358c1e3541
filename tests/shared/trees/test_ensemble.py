"""Ensembles on the wire: what is sound comes through as it was, and nothing else comes through at all."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.tensors import Tensors, decode, encode
from shared.trees.boosting import Boosting
from shared.trees.ensemble import (
    FEATURE,
    NODES,
    OUTPUT,
    VALUE,
    Ensemble,
    MalformedEnsembleError,
    check_grown,
    joined,
    read_ensemble,
)
from tests.shared.trees.ensembles import GROWTH, SEVERAL, ensembles, examples, learned

POINTS = examples(SEVERAL).inputs


def margins(ensemble: Ensemble) -> np.ndarray:
    return ensemble.margins(POINTS, SEVERAL)


@given(ensembles(SEVERAL))
@settings(max_examples=30, deadline=None)
def test_a_sound_ensemble_survives_the_wire(ensemble: Ensemble) -> None:
    again = read_ensemble(decode(encode(ensemble.tensors)), SEVERAL)
    assert encode(again.tensors) == encode(ensemble.tensors)


@given(ensembles(SEVERAL), ensembles(SEVERAL))
@settings(max_examples=30, deadline=None)
def test_joined_trees_add_up_one_after_the_other(one: Ensemble, other: Ensemble) -> None:
    both = joined([one, other])
    assert len(both) == len(one) + len(other)
    onto = other.margins(POINTS, SEVERAL, onto=margins(one))
    np.testing.assert_array_equal(margins(both), onto)


@given(ensembles(SEVERAL))
@settings(max_examples=30, deadline=None)
def test_trees_say_what_following_them_by_hand_says(ensemble: Ensemble) -> None:
    expected = np.zeros((5, 3), np.float32)
    for row, point in enumerate(POINTS[:5]):
        for tree, output in enumerate(ensemble.output):
            place = int(ensemble.first[tree])
            while (feature := ensemble.feature[place]) >= 0:
                place = int(ensemble.left[place]) + int(not point[feature] < ensemble.value[place])
            expected[row, output] += ensemble.value[place]
    np.testing.assert_array_equal(margins(ensemble)[:5], expected)


def test_more_examples_than_are_followed_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = learned(SEVERAL)
    expected = margins(ensemble)
    monkeypatch.setattr("shared.trees.ensemble._PLACES_MAX", 7 * len(ensemble))
    np.testing.assert_array_equal(margins(ensemble), expected)


def _with(name: str, change: Callable[[np.ndarray], object]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: np.asarray(change(tensors[name].copy()), tensors[name].dtype)}


def _at(place: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[place] = value
        return array

    return change


def _childless() -> Ensemble:
    """A split, and nothing below it."""
    one = np.ones(1, np.int32)
    return Ensemble(nodes=one, output=one, feature=one, value=np.ones(1, np.float32))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda tensors: {**tensors, "more": np.zeros(1)}, "a difference in 'more'"),
        (lambda tensors: {NODES: tensors[NODES]}, "a difference in 'node_feature'"),
        (lambda tensors: {**tensors, VALUE: tensors[VALUE].astype(np.float64)}, "'node_value' as a vector of float32"),
        (lambda tensors: {**tensors, VALUE: tensors[VALUE][None]}, "'node_value' as a vector of float32"),
        (_with(VALUE, _at(-1, np.nan)), "finite numbers in splits and leaves"),
        (_with(VALUE, _at(0, np.inf)), "finite numbers in splits and leaves"),
        (_with(FEATURE, _at(0, 4)), "splits by features 0 to 3, got -1 to 4"),
        (_with(FEATURE, _at(0, -2)), "splits by features 0 to 3, got -2"),
        (_with(OUTPUT, _at(0, 3)), "outputs among \\(0, 1, 2\\), of 3 classes"),
        (_with(OUTPUT, lambda array: array[1:]), "an output for each tree"),
        (_with(NODES, _at(0, 17)), "trees of 1 to 15 nodes"),
        (_with(NODES, _at(0, -1)), "trees of 1 to 15 nodes"),
        (_with(VALUE, lambda array: array[1:]), "a value for each node"),
        (lambda tensors: _childless().tensors, "two children of each split"),
        (_with(FEATURE, _at(-1, 0)), "whole trees of at most 3 splits deep"),
        (_with(FEATURE, _at(0, -1)), "whole trees of at most 3 splits deep"),
    ],
)
def test_arrays_that_are_no_ensemble_of_the_task_are_refused(damage: Callable[[Tensors], Tensors], said: str) -> None:
    with pytest.raises(MalformedEnsembleError, match=said):
        read_ensemble(damage(learned(SEVERAL).tensors), SEVERAL)


def test_a_deeper_tree_than_the_tasks_is_refused_though_it_has_few_nodes() -> None:
    chain = Ensemble(
        nodes=np.array([9], np.int32),
        output=np.zeros(1, np.int32),
        feature=np.array([0, 0, -1, 0, -1, 0, -1, -1, -1], np.int32),
        value=np.zeros(9, np.float32),
    )
    assert read_ensemble(chain.tensors, Boosting(features=4, classes=3, depth_max=4)) is not None
    with pytest.raises(MalformedEnsembleError, match="at most 3 splits deep"):
        read_ensemble(chain.tensors, SEVERAL)


@given(ensembles(SEVERAL), st.data())
@settings(max_examples=100, deadline=None)
def test_whatever_is_read_can_be_followed(ensemble: Ensemble, data: st.DataObject) -> None:
    """Any numbers in any place: refused, or finite sums of every point."""
    tensors = {name: value.copy() for name, value in ensemble.tensors.items()}
    for _ in range(data.draw(st.integers(1, 3))):
        array = tensors[data.draw(st.sampled_from([NODES, OUTPUT, FEATURE]))]
        if len(array):
            array[data.draw(st.integers(0, len(array) - 1))] = data.draw(st.integers(-3, 16))
    try:
        read = read_ensemble(tensors, SEVERAL)
    except MalformedEnsembleError:
        return
    assert np.isfinite(margins(read)).all()


def test_what_was_grown_is_held_to_its_number_outputs_and_size() -> None:
    grown = learned(SEVERAL, steps=GROWTH.steps)
    check_grown(grown, SEVERAL, steps=GROWTH.steps, learning_rate=0.3)
    for steps in (GROWTH.steps - 1, GROWTH.steps + 1):
        with pytest.raises(MalformedEnsembleError, match=f"Expected {3 * steps} trees"):
            check_grown(grown, SEVERAL, steps=steps, learning_rate=0.3)
    with pytest.raises(MalformedEnsembleError, match=r"leaves that add at most 1\.5, got"):
        check_grown(grown.scaled(100), SEVERAL, steps=GROWTH.steps, learning_rate=0.3)
    turned = read_ensemble({**grown.tensors, OUTPUT: grown.output[::-1].copy()}, SEVERAL)
    with pytest.raises(MalformedEnsembleError, match="outputs"):
        check_grown(turned, SEVERAL, steps=GROWTH.steps, learning_rate=0.3)
