"""Routes of messages to devices, for their senders: send, purge, and the feedback on them.

On Azure a sender speaks AMQP. Sending here is a request to the path that Azure keeps for the device's side, with the
headers of the device's side; purge and feedback are IoT Hub's own REST API.
"""

from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.messages import parse_message
from cloud.localhub.policies import Right
from cloud.localhub.rest.routes import Route, route

_FEEDBACK_TYPE = "application/vnd.microsoft.iothub.feedback.json"


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


async def _complete_feedback(hub: Hub, request: Request) -> Response:
    await hub.mailbox.feedback.complete(request.path["token"])
    return Response(204)


async def _abandon_feedback(hub: Hub, request: Request) -> Response:
    hub.mailbox.feedback.abandon(request.path["token"])
    return Response(204)


ROUTES: tuple[Route, ...] = (
    route("POST", "/devices/{id}/messages/deviceBound", Right.SERVICE_CONNECT, _send),
    route("DELETE", "/devices/{id}/commands", Right.SERVICE_CONNECT, _purge),
    route("GET", "/messages/serviceBound/feedback", Right.SERVICE_CONNECT, _receive_feedback),
    route("DELETE", "/messages/serviceBound/feedback/{token}", Right.SERVICE_CONNECT, _complete_feedback),
    route("POST", "/messages/serviceBound/feedback/{token}/abandon", Right.SERVICE_CONNECT, _abandon_feedback),
)
