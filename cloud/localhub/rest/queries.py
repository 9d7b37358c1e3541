"""The route of the query language."""

from cloud.localhub.errors import invalid_argument
from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.policies import Right
from cloud.localhub.query.language import parse
from cloud.localhub.query.run import place_of, token_of
from cloud.localhub.query.tree import Source
from cloud.localhub.rest.routes import PAGE_MAX, Route, route
from cloud.localhub.throttles import Operation

_ITEM_TYPES = {Source.DEVICES: "Twin", Source.MODULES: "Twin", Source.JOBS: "DeviceJob"}


async def _query(hub: Hub, request: Request) -> Response:
    text = request.json_object().get("query")
    if not isinstance(text, str):
        raise invalid_argument("Expected the query as a text")
    limit = request.header_whole("x-ms-max-item-count", default=100, low=1, high=PAGE_MAX)
    query, place = parse(text), place_of(text, request.headers.get("x-ms-continuation", ""))
    documents, following = await hub.query(query, place, limit=limit)
    headers = {"x-ms-item-type": "Raw" if query.columns else _ITEM_TYPES[query.source]}
    if following is not None:
        headers["x-ms-continuation"] = token_of(text, following)
    return Response(200, documents, headers)


ROUTES: tuple[Route, ...] = (route("POST", "/devices/query", Right.SERVICE_CONNECT, _query, Operation.QUERY),)
