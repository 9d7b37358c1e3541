"""What Flower's FedAvg makes of the same updates: the oracle of campaigns that average."""

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from cloud.campaigns.flower.hub_grid import node_id_of
from cloud.campaigns.flower.records import NodeReply, message_of
from shared.ids import DeviceId
from shared.messages.work import Work
from shared.tensors import Array, Tensors
from tests.cloud.campaigns.world import World, update_of


def assert_close(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(np.asarray(found, np.float64), np.asarray(expected, np.float64), rtol=0, atol=1e-6)


def first_update(world: World, name: str) -> Tensors:
    """What this device sends in a first round."""
    work = Work.model_validate(
        {"work_id": "w", "kind": "train", "campaign_id": "c", "round": 1, "task": "digits", "task_version": "1"}
        | {"model": {"digest": "0" * 64, "size_bytes": 1}, "deadline_s": 1}
    )
    return update_of(DeviceId(name), work, world.model)


def flower_average(updates: dict[str, Tensors]) -> Tensors:
    """The mean of these devices' updates, all of one weight."""
    replies = []
    for name, tensors in updates.items():
        reply = NodeReply(node_id_of(DeviceId(name)), name, tensors=tensors, metrics={"num-examples": 11.0})
        message = message_of(reply, run_id=1, now=0.0)
        arrays = ArrayRecord({key: FlowerArray(np.asarray(value)) for key, value in tensors.items()})
        message.content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 11.0})})
        replies.append(message)
    record, _ = FedAvg().aggregate_train(1, replies)
    assert record is not None
    return {name: array.numpy() for name, array in record.items()}
