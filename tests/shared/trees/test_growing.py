"""Held against XGBoost itself: the same trees as if it had gone on, and the same sums to the last bit."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import xgboost

from shared.errors import ExtraNotInstalledError
from shared.tensors import encode
from shared.trees.boosting import Boosting
from shared.trees.ensemble import LEAF, check_grown, joined, read_ensemble
from shared.trees.growing import Growth, ensemble_of, grow, parameters
from tests.shared.trees.ensembles import BINARY, GROWTH, SEVERAL, examples, learned

NOTHING = joined([])


def _booster(boosting: Boosting, steps: int) -> tuple[xgboost.Booster, xgboost.DMatrix]:
    data = examples(boosting)
    matrix = xgboost.DMatrix(data.inputs, label=data.labels, nthread=1)
    return xgboost.train(parameters(boosting, GROWTH), matrix, num_boost_round=steps), matrix


@pytest.mark.parametrize("boosting", [BINARY, SEVERAL], ids=["binary", "several"])
def test_boosting_from_margins_grows_the_trees_with_which_xgboost_goes_on(boosting: Boosting) -> None:
    booster, _ = _booster(boosting, 2 * GROWTH.steps)
    whole = ensemble_of(bytes(booster.save_raw("json")), boosting)

    first = grow(boosting, NOTHING, examples(boosting), GROWTH)
    then = grow(boosting, first, examples(boosting), GROWTH)

    assert encode(joined([first, then]).tensors) == encode(whole.tensors)
    again = grow(boosting, NOTHING, examples(boosting), GROWTH)
    assert encode(joined([first, again]).tensors) != encode(whole.tensors)  # the wrong answer: not gone on


@pytest.mark.parametrize("boosting", [BINARY, SEVERAL], ids=["binary", "several"])
def test_margins_are_xgboosts_to_the_last_bit(boosting: Boosting) -> None:
    booster, matrix = _booster(boosting, 20)
    ensemble = ensemble_of(bytes(booster.save_raw("json")), boosting)
    found = ensemble.margins(examples(boosting).inputs, boosting)

    expected = booster.predict(matrix, output_margin=True)

    np.testing.assert_array_equal(found[:, boosting.outputs].reshape(expected.shape), expected)
    if boosting is BINARY:
        assert not found[:, 0].any()


@pytest.mark.parametrize("boosting", [BINARY, SEVERAL], ids=["binary", "several"])
def test_what_grows_is_sound_and_within_its_bounds_however_sure_it_is(boosting: Boosting) -> None:
    tight = replace(boosting, leaf_max=0.25, child_weight_min=0.0, l2=0.0)
    grown = grow(tight, NOTHING, examples(tight), Growth(steps=30, learning_rate=0.5))
    check_grown(read_ensemble(grown.tensors, tight), tight, steps=30, learning_rate=0.5)
    assert np.abs(grown.value[grown.feature == LEAF]).max() == pytest.approx(0.125)


def test_a_sample_of_the_examples_depends_on_the_seed_alone() -> None:
    def grown(seed: int) -> bytes:
        growth = replace(GROWTH, sampling_rate=0.5, seed=seed)
        return encode(grow(SEVERAL, NOTHING, examples(SEVERAL), growth).tensors)

    assert grown(1) == grown(1)
    assert grown(1) != grown(2)


def test_without_xgboost_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = learned(SEVERAL)
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(ExtraNotInstalledError, match="'trees'"):
        grow(SEVERAL, ensemble, examples(SEVERAL), GROWTH)
