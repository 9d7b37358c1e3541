"""What consumers ask beside reading: a token is put on `$cbs`, properties are read on `$management`. Pure.

Tokens are Event Hubs': as IoT Hub's, but signed with the key's text, where IoT Hub decodes its Base64.
"""

import base64
import hmac
from collections.abc import Mapping, Sequence

from cloud.localhub.amqp.messages import Message, answer
from cloud.localhub.amqp.reading import no_event_hub
from cloud.localhub.amqp.types import Array, Int, Timestamp, Value
from cloud.localhub.errors import RefusedError
from cloud.localhub.event_tables import PartitionState
from cloud.localhub.policies import EVENTS_NAME, Policy, Right
from cloud.localhub.sas import parse_sas

_SAS = "servicebus.windows.net:sastoken"
_HUB, _PARTITION = "com.microsoft:eventhub", "com.microsoft:partition"


def check_token(message: Message, policies: Mapping[str, Policy], *, now: float) -> float:
    """Until when the token lets its bearer read, in seconds since the epoch. Raises RefusedError."""
    asked = message.application
    if asked.get("operation") != "put-token" or asked.get("type") != _SAS or not isinstance(message.value, str):
        raise RefusedError(f"Expected put-token with a token of type {_SAS}")
    token = parse_sas(message.value)
    policy = policies.get(token.policy or "")
    if policy is None or Right.SERVICE_CONNECT not in policy.rights:
        raise RefusedError(f"Expected a policy with {Right.SERVICE_CONNECT}, got {str(token.policy)[:80]!r}")
    if token.expiry <= now:
        raise RefusedError(f"Expected a token that is still valid, got one that expired at {token.expiry}")
    if EVENTS_NAME not in token.resource.split("/"):
        raise RefusedError(f"Expected a token for the event hub {EVENTS_NAME!r}, got {token.resource[:120]!r}")
    if not any(hmac.compare_digest(_signature(key, token.signed), token.signature.encode()) for key in policy.keys):
        raise RefusedError("Expected a signature by a key of the policy, got another")
    return float(token.expiry)


def _signature(key: str, text: str) -> bytes:
    return base64.b64encode(hmac.digest(key.encode(), text.encode(), "sha256"))


def answer_management(request: Message, states: Sequence[PartitionState]) -> bytes:
    """Properties of the hub's log, or of one partition."""
    asked = request.application
    name, kind, number = asked.get("name"), asked.get("type"), asked.get("partition")
    if asked.get("operation") != "READ" or kind not in (_HUB, _PARTITION):
        return answer(request, status=400, description=f"Expected READ of {_HUB} or {_PARTITION}")
    if name != EVENTS_NAME:
        return answer(request, status=404, description=str(no_event_hub(str(name))))
    if kind == _HUB:
        return answer(request, status=200, description="OK", value=_hub_properties(len(states)))
    state = next((state for state in states if str(state.partition) == str(number)), None)
    if state is None:
        return answer(request, status=404, description=f"Expected a partition of 0 to {len(states) - 1}")
    return answer(request, status=200, description="OK", value=_partition_properties(state))


def _hub_properties(partitions: int) -> Value:
    return {
        "name": EVENTS_NAME,
        "type": _HUB,
        "created_at": Timestamp(0),  # Nobody noted it.
        "partition_count": Int(partitions),
        "partition_ids": Array(tuple(str(number) for number in range(partitions))),
    }


def _partition_properties(state: PartitionState) -> Value:
    return {
        "name": EVENTS_NAME,
        "type": _PARTITION,
        "partition": str(state.partition),
        "begin_sequence_number": state.first_sequence_number,
        "last_enqueued_sequence_number": state.last_sequence_number,
        "last_enqueued_offset": "-1" if state.last_offset is None else str(state.last_offset),
        "last_enqueued_time_utc": Timestamp((state.last_enqueued_at or 0) * 1000),
        "is_partition_empty": state.first_sequence_number > state.last_sequence_number,
    }
