"""The same replies through Flower's own strategies and through ours end in the same model."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from cloud.aggregation.choice import rule_of
from cloud.campaigns.flower.hub_grid import HubGrid
from cloud.campaigns.flower.runtime import prepare_flower
from shared.ids import DeviceId
from shared.layout import Layout
from shared.strategies import strategy
from tests.cloud.aggregation.rounds import folded, updates
from tests.cloud.campaigns.memory_line import MemoryLine

LAYOUT = Layout(("weight", "bias"), ((3, 4), (4,)))
CLIENTS, ROUNDS, RATE = 4, 5, 0.05
CASES: dict[str, tuple[Strategy, str, dict[str, float]]] = {
    "fedavg": (flower.FedAvg(), "fedavg", {}),
    "fedprox": (flower.FedProx(proximal_mu=0.1), "fedprox", {"proximal": 0.1}),
    "fedavgm": (
        flower.FedAvgM(server_learning_rate=0.7, server_momentum=0.8),
        "fedavgm",
        {"server_learning_rate": 0.7, "server_momentum": 0.8},
    ),
    "fedadagrad": (flower.FedAdagrad(), "fedadagrad", {}),
    "fedadam": (flower.FedAdam(), "fedadam", {}),
    "fedadam, other settings": (
        flower.FedAdam(eta=0.02, beta_1=0.5, beta_2=0.9, tau=1e-2),
        "fedadam",
        {"server_learning_rate": 0.02, "beta1": 0.5, "beta2": 0.9, "adaptivity": 1e-2},
    ),
    "fedyogi": (flower.FedYogi(), "fedyogi", {}),
    "qfedavg": (
        flower.QFedAvg(client_learning_rate=RATE, q=0.7, train_loss_key="start-loss"),
        "qfedavg",
        {"q": 0.7, "client_learning_rate": RATE},
    ),
}


@pytest.mark.parametrize(("theirs", "name", "settings"), CASES.values(), ids=CASES)
def test_five_rounds_end_as_flowers(theirs: Strategy, name: str, settings: dict[str, float]) -> None:
    expected = flowers_models(theirs)
    for found, model in zip(our_models(name, settings), expected, strict=True):
        np.testing.assert_allclose(found, model, rtol=0, atol=1e-6)


def test_the_comparison_tells_strategies_apart() -> None:
    yogi = flowers_models(flower.FedYogi())[-1]
    assert abs(our_models("fedadam", {})[-1] - yogi).max() > 1e-2


def our_models(name: str, settings: dict[str, float]) -> list[np.ndarray]:
    rule = rule_of(strategy(name, settings), population=CLIENTS)
    model = torch.from_numpy(start()).float()
    state, models = rule.init(model), []
    for number in range(ROUNDS):
        deltas, weights, losses = training(number)
        block = updates(torch.from_numpy(deltas).float(), weights=weights.tolist(), losses=losses.tolist())
        model, state = rule.finish(model, state, folded(rule, model, [block]))
        models.append(model.numpy())
    return models


def flowers_models(theirs: Strategy) -> list[np.ndarray]:
    """In double precision, so that the difference is not Flower's rounding."""
    prepare_flower("equivalence")
    model, models = start(), []
    for number in range(ROUNDS):
        theirs.configure_train(number + 1, record(model), ConfigRecord(), grid())
        aggregated, _ = theirs.aggregate_train(number + 1, replies(model, *training(number)))
        assert aggregated is not None
        model = np.concatenate([aggregated[name].numpy().reshape(-1) for name in LAYOUT.names])
        models.append(model)
    return models


def start() -> np.ndarray:
    return np.random.default_rng(0).normal(size=LAYOUT.size)


def training(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Deltas, weights and losses of a round; exact in float32, so that both sides see the same."""
    random = np.random.default_rng(number + 1)
    deltas = random.normal(scale=0.3, size=(CLIENTS, LAYOUT.size)).astype(np.float32).astype(np.float64)
    return deltas, random.integers(1, 50, CLIENTS).astype(np.float64), random.uniform(0.1, 3, CLIENTS)


def replies(model: np.ndarray, deltas: np.ndarray, weights: np.ndarray, losses: np.ndarray) -> Sequence[Message]:
    return [
        make_message(
            Metadata(
                run_id=1,
                message_id=f"m{node}",
                src_node_id=node + 2,
                dst_node_id=1,
                reply_to_message_id="",
                group_id="",
                created_at=0.0,
                ttl=1e9,
                message_type="train",
            ),
            content=RecordDict(
                {
                    "arrays": record(model + delta),
                    "metrics": MetricRecord({"num-examples": float(weight), "start-loss": float(loss)}),
                }
            ),
        )
        for node, (delta, weight, loss) in enumerate(zip(deltas, weights, losses, strict=True))
    ]


def record(vector: np.ndarray) -> ArrayRecord:
    return ArrayRecord({name: Array(np.ascontiguousarray(part)) for name, part in LAYOUT.split(vector).items()})


def grid() -> Grid:
    devices = [DeviceId(f"device-{number}") for number in range(CLIENTS)]
    return HubGrid(run_id=1, line=MemoryLine(devices))
