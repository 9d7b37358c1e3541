"""Routes of twins and of direct methods."""

from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.policies import Right
from cloud.localhub.rest.routes import Route, route


async def _get_twin(hub: Hub, request: Request) -> Response:
    form = hub.twin_form(await hub.get_device(request.path["id"]))
    return Response(200, form, {"etag": f'"{form["etag"]}"'})


async def _patch_twin(hub: Hub, request: Request) -> Response:
    etag = request.if_match() or "*"
    form = hub.twin_form(await hub.patch_twin(request.path["id"], request.json_object(), etag=etag))
    return Response(200, form, {"etag": f'"{form["etag"]}"'})


async def _put_twin(hub: Hub, request: Request) -> Response:
    etag = request.if_match() or "*"
    form = hub.twin_form(await hub.replace_twin(request.path["id"], request.json_object(), etag=etag))
    return Response(200, form, {"etag": f'"{form["etag"]}"'})


async def _invoke_method(hub: Hub, request: Request) -> Response:
    result = await hub.invoke_method(request.path["id"], request.json_object())
    return Response(200, {"status": result.status, "payload": result.payload})


ROUTES: tuple[Route, ...] = (
    route("GET", "/twins/{id}", Right.SERVICE_CONNECT, _get_twin),
    route("PATCH", "/twins/{id}", Right.SERVICE_CONNECT, _patch_twin),
    route("PUT", "/twins/{id}", Right.SERVICE_CONNECT, _put_twin),
    route("POST", "/twins/{id}/methods", Right.SERVICE_CONNECT, _invoke_method),
)
