"""Routes that devices call: events and messages for those that do not keep a connection, and uploads of files.

https://learn.microsoft.com/rest/api/iothub/device
"""

from cloud.localhub.errors import ServiceError
from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.messages import Outcome, headers_for_device, parse_properties
from cloud.localhub.policies import Right
from cloud.localhub.rest.routes import Route, route
from cloud.localhub.session import EVENT_BYTES_MAX
from cloud.localhub.throttles import Operation
from cloud.localhub.times import iso


async def _send_event(hub: Hub, request: Request) -> Response:
    properties = parse_properties(request.headers)
    size = len(request.body) + sum(len(key) + len(value or "") for key, value in properties.items())
    if size > EVENT_BYTES_MAX:
        raise ServiceError(
            413, 413001, "MessageTooLarge", f"Expected an event of at most {EVENT_BYTES_MAX} bytes, got {size}"
        )
    await hub.events.room()
    await hub.events.append_one(request.path["id"], properties, request.body)
    return Response(204)


async def _receive(hub: Hub, request: Request) -> Response:
    found = await hub.mailbox.receive(request.path["id"])
    if found is None:
        return Response(204)
    message, token = found
    headers = headers_for_device(message, lock_token=token, enqueued=iso(message.enqueued_at))
    return Response(200, message.body, headers)


async def _complete(hub: Hub, request: Request) -> Response:
    outcome = Outcome.REJECTED if "reject" in request.query else Outcome.SUCCESS
    await hub.mailbox.settle(request.path["id"], request.path["token"], outcome)
    return Response(204)


async def _abandon(hub: Hub, request: Request) -> Response:
    await hub.mailbox.abandon(request.path["id"], request.path["token"])
    return Response(204)


async def _start_upload(hub: Hub, request: Request) -> Response:
    place = await hub.files.start(request.path["id"], request.json_object(), host=request.headers.get("host", ""))
    return Response(200, place)


async def _finish_upload(hub: Hub, request: Request) -> Response:
    await hub.files.finish(request.path["id"], request.json_object(), host=request.headers.get("host", ""))
    return Response(204)


ROUTES: tuple[Route, ...] = (
    route("POST", "/devices/{id}/messages/events", Right.DEVICE_CONNECT, _send_event, Operation.SEND),
    route("GET", "/devices/{id}/messages/deviceBound", Right.DEVICE_CONNECT, _receive),
    route("DELETE", "/devices/{id}/messages/deviceBound/{token}", Right.DEVICE_CONNECT, _complete),
    route("POST", "/devices/{id}/messages/deviceBound/{token}/abandon", Right.DEVICE_CONNECT, _abandon),
    route("POST", "/devices/{id}/files", Right.DEVICE_CONNECT, _start_upload, Operation.FILE_UPLOAD),
    route("POST", "/devices/{id}/files/notifications", Right.DEVICE_CONNECT, _finish_upload),
)
