"""Calls a Flower ClientApp in this process, from values of ours to values of ours."""

from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp

from shared.messages.work import WorkKind
from shared.privacy import PrivacySpec
from shared.tensors import Tensors

Config = Mapping[str, bool | int | float | str]
_TTL_S = 3600.0


def call_client(
    app: ClientApp,
    *,
    kind: WorkKind,
    model: Tensors,
    config: Config,
    privacy: PrivacySpec | None,
    node_id: int = 0,
    node_config: Mapping[str, bool | int | float | str] | None = None,
) -> tuple[Tensors, dict[str, float]]:
    """The app's arrays (none from evaluation) and its numeric metrics; whatever the app raises comes through."""
    records = RecordDict({"arrays": record_of(model), "config": ConfigRecord(dict(config))})
    if privacy is not None:
        records["privacy"] = ConfigRecord(privacy.model_dump())
    context = Context(run_id=1, node_id=node_id, node_config=dict(node_config or {}), state=RecordDict(), run_config={})
    content = app(_message(records, kind, node_id=node_id), context).content
    arrays = content.array_records.get("arrays")
    metrics = content.metric_records["metrics"].items()
    numbers = {name: float(value) for name, value in metrics if isinstance(value, int | float)}
    return ({} if arrays is None else tensors_of(arrays)), numbers


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
