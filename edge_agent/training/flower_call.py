"""Calls a Flower ClientApp in this process, from values of ours to values of ours."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp

from shared.beside import put_beside, take_beside
from shared.messages.work import BESIDE, WorkKind
from shared.privacy import PrivacySpec
from shared.tensors import Tensors

Config = Mapping[str, bool | int | float | str]
KEPT = "kept"
"""In an app's state: what it keeps from one message to the next."""
_TTL_S = 3600.0


@dataclass(frozen=True)
class Answer:
    """What an app made of a message."""

    update: Tensors
    """Its arrays, and vectors beside them (`shared.beside`); none from evaluation."""
    metrics: dict[str, float]
    """Those that are numbers."""
    kept: Tensors
    """What it keeps until its next message."""


def call_client(
    app: ClientApp,
    *,
    kind: WorkKind,
    model: Tensors,
    config: Config,
    privacy: PrivacySpec | None,
    kept: Tensors | None = None,
    node_id: int = 0,
    node_config: Mapping[str, bool | int | float | str] | None = None,
) -> Answer:
    """The app's answer; whatever it raises comes through.

    Args:
        app: Any Flower ClientApp.
        kind: What it is asked for.
        model: With the vectors beside it.
        config: As the work has it.
        privacy: As the work has it.
        kept: What it kept before.
        node_id: Its number.
        node_config: What it knows of its device.
    """
    arrays, beside = take_beside(model)
    records = RecordDict({"arrays": record_of(arrays), "config": ConfigRecord(dict(config))})
    if beside:
        records[BESIDE] = record_of(beside)
    if privacy is not None:
        records["privacy"] = ConfigRecord(privacy.model_dump())
    state = RecordDict({KEPT: record_of(kept)} if kept else {})
    context = Context(run_id=1, node_id=node_id, node_config=dict(node_config or {}), state=state, run_config={})
    content = app(_message(records, kind, node_id=node_id), context).content
    metrics = content.metric_records["metrics"].items()
    return Answer(
        put_beside(_tensors_in(content, "arrays"), _tensors_in(content, BESIDE)),
        {name: float(value) for name, value in metrics if isinstance(value, int | float)},
        kept=_tensors_in(context.state, KEPT),
    )


def _tensors_in(content: RecordDict, name: str) -> Tensors:
    record = content.array_records.get(name)
    return {} if record is None else tensors_of(record)


def tensors_of(record: ArrayRecord) -> Tensors:
    """The record's arrays by name."""
    return {name: np.array(array.numpy()) for name, array in record.items()}


def record_of(tensors: Tensors) -> ArrayRecord:
    """The tensors as Flower carries them."""
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in tensors.items()})


def _message(content: RecordDict, kind: WorkKind, *, node_id: int) -> Message:
    # With metadata of our own: without, Flower asks its global task identity, which only its own runtime sets.
    metadata = Metadata(
        run_id=1,
        message_id="1",
        src_node_id=1,
        dst_node_id=node_id,
        reply_to_message_id="",
        group_id="",
        created_at=0.0,
        ttl=_TTL_S,
        message_type=kind.value,
    )
    return Message(content=content, metadata=metadata)  # type: ignore[call-overload,no-any-return]  # not in its overloads
