import pytest
import torch

from cloud.aggregation.averaging import FedAvg
from cloud.aggregation.errors import NothingToAggregateError
from cloud.aggregation.rule import Updates


def updates(deltas: torch.Tensor, weights: torch.Tensor) -> Updates:
    nothing = torch.zeros(len(deltas), dtype=torch.float64)
    return Updates(deltas, weights.double(), steps=nothing, losses=nothing, staleness=nothing)


def test_the_model_moves_by_the_weighted_mean_however_updates_are_blocked() -> None:
    rule, model = FedAvg(), torch.tensor([1.0, 2.0])
    deltas, weights = torch.tensor([[1.0, 0.0], [0.0, 4.0], [2.0, 2.0]]), torch.tensor([1.0, 2.0, 1.0])
    at_once, one_by_one = rule.begin(model), rule.begin(model)
    rule.add(at_once, updates(deltas, weights))
    for row in range(3):
        rule.add(one_by_one, updates(deltas[row : row + 1], weights[row : row + 1]))
    expected = torch.tensor([1.0 + 3 / 4, 2.0 + 10 / 4])
    assert torch.equal(rule.finish(model, {}, at_once)[0], expected)
    assert torch.equal(rule.finish(model, {}, one_by_one)[0], expected)


def test_a_round_without_updates_has_no_model() -> None:
    rule, model = FedAvg(), torch.zeros(2)
    with pytest.raises(NothingToAggregateError, match="got 0 in all"):
        rule.finish(model, {}, rule.begin(model))
