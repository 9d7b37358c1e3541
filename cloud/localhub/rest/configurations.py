"""Routes of automatic device configurations."""

from typing import Any

from cloud.localhub.configurations import METRICS_MAX, parse_edge_content, parse_metric, parse_target
from cloud.localhub.errors import ServiceError, invalid_argument
from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.policies import Right
from cloud.localhub.rest.routes import PAGE_MAX, Route, required_etag, route
from cloud.localhub.throttles import Operation


async def _list(hub: Hub, request: Request) -> Response:
    limit = request.whole("top", default=PAGE_MAX, low=1, high=PAGE_MAX)
    return Response(200, await hub.configurator.all(limit=limit))


async def _get(hub: Hub, request: Request) -> Response:
    return _answer(await hub.configurator.get(request.path["id"]))


async def _put(hub: Hub, request: Request) -> Response:
    body = request.json_object()
    return _answer(await hub.configurator.put(request.path["id"], body, etag=request.if_match()))


async def _delete(hub: Hub, request: Request) -> Response:
    await hub.configurator.delete(request.path["id"], etag=required_etag(request))
    return Response(204)


async def _test_queries(hub: Hub, request: Request) -> Response:
    """What is wrong with a target condition and metrics, each by itself; nothing is stored."""
    body = request.json_object()
    metrics = body.get("customMetricQueries") or {}
    if not isinstance(metrics, dict) or len(metrics) > METRICS_MAX:
        raise invalid_argument(f"Expected customMetricQueries as an object of at most {METRICS_MAX} queries")
    errors = {str(name): error for name, text in metrics.items() if (error := _error(parse_metric, text))}
    condition_error = _error(parse_target, body.get("targetCondition") or "")
    return Response(200, {"targetConditionError": condition_error, "customMetricQueryErrors": errors})


async def _apply_content(hub: Hub, request: Request) -> Response:
    """Sets desired properties of a device and its modules once, as IoT Edge's deployments to one device do."""
    contents = parse_edge_content(request.json_object())
    for change in await hub.configurator.apply_content(request.path["id"], contents):
        hub.twin_changed(change.device, change.patch)
    return Response(204)


def _error(parse: Any, text: object) -> str | None:
    if not isinstance(text, str):
        return f"Expected a text, got {type(text).__name__}"
    try:
        parse(text)
    except ServiceError as error:
        return str(error)
    return None


def _answer(form: dict[str, Any]) -> Response:
    return Response(200, form, {"etag": f'"{form["etag"]}"'})


ROUTES: tuple[Route, ...] = (
    route("GET", "/configurations", Right.REGISTRY_READ, _list, Operation.CONFIGURATION),
    route("POST", "/configurations/testQueries", Right.REGISTRY_READ, _test_queries, Operation.CONFIGURATION),
    route("GET", "/configurations/{id}", Right.REGISTRY_READ, _get, Operation.CONFIGURATION),
    route("PUT", "/configurations/{id}", Right.REGISTRY_WRITE, _put, Operation.CONFIGURATION),
    route("DELETE", "/configurations/{id}", Right.REGISTRY_WRITE, _delete, Operation.CONFIGURATION),
    route(
        "POST",
        "/devices/{id}/applyConfigurationContent",
        Right.REGISTRY_WRITE,
        _apply_content,
        Operation.CONFIGURATION,
    ),
)
