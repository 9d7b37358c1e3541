"""The services' door: IoT Hub's REST API, and the event log, as a bare ASGI application.

Routes are a table. Each has the right it needs; tokens are checked before anything is read. The query string's
`api-version` is accepted as it comes, because the answers are the same in all versions of this subset.
"""

import base64
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

import structlog

from cloud.localhub.devices import check_device_id, service_form
from cloud.localhub.errors import RefusedError, ServiceError, invalid_argument, unauthorized
from cloud.localhub.http import Receive, Request, Response, Scope, Send, read_body, respond
from cloud.localhub.hub import Hub, iso
from cloud.localhub.policies import Right
from cloud.localhub.sas import check_sas, parse_sas

_log = structlog.get_logger("localhub")

PAGE_MAX = 1_000
EVENTS_PAGE_MAX = 1_000
EVENTS_WAIT_S_MAX = 60.0

Handler = Callable[[Hub, Request], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    method: str
    path: re.Pattern[str]
    right: Right
    handler: Handler


class ServiceApi:
    """The ASGI application."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"Expected an HTTP request, got {scope['type']}")
        try:
            response = await self._answer(scope, receive)
        except ServiceError as error:
            response = _error_response(error, now=self._hub.now())
        except Exception:
            # The one place where a mistake of ours must not reach the caller as anything but a 500.
            _log.exception("request_failed", method=scope["method"], path=scope["path"][:200])
            mistake = ServiceError(500, 500001, "ServerError", "The hub made a mistake; its log says which")
            response = _error_response(mistake, now=self._hub.now())
        await respond(send, response)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        if scope["path"] == "/health":
            return Response(200, {"status": "ok", "connections": len(self._hub.links)})
        path = unquote(scope["raw_path"].decode("ascii", "replace"))
        route, groups = _route(scope["method"], path)
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        self._check_token(headers, path=path, right=route.right)
        limits = self._hub.limits
        body = await read_body(receive, bytes_max=limits.body_bytes_max, timeout_s=limits.body_s)
        query = {key: values[-1] for key, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
        return await route.handler(self._hub, Request(groups, query, headers, body))

    def _check_token(self, headers: Mapping[str, str], *, path: str, right: Right) -> None:
        try:
            token = parse_sas(headers.get("authorization", ""))
            policy = self._hub.policies.get(token.policy or "")
            if policy is None:
                raise RefusedError(f"Expected a token of one of the hub's policies, got {token.policy!r}")
            resources = _audiences(headers.get("host", ""), token.resource)
            check_sas(token, keys=policy.keys, resource=f"{resources}{path}", now=self._hub.time())
        except RefusedError as error:
            raise unauthorized(str(error)) from error
        if right not in policy.rights:
            raise unauthorized(f"Expected a policy with {right}, got {policy.name}")


def _audiences(host: str, resource: str) -> str:
    """The host the token must be for: with its port where the token names one, as azure-iot-hub's do."""
    name, _, _ = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
    return host if ":" in resource.partition("/")[0].rpartition("]")[2] else name


def _route(method: str, path: str) -> tuple[Route, dict[str, str]]:
    is_known = False
    for route in _ROUTES:
        if match := route.path.fullmatch(path):
            is_known = True
            if route.method == method:
                return route, match.groupdict()
    if is_known:
        raise ServiceError(405, 405001, "MethodNotAllowed", f"Expected another method for this path, got {method}")
    raise ServiceError(404, 404002, "NotFound", f"Expected a path of the service API, got {path[:80]!r}")


def _error_response(error: ServiceError, *, now: str) -> Response:
    """IoT Hub's error body; direct methods' errors carry JSON inside the message, as IoT Hub's do."""
    tracking = f"{secrets.token_hex(16).upper()}-TimeStamp:{now}"
    if error.number in (404103, 504101):
        inner = {"errorCode": error.number, "trackingId": tracking, "message": str(error), "timestampUtc": now}
        return Response(
            error.status, {"Message": json.dumps(inner), "ExceptionMessage": ""}, {"iothub-errorcode": error.name}
        )
    body = {"Message": f"ErrorCode:{error.name};{error}", "ExceptionMessage": f"Tracking ID:{tracking}"}
    return Response(error.status, body, {"iothub-errorcode": error.name})


# Identities


async def _get_device(hub: Hub, request: Request) -> Response:
    device = await hub.get_device(request.path["id"])
    form = service_form(device.identity, hub.presence(request.path["id"]))
    return Response(200, form, {"etag": f'"{device.identity.etag}"'})


async def _put_device(hub: Hub, request: Request) -> Response:
    device = await hub.put_identity(request.path["id"], request.json_object(), etag=request.if_match())
    form = service_form(device.identity, hub.presence(request.path["id"]))
    return Response(200, form, {"etag": f'"{device.identity.etag}"'})


async def _delete_device(hub: Hub, request: Request) -> Response:
    etag = request.if_match()
    if etag is None:
        raise ServiceError(412, 412001, "PreconditionFailed", "Expected an If-Match header, got none; * matches any")
    await hub.delete_identity(request.path["id"], etag=etag)
    return Response(204)


async def _list_devices(hub: Hub, request: Request) -> Response:
    limit = request.whole("top", default=PAGE_MAX, low=1, high=PAGE_MAX)
    devices = await hub.list_devices(limit=limit)
    forms = [service_form(device.identity, hub.presence(device.identity.device_id)) for device in devices]
    return Response(200, forms)


async def _statistics(hub: Hub, request: Request) -> Response:
    enabled, disabled = await hub.count_devices()
    total = enabled + disabled
    counts = {"totalDeviceCount": total, "enabledDeviceCount": enabled, "disabledDeviceCount": disabled}
    return Response(200, counts)


async def _service_statistics(hub: Hub, request: Request) -> Response:
    return Response(200, {"connectedDeviceCount": len(hub.links)})


# Twins and methods


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


# The event log: what IoT Hub offers through Event Hubs and AMQP


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


_ID = r"(?P<id>[^/]{1,128})"
_ROUTES: tuple[Route, ...] = tuple(
    Route(method, re.compile(path), right, handler)
    for method, path, right, handler in (
        ("GET", "/devices", Right.REGISTRY_READ, _list_devices),
        ("POST", "/devices/query", Right.SERVICE_CONNECT, _query),
        ("GET", f"/devices/{_ID}", Right.REGISTRY_READ, _get_device),
        ("PUT", f"/devices/{_ID}", Right.REGISTRY_WRITE, _put_device),
        ("DELETE", f"/devices/{_ID}", Right.REGISTRY_WRITE, _delete_device),
        ("GET", f"/twins/{_ID}", Right.SERVICE_CONNECT, _get_twin),
        ("PATCH", f"/twins/{_ID}", Right.SERVICE_CONNECT, _patch_twin),
        ("PUT", f"/twins/{_ID}", Right.SERVICE_CONNECT, _put_twin),
        ("POST", f"/twins/{_ID}/methods", Right.SERVICE_CONNECT, _invoke_method),
        ("GET", "/statistics/devices", Right.REGISTRY_READ, _statistics),
        ("GET", "/statistics/service", Right.REGISTRY_READ, _service_statistics),
        ("GET", "/events", Right.SERVICE_CONNECT, _events),
    )
)
