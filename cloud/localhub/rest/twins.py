"""Routes of twins and of direct methods, of devices and of modules alike."""

from typing import Any

from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.policies import Right
from cloud.localhub.rest.routes import Route, key_of, route
from cloud.localhub.throttles import Operation


async def _get_twin(hub: Hub, request: Request) -> Response:
    return _answer(hub.twin_form(await hub.get_device(key_of(request))))


async def _patch_twin(hub: Hub, request: Request) -> Response:
    etag = request.if_match() or "*"
    return _answer(hub.twin_form(await hub.patch_twin(key_of(request), request.json_object(), etag=etag)))


async def _put_twin(hub: Hub, request: Request) -> Response:
    etag = request.if_match() or "*"
    return _answer(hub.twin_form(await hub.replace_twin(key_of(request), request.json_object(), etag=etag)))


def _answer(form: dict[str, Any]) -> Response:
    return Response(200, form, {"etag": f'"{form["etag"]}"'})


async def _invoke_method(hub: Hub, request: Request) -> Response:
    result = await hub.invoke_method(key_of(request), request.json_object())
    return Response(200, {"status": result.status, "payload": result.payload})


ROUTES: tuple[Route, ...] = tuple(
    route(method, f"{twin}{path}", Right.SERVICE_CONNECT, handler, operation)
    for twin in ("/twins/{id}", "/twins/{id}/modules/{module}")
    for method, path, handler, operation in (
        ("GET", "", _get_twin, Operation.TWIN_READ),
        ("PATCH", "", _patch_twin, Operation.TWIN_UPDATE),
        ("PUT", "", _put_twin, Operation.TWIN_UPDATE),
        ("POST", "/methods", _invoke_method, Operation.METHOD),
    )
)
