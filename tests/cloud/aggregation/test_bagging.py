"""Bagging held against Flower's own, tree by tree, and against what it promises itself."""

import numpy as np
import pytest
import xgboost
from flwr.serverapp.strategy.strategy_utils import aggregate_bagging

from cloud.aggregation.bagging import Bagging
from cloud.aggregation.errors import NothingToAggregateError
from shared.tensors import encode
from shared.trees.ensemble import Ensemble, joined
from shared.trees.growing import Growth, ensemble_of, grow, parameters
from tests.shared.trees.ensembles import BINARY, SEVERAL, examples, learned

CLIENTS, ROUNDS = 3, 4
ONE_STEP = Growth(steps=1, learning_rate=0.3)


def _flowers_round(model: bytes, clients: list[xgboost.DMatrix]) -> bytes:
    """As Flower's XGBoost quickstart: each client goes on by one tree, and sends the last one alone."""
    aggregated = model
    for data in clients:
        if model:
            booster = xgboost.Booster(params=parameters(BINARY, ONE_STEP))
            booster.load_model(bytearray(model))
            booster.update(data, booster.num_boosted_rounds())
            rounds = booster.num_boosted_rounds()
            booster = booster[rounds - 1 : rounds]
        else:
            booster = xgboost.train(parameters(BINARY, ONE_STEP), data, num_boost_round=1)
        aggregated = aggregate_bagging(aggregated, bytes(booster.save_raw("json")))
    return aggregated


def _ours(model: Ensemble, clients: list[int]) -> Ensemble:
    grown = [grow(BINARY, model, examples(BINARY, seed=seed), ONE_STEP) for seed in clients]
    return joined([model, Bagging().appended(grown)])


def test_rounds_are_flowers_tree_by_tree_and_predict_what_xgboost_predicts() -> None:
    data = [examples(BINARY, seed=seed) for seed in range(CLIENTS)]
    matrices = [xgboost.DMatrix(each.inputs, label=each.labels, nthread=1) for each in data]
    flowers, ours = b"", joined([])
    for _ in range(ROUNDS):
        flowers, ours = _flowers_round(flowers, matrices), _ours(ours, list(range(CLIENTS)))

    assert len(ours) == ROUNDS * CLIENTS
    assert encode(ours.tensors) == encode(ensemble_of(flowers, BINARY).tensors)
    booster = xgboost.Booster()
    booster.load_model(bytearray(flowers))
    margins = ours.margins(data[0].inputs, BINARY)
    np.testing.assert_array_equal(margins[:, 1], booster.predict(matrices[0], output_margin=True))
    # The wrong answer: a client's trees of the last round are left out.
    assert encode(_ours(joined([]), [0, 1]).tensors) != encode(_ours(joined([]), [0, 1, 2]).tensors)


def test_an_average_is_the_mean_of_what_each_client_alone_would_have_made() -> None:
    model = learned(SEVERAL)
    inputs = examples(SEVERAL).inputs
    grown = [grow(SEVERAL, model, examples(SEVERAL, seed=seed), ONE_STEP) for seed in range(CLIENTS)]

    def margins(*parts: Ensemble) -> np.ndarray:
        return joined(parts).margins(inputs, SEVERAL)

    found = margins(model, Bagging(is_averaged=True).appended(grown))

    expected = np.mean([margins(model, each) for each in grown], axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(margins(model, Bagging().appended(grown)) - expected).max() > 0.1


def test_an_average_counts_as_xgboosts_parallel_trees_do() -> None:
    """The same data on every client, as many parallel trees: XGBoost itself divides the leaves."""
    data = examples(BINARY)
    matrix = xgboost.DMatrix(data.inputs, label=data.labels, nthread=1)
    forest = xgboost.train({**parameters(BINARY, ONE_STEP), "num_parallel_tree": CLIENTS}, matrix, num_boost_round=1)

    grown = [grow(BINARY, joined([]), data, ONE_STEP) for _ in range(CLIENTS)]
    found = Bagging(is_averaged=True).appended(grown).margins(data.inputs, BINARY)

    np.testing.assert_allclose(found[:, 1], forest.predict(matrix, output_margin=True), atol=1e-6)


def test_a_round_without_trees_is_refused() -> None:
    with pytest.raises(NothingToAggregateError):
        Bagging().appended([])
