"""Routes of digital twins: the twin in the form of IoT Plug and Play, and commands, which are direct methods."""

import secrets

from cloud.localhub.digital_twins import desired_patch, digital_twin
from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.methods import CONNECT_TIMEOUT_S, RESPONSE_TIMEOUT_S
from cloud.localhub.policies import Right
from cloud.localhub.rest.routes import Route, route
from cloud.localhub.throttles import Operation

_PATH = "/digitaltwins/{id}"


async def _get(hub: Hub, request: Request) -> Response:
    device = await hub.get_device(request.path["id"])
    form = hub.twin_form(device)
    document = digital_twin(device.twin, device_id=request.path["id"], model_id=form["modelId"])
    return Response(200, document, {"etag": f'"{form["etag"]}"'})


async def _patch(hub: Hub, request: Request) -> Response:
    body = {"properties": {"desired": desired_patch(request.json())}}
    form = hub.twin_form(await hub.patch_twin(request.path["id"], body, etag=request.if_match() or "*"))
    return Response(202, headers={"etag": f'"{form["etag"]}"', "location": f"/digitaltwins/{request.path['id']}"})


async def _invoke(hub: Hub, request: Request) -> Response:
    component = request.path.get("component")
    command = request.path["command"]
    call = {
        "methodName": command if component is None else f"{component}*{command}",
        "payload": request.json() if request.body else None,
        "responseTimeoutInSeconds": _seconds(request, "responseTimeoutInSeconds", 30, RESPONSE_TIMEOUT_S),
        "connectTimeoutInSeconds": _seconds(request, "connectTimeoutInSeconds", 0, CONNECT_TIMEOUT_S),
    }
    result = await hub.invoke_method(request.path["id"], call)
    headers = {"x-ms-command-statuscode": str(result.status), "x-ms-request-id": secrets.token_hex(16)}
    return Response(200, result.payload, headers)


def _seconds(request: Request, key: str, default: int, bounds: tuple[int, int]) -> int:
    return request.whole(key, default=default, low=bounds[0], high=bounds[1])


ROUTES: tuple[Route, ...] = (
    route("GET", _PATH, Right.SERVICE_CONNECT, _get, Operation.TWIN_READ),
    route("PATCH", _PATH, Right.SERVICE_CONNECT, _patch, Operation.TWIN_UPDATE),
    route("POST", f"{_PATH}/commands/{{command}}", Right.SERVICE_CONNECT, _invoke, Operation.METHOD),
    route(
        "POST",
        f"{_PATH}/components/{{component}}/commands/{{command}}",
        Right.SERVICE_CONNECT,
        _invoke,
        Operation.METHOD,
    ),
)
