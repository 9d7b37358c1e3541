"""Routes of the identity registry and its statistics."""

from cloud.localhub.devices import service_form
from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.policies import Right
from cloud.localhub.rest.routes import PAGE_MAX, Route, required_etag, route


async def _get_device(hub: Hub, request: Request) -> Response:
    device = await hub.get_device(request.path["id"])
    form = service_form(device.identity, hub.presence(request.path["id"]))
    return Response(200, form, {"etag": f'"{device.identity.etag}"'})


async def _put_device(hub: Hub, request: Request) -> Response:
    device = await hub.put_identity(request.path["id"], request.json_object(), etag=request.if_match())
    form = service_form(device.identity, hub.presence(request.path["id"]))
    return Response(200, form, {"etag": f'"{device.identity.etag}"'})


async def _delete_device(hub: Hub, request: Request) -> Response:
    await hub.delete_identity(request.path["id"], etag=required_etag(request))
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


ROUTES: tuple[Route, ...] = (
    route("GET", "/devices", Right.REGISTRY_READ, _list_devices),
    route("GET", "/devices/{id}", Right.REGISTRY_READ, _get_device),
    route("PUT", "/devices/{id}", Right.REGISTRY_WRITE, _put_device),
    route("DELETE", "/devices/{id}", Right.REGISTRY_WRITE, _delete_device),
    route("GET", "/statistics/devices", Right.REGISTRY_READ, _statistics),
    route("GET", "/statistics/service", Right.REGISTRY_READ, _service_statistics),
)
