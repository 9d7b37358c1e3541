"""Routes of the event log, its partitions and its consumer groups: what IoT Hub offers through Event Hubs and AMQP."""

import base64
from typing import Any

from cloud.localhub.errors import invalid_argument
from cloud.localhub.event_tables import LoggedEvent, PartitionState
from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.policies import Right
from cloud.localhub.rest.routes import Route, route
from cloud.localhub.times import iso

EVENTS_PAGE_MAX = 1_000
EVENTS_WAIT_S_MAX = 60.0
_NUMBER_MAX = 2**63 - 1


async def _events(hub: Hub, request: Request) -> Response:
    after = request.whole("after", default=0, low=0, high=_NUMBER_MAX)
    limit, wait_s = _page(request)
    events = await hub.events.read(after=after, limit=limit, wait_s=wait_s)
    first, last = await hub.events.offsets()
    return Response(200, {"events": [_form(event) for event in events], "firstOffset": first, "lastOffset": last})


async def _partitions(hub: Hub, request: Request) -> Response:
    return Response(200, [_partition_form(state) for state in await hub.events.states()])


async def _groups(hub: Hub, request: Request) -> Response:
    return Response(200, await hub.events.groups())


async def _put_group(hub: Hub, request: Request) -> Response:
    await hub.events.add_group(request.path["group"])
    return Response(200, {"name": request.path["group"]})


async def _delete_group(hub: Hub, request: Request) -> Response:
    await hub.events.remove_group(request.path["group"])
    return Response(204)


async def _read_partition(hub: Hub, request: Request) -> Response:
    """Goes on after the group's checkpoint, or from the sequence number that the caller names."""
    group, partition = request.path["group"], _partition(request)
    checkpoint = await hub.events.checkpoint(group, partition)
    first = request.whole("from", default=checkpoint + 1, low=0, high=_NUMBER_MAX)
    limit, wait_s = _page(request)
    events = await hub.events.read_partition(partition, after=first - 1, limit=limit, wait_s=wait_s)
    state = (await hub.events.states())[partition]
    answer = {"events": [_form(event) for event in events], "checkpoint": checkpoint, **_partition_form(state)}
    return Response(200, answer)


async def _put_checkpoint(hub: Hub, request: Request) -> Response:
    number = request.json_object().get("sequenceNumber")
    if isinstance(number, bool) or not isinstance(number, int):
        raise invalid_argument("Expected sequenceNumber as a whole number")
    await hub.events.put_checkpoint(request.path["group"], _partition(request), number)
    return Response(200, {"sequenceNumber": number})


def _page(request: Request) -> tuple[int, float]:
    """How many events at most, and how long to wait for the first."""
    limit = request.whole("limit", default=100, low=1, high=EVENTS_PAGE_MAX)
    return limit, request.seconds("waitSeconds", default=0.0, high=EVENTS_WAIT_S_MAX)


def _partition(request: Request) -> int:
    text = request.path["partition"]
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        raise invalid_argument(f"Expected a partition's number, got {text[:40]!r}")
    return int(text)


def _form(event: LoggedEvent) -> dict[str, Any]:
    return {
        "offset": event.offset,
        "partition": event.partition,
        "sequenceNumber": event.sequence_number,
        "deviceId": event.device_id,
        "enqueuedTime": iso(event.enqueued_at),
        "properties": event.properties,
        "body": base64.b64encode(event.body).decode(),
    }


def _partition_form(state: PartitionState) -> dict[str, Any]:
    return {
        "partition": state.partition,
        "firstSequenceNumber": state.first_sequence_number,
        "lastSequenceNumber": state.last_sequence_number,
        "lastOffset": state.last_offset,
        "lastEnqueuedTime": None if state.last_enqueued_at is None else iso(state.last_enqueued_at),
    }


_GROUP = "/events/groups/{group}"
_PARTITION = _GROUP + "/partitions/{partition}"

ROUTES: tuple[Route, ...] = (
    route("GET", "/events", Right.SERVICE_CONNECT, _events),
    route("GET", "/events/partitions", Right.SERVICE_CONNECT, _partitions),
    route("GET", "/events/groups", Right.SERVICE_CONNECT, _groups),
    route("PUT", _GROUP, Right.SERVICE_CONNECT, _put_group),
    route("DELETE", _GROUP, Right.SERVICE_CONNECT, _delete_group),
    route("GET", _PARTITION, Right.SERVICE_CONNECT, _read_partition),
    route("PUT", _PARTITION + "/checkpoint", Right.SERVICE_CONNECT, _put_checkpoint),
)
