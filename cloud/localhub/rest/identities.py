"""Routes of the identity registry, of devices and of modules alike, and its statistics."""

from typing import Any

from cloud.localhub.bulk import ENTRIES_MAX, change_identities
from cloud.localhub.devices import service_form
from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.policies import Right
from cloud.localhub.rest.routes import PAGE_MAX, Route, key_of, required_etag, route
from cloud.localhub.tables import Device
from cloud.localhub.throttles import Operation


async def _get(hub: Hub, request: Request) -> Response:
    return _answer(hub, await hub.get_device(key_of(request)))


async def _put(hub: Hub, request: Request) -> Response:
    return _answer(hub, await hub.put_identity(key_of(request), request.json_object(), etag=request.if_match()))


async def _delete(hub: Hub, request: Request) -> Response:
    await hub.delete_identity(key_of(request), etag=required_etag(request))
    return Response(204)


async def _list_devices(hub: Hub, request: Request) -> Response:
    limit = request.whole("top", default=PAGE_MAX, low=1, high=PAGE_MAX)
    devices = await hub.list_devices(limit=limit)
    return Response(200, [_form(hub, device) for device in devices])


async def _list_modules(hub: Hub, request: Request) -> Response:
    modules = await hub.list_modules(request.path["id"])
    return Response(200, [_form(hub, module) for module in modules])


async def _change_many(hub: Hub, request: Request) -> Response:
    entries = request.json_array(items_max=ENTRIES_MAX)
    if hub.gates.are_shut:
        # Each entry counts, so the route itself does not.
        await hub.gates.ask(Operation.REGISTRY, cost=len(entries))
    errors = await change_identities(hub, entries)
    return Response(400 if errors else 200, {"isSuccessful": not errors, "errors": errors, "warnings": []})


async def _statistics(hub: Hub, request: Request) -> Response:
    enabled, disabled = await hub.count_devices()
    total = enabled + disabled
    counts = {"totalDeviceCount": total, "enabledDeviceCount": enabled, "disabledDeviceCount": disabled}
    return Response(200, counts)


async def _service_statistics(hub: Hub, request: Request) -> Response:
    return Response(200, {"connectedDeviceCount": len(hub.links)})


def _form(hub: Hub, device: Device) -> dict[str, Any]:
    return service_form(device.identity, hub.presence(device.identity.key), messages=device.messages)


def _answer(hub: Hub, device: Device) -> Response:
    return Response(200, _form(hub, device), {"etag": f'"{device.identity.etag}"'})


ROUTES: tuple[Route, ...] = (
    route("GET", "/devices", Right.REGISTRY_READ, _list_devices, Operation.REGISTRY),
    route("POST", "/devices", Right.REGISTRY_WRITE, _change_many),
    route("GET", "/devices/{id}", Right.REGISTRY_READ, _get, Operation.REGISTRY),
    route("PUT", "/devices/{id}", Right.REGISTRY_WRITE, _put, Operation.REGISTRY),
    route("DELETE", "/devices/{id}", Right.REGISTRY_WRITE, _delete, Operation.REGISTRY),
    route("GET", "/devices/{id}/modules", Right.REGISTRY_READ, _list_modules, Operation.REGISTRY),
    route("GET", "/devices/{id}/modules/{module}", Right.REGISTRY_READ, _get, Operation.REGISTRY),
    route("PUT", "/devices/{id}/modules/{module}", Right.REGISTRY_WRITE, _put, Operation.REGISTRY),
    route("DELETE", "/devices/{id}/modules/{module}", Right.REGISTRY_WRITE, _delete, Operation.REGISTRY),
    route("GET", "/statistics/devices", Right.REGISTRY_READ, _statistics, Operation.REGISTRY),
    route("GET", "/statistics/service", Right.REGISTRY_READ, _service_statistics, Operation.REGISTRY),
)
