"""Flower 1.41's robust strategies make the same models, where it has them and replies weigh the same."""

import numpy as np
import pytest
import torch
from flwr.app import Message
from flwr.serverapp.strategy import Bulyan as FlowerBulyan
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.serverapp.strategy import FedMedian, FedTrimmedAvg
from flwr.serverapp.strategy import Krum as FlowerKrum
from flwr.serverapp.strategy import MultiKrum as FlowerMultiKrum

from cloud.aggregation.robust.bulyan import Bulyan
from cloud.aggregation.robust.krum import Krum, MultiKrum
from cloud.aggregation.robust.median import Median
from cloud.aggregation.robust.trimmed_mean import TrimmedMean
from cloud.aggregation.rule import RobustRule
from cloud.campaigns.flower.records import NodeReply, message_of
from tests.cloud.aggregation.robust.examples import cohort, combine

PAIRS: list[tuple[RobustRule, FlowerFedAvg]] = [
    (Median(), FedMedian()),
    (TrimmedMean(0.2), FedTrimmedAvg(beta=0.2)),
    (TrimmedMean(0.31), FedTrimmedAvg(beta=0.31)),
    (Krum(3), FlowerKrum(num_malicious_nodes=3)),
    (MultiKrum(3, selected=6), FlowerMultiKrum(num_malicious_nodes=3, num_nodes_to_select=6)),
    (Bulyan(3, is_selected_at_once=True), FlowerBulyan(num_malicious_nodes=3)),
]


def reply(update: torch.Tensor) -> Message:
    """A node's answer with its tensors, as Flower's loop receives it."""
    tensors = {"w": update[:30].reshape(5, 6).numpy(), "b": update[30:].numpy()}
    return message_of(NodeReply(1, "work", tensors=tensors, metrics={"num-examples": 7}), run_id=1, now=0.0)


@pytest.mark.parametrize("clients", [17, 20])
@pytest.mark.parametrize(("rule", "strategy"), PAIRS, ids=lambda pair: type(pair).__name__)
def test_same_model_as_flower(rule: RobustRule, strategy: FlowerFedAvg, clients: int) -> None:
    deltas = cohort(clients, clients=clients)
    deltas[:3] *= -3
    arrays, _ = strategy.aggregate_train(1, [reply(update) for update in deltas])
    assert arrays is not None
    expected = np.concatenate([array.numpy().reshape(-1) for array in arrays.values()])
    np.testing.assert_allclose(combine(rule, deltas).delta.numpy(), expected, rtol=0, atol=1e-6)
