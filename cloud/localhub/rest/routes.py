"""What a route is: a method, a path, the right it needs, and who answers."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cloud.localhub.errors import ServiceError
from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.policies import Right
from cloud.localhub.throttles import Operation

PAGE_MAX = 1_000
"""Of devices, modules or results in one answer."""

Handler = Callable[[Hub, Request], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """`template` is the path as it is written; `operation` is what a throttle counts a request as."""

    method: str
    template: str
    path: re.Pattern[str]
    right: Right
    handler: Handler
    operation: Operation | None = None
    is_for_owner: bool = False
    """Whether all rights are needed, as the hub's owner has them."""


def route(
    method: str,
    path: str,
    right: Right,
    handler: Handler,
    operation: Operation | None = None,
    *,
    is_for_owner: bool = False,
) -> Route:
    """A route of a path like `/twins/{id}/modules/{module}`; a part in braces is one segment, and a group."""
    pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]{1,128})", path))
    return Route(method, path, pattern, right, handler, operation, is_for_owner)


def key_of(request: Request) -> str:
    """The key of the device, or of the module, that the path names."""
    module_id = request.path.get("module")
    return request.path["id"] if module_id is None else f"{request.path['id']}/{module_id}"


def required_etag(request: Request) -> str:
    """The ETag of a request that must have one; `*` matches any. Raises ServiceError."""
    etag = request.if_match()
    if etag is None:
        raise ServiceError(412, 412001, "PreconditionFailed", "Expected an If-Match header, got none; * matches any")
    return etag
