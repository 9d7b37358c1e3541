"""The services' door: IoT Hub's REST API, and the event log, as a bare ASGI application.

Routes are a table. Each has the right it needs; tokens are checked before anything is read. The query string's
`api-version` is accepted as it comes, because the answers are the same in all versions of this subset.
"""

import json
import math
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qs, unquote

import structlog

from cloud.localhub.errors import RefusedError, ServiceError, unauthorized
from cloud.localhub.gates import Verdict
from cloud.localhub.http import Receive, Request, Response, Scope, Send, read_body, respond
from cloud.localhub.hub import Hub
from cloud.localhub.policies import Right
from cloud.localhub.rest import (
    configurations,
    device,
    digital_twins,
    enrollments,
    events,
    identities,
    jobs,
    messages,
    queries,
    switches,
    twins,
)
from cloud.localhub.rest.routes import Route
from cloud.localhub.sas import check_sas, parse_sas
from cloud.localhub.session import Authenticate
from cloud.localhub.throttles import Operation

_log = structlog.get_logger("localhub")

PEER_CERTIFICATE = "localhub.peer_certificate"
"""The key in the scope's state of the certificate that a device showed when it connected."""

ROUTES: tuple[Route, ...] = (
    *identities.ROUTES,
    *twins.ROUTES,
    *digital_twins.ROUTES,
    *queries.ROUTES,
    *configurations.ROUTES,
    *jobs.ROUTES,
    *messages.ROUTES,
    *enrollments.ROUTES,
    *events.ROUTES,
    *device.ROUTES,
    *switches.ROUTES,
)


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
        if route.right is Right.DEVICE_CONNECT:
            await self._check_device(scope, headers, groups["id"])
        else:
            self._check_token(headers, path=path, route=route)
        limits = self._hub.limits
        body = await read_body(receive, bytes_max=limits.body_bytes_max, timeout_s=limits.body_s)
        if self._hub.gates.are_shut and route.operation is not None:
            await self._pass_gate(route.operation, groups.get("id", ""), size_bytes=len(body))
        fields = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        query = {key: values[-1] for key, values in fields.items()}
        return await route.handler(self._hub, Request(groups, query, headers, body))

    async def _pass_gate(self, operation: Operation, device_id: str, *, size_bytes: int) -> None:
        """Returns when the request may go on. Raises ServiceError: HTTP must answer, where MQTT may stay silent."""
        verdict = await self._hub.gates.ask(operation, device_id, size_bytes=size_bytes)
        if verdict in (Verdict.DROP, Verdict.CLOSE):
            raise ServiceError(503, 503001, "ServiceUnavailable", "A fault that was injected")

    async def _check_device(self, scope: Scope, headers: Mapping[str, str], device_id: str) -> None:
        """A device proves who it is as over MQTT: by a token, or by the certificate of its connection."""
        token = headers.get("authorization")
        try:
            resource = parse_sas(token).resource if token else ""
            hostname = _audiences(headers.get("host", ""), resource)
            request = Authenticate(device_id, hostname, token, clean_session=True)
            await self._hub.authenticate(request, scope["state"].get(PEER_CERTIFICATE))
        except RefusedError as error:
            raise unauthorized(str(error)) from error

    def _check_token(self, headers: Mapping[str, str], *, path: str, route: Route) -> None:
        try:
            token = parse_sas(headers.get("authorization", ""))
            policy = self._hub.policies.get(token.policy or "")
            if policy is None:
                raise RefusedError(f"Expected a token of one of the hub's policies, got {token.policy!r}")
            resources = _audiences(headers.get("host", ""), token.resource)
            check_sas(token, keys=policy.keys, resource=f"{resources}{path}", now=self._hub.time())
        except RefusedError as error:
            raise unauthorized(str(error)) from error
        needed = set(Right) if route.is_for_owner else {route.right}
        if lacking := needed - policy.rights:
            raise unauthorized(f"Expected a policy with {', '.join(sorted(lacking))}, got {policy.name}")


def _audiences(host: str, resource: str) -> str:
    """The host the token must be for: with its port where the token names one, as azure-iot-hub's do."""
    name, _, _ = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
    return host if ":" in resource.partition("/")[0].rpartition("]")[2] else name


def _route(method: str, path: str) -> tuple[Route, dict[str, str]]:
    is_known = False
    for route in ROUTES:
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
    headers = {"iothub-errorcode": error.name}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    return Response(error.status, body, headers)
