"""Routes of the hub's owner alone: throttles and injected faults, looked at and switched while the hub runs.

Not IoT Hub's: it has no such thing.
"""

from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.policies import Right
from cloud.localhub.rest.routes import Route, route


async def _get(hub: Hub, request: Request) -> Response:
    return Response(200, hub.gates.switches())


async def _patch(hub: Hub, request: Request) -> Response:
    hub.gates.switch(request.json_object())
    return Response(200, hub.gates.switches())


ROUTES: tuple[Route, ...] = (
    route("GET", "/admin/switches", Right.SERVICE_CONNECT, _get, is_for_owner=True),
    route("PATCH", "/admin/switches", Right.SERVICE_CONNECT, _patch, is_for_owner=True),
)
