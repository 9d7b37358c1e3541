"""Routes of twins, of queries over them, and of direct methods."""

import base64

from cloud.localhub.devices import check_device_id
from cloud.localhub.errors import invalid_argument
from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.policies import Right
from cloud.localhub.rest.routes import PAGE_MAX, Route, route


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


async def _query(hub: Hub, request: Request) -> Response:
    text = request.json_object().get("query")
    if not isinstance(text, str):
        raise invalid_argument("Expected the query as a text")
    limit = request.header_whole("x-ms-max-item-count", default=100, low=1, high=PAGE_MAX)
    after = _continuation(request.headers.get("x-ms-continuation", ""))
    devices, last = await hub.query(text, after=after, limit=limit)
    headers = {"x-ms-item-type": "Twin"}
    if last is not None:
        headers["x-ms-continuation"] = base64.urlsafe_b64encode(last.encode()).decode()
    return Response(200, [hub.twin_form(device) for device in devices], headers)


def _continuation(token: str) -> str:
    if not token:
        return ""
    try:
        return check_device_id(base64.urlsafe_b64decode(token).decode())
    except ValueError as error:
        raise invalid_argument("Expected a continuation token of this hub, got another") from error


async def _invoke_method(hub: Hub, request: Request) -> Response:
    result = await hub.invoke_method(request.path["id"], request.json_object())
    return Response(200, {"status": result.status, "payload": result.payload})


ROUTES: tuple[Route, ...] = (
    route("POST", "/devices/query", Right.SERVICE_CONNECT, _query),
    route("GET", "/twins/{id}", Right.SERVICE_CONNECT, _get_twin),
    route("PATCH", "/twins/{id}", Right.SERVICE_CONNECT, _patch_twin),
    route("PUT", "/twins/{id}", Right.SERVICE_CONNECT, _put_twin),
    route("POST", "/twins/{id}/methods", Right.SERVICE_CONNECT, _invoke_method),
)
