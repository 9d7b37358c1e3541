"""Tensors and updates of ours as Flower's records and messages, which its strategies read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, Error, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.app.message_type import MessageType

from cloud.campaigns.flower.runtime import SERVER_NODE_ID
from shared.beside import take_beside
from shared.messages.work import BESIDE, WorkKind
from shared.tensors import Tensors

ARRAYS, METRICS = "arrays", "metrics"
_FAILED = 2
"""Flower's ErrorCode.CLIENT_APP_RAISED_EXCEPTION."""


@dataclass(frozen=True)
class NodeReply:
    """One device's answer: an update, or an error in one sentence."""

    node_id: int
    work_id: str
    kind: WorkKind = WorkKind.TRAIN
    group: str = ""
    tensors: Tensors = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


def array_record(tensors: Tensors) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in tensors.items()})


def tensors_of(record: ArrayRecord) -> Tensors:
    return {name: array.numpy() for name, array in record.items()}


def message_of(reply: NodeReply, *, run_id: int, now: float) -> Message:
    """The answer as strategies read it, from the device's node to the server."""
    metadata = Metadata(
        run_id=run_id,
        message_id=f"reply-{reply.work_id}",
        src_node_id=reply.node_id,
        dst_node_id=SERVER_NODE_ID,
        reply_to_message_id=reply.work_id,
        group_id=reply.group,
        created_at=now,
        ttl=60.0,
        message_type=MessageType.EVALUATE if reply.kind is WorkKind.EVALUATE else MessageType.TRAIN,
    )
    if reply.error:
        return make_message(metadata, error=Error(_FAILED, reply.error))
    return make_message(metadata, content=_content(reply))


def _content(reply: NodeReply) -> RecordDict:
    metrics = MetricRecord({name: float(value) for name, value in reply.metrics.items()})
    if reply.kind is WorkKind.EVALUATE:
        return RecordDict({METRICS: metrics})
    tensors, beside = take_beside(reply.tensors)
    content = RecordDict({ARRAYS: array_record(tensors), METRICS: metrics})
    if beside:
        content[BESIDE] = array_record(beside)
    return content
