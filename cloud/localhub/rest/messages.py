"""Routes of messages to devices, for their senders, and of what the hub tells services: feedback, uploaded files.

On Azure a sender speaks AMQP. Sending here is a request to the path that Azure keeps for the device's side, with the
headers of the device's side; purge and notices are IoT Hub's own REST API.
"""

from collections.abc import Callable

from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.messages import parse_message
from cloud.localhub.notices import Notices
from cloud.localhub.policies import Right
from cloud.localhub.rest.routes import Handler, Route, route
from cloud.localhub.throttles import Operation

_FEEDBACK_TYPE = "application/vnd.microsoft.iothub.feedback.json"
_FILE_TYPE = "application/vnd.microsoft.iothub.filenotification.json"


async def _send(hub: Hub, request: Request) -> Response:
    life_s = hub.limits.message_life_s
    message = parse_message(request.path["id"], request.headers, request.body, now=hub.time(), life_s=life_s)
    sequence = await hub.mailbox.send(message)
    return Response(204, headers={"iothub-sequencenumber": str(sequence)})


async def _purge(hub: Hub, request: Request) -> Response:
    purged = await hub.mailbox.purge(request.path["id"])
    return Response(200, {"totalMessagesPurged": purged, "deviceId": request.path["id"], "moduleId": None})


async def _receive_feedback(hub: Hub, request: Request) -> Response:
    batch = await hub.mailbox.feedback.receive()
    if batch is None:
        return Response(204)
    return Response(200, list(batch.records), {"etag": f'"{batch.token}"', "content-type": _FEEDBACK_TYPE})


async def _receive_file_notice(hub: Hub, request: Request) -> Response:
    batch = await hub.files.notices.receive()
    if batch is None:
        return Response(204)
    return Response(200, batch.records[0], {"etag": f'"{batch.token}"', "content-type": _FILE_TYPE})


def _notice_routes(path: str, receive: Handler, notices: Callable[[Hub], Notices]) -> tuple[Route, ...]:
    async def complete(hub: Hub, request: Request) -> Response:
        await notices(hub).complete(request.path["token"])
        return Response(204)

    async def abandon(hub: Hub, request: Request) -> Response:
        notices(hub).abandon(request.path["token"])
        return Response(204)

    return (
        route("GET", path, Right.SERVICE_CONNECT, receive),
        route("DELETE", f"{path}/{{token}}", Right.SERVICE_CONNECT, complete),
        route("POST", f"{path}/{{token}}/abandon", Right.SERVICE_CONNECT, abandon),
    )


ROUTES: tuple[Route, ...] = (
    route("POST", "/devices/{id}/messages/deviceBound", Right.SERVICE_CONNECT, _send, Operation.SEND_TO_DEVICE),
    route("DELETE", "/devices/{id}/commands", Right.SERVICE_CONNECT, _purge),
    *_notice_routes("/messages/serviceBound/feedback", _receive_feedback, lambda hub: hub.mailbox.feedback),
    *_notice_routes("/messages/serviceBound/filenotifications", _receive_file_notice, lambda hub: hub.files.notices),
)
