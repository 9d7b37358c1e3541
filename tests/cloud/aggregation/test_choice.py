import pytest
import torch

from cloud.aggregation.choice import robust_rule_of, rule_of, server_optimizer_of
from cloud.aggregation.rows import InMemoryRows
from shared.strategies import STRATEGIES, RobustSettings, strategy

ROBUST = sorted(name for name, kind in STRATEGIES.items() if issubclass(kind, RobustSettings))


@pytest.mark.parametrize("name", ROBUST)
def test_what_a_robust_rule_combined_moves_the_model_through_a_server_optimizer(name: str) -> None:
    settings = strategy(name, {"server": {"name": "sgd", "learning_rate": 0.5}})
    assert isinstance(settings, RobustSettings)
    model, everybody = torch.ones(3), torch.full((9, 3), 2.0)
    combined = robust_rule_of(settings).combine(InMemoryRows(everybody), torch.ones(9).double())
    optimizer = server_optimizer_of(settings.server)
    moved, _ = optimizer.step(model, optimizer.init(model), combined.delta)
    torch.testing.assert_close(moved, torch.full((3,), 2.0))


@pytest.mark.parametrize(("name", "why"), [("krum", "all updates"), ("fedxgb_bagging", "appends trees")])
def test_a_strategy_that_adds_no_vectors_up_as_they_come_has_no_streaming_rule(name: str, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        rule_of(strategy(name), population=9)
