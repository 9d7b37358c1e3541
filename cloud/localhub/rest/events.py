"""Routes of the event log: what IoT Hub offers through Event Hubs and AMQP."""

import base64
from typing import Any

from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub, iso
from cloud.localhub.policies import Right
from cloud.localhub.rest.routes import Route, route

EVENTS_PAGE_MAX = 1_000
EVENTS_WAIT_S_MAX = 60.0


async def _events(hub: Hub, request: Request) -> Response:
    after = request.whole("after", default=0, low=0, high=2**63 - 1)
    limit = request.whole("limit", default=100, low=1, high=EVENTS_PAGE_MAX)
    wait_s = request.seconds("waitSeconds", default=0.0, high=EVENTS_WAIT_S_MAX)
    events = await hub.read_events(after=after, limit=limit, wait_s=wait_s)
    first, last = await hub.event_range()
    forms: list[dict[str, Any]] = [
        {
            "offset": event.offset,
            "deviceId": event.device_id,
            "enqueuedTime": iso(event.enqueued_at),
            "properties": event.properties,
            "body": base64.b64encode(event.body).decode(),
        }
        for event in events
    ]
    return Response(200, {"events": forms, "firstOffset": first, "lastOffset": last})


ROUTES: tuple[Route, ...] = (route("GET", "/events", Right.SERVICE_CONNECT, _events),)
