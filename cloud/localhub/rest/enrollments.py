"""Routes of the provisioning service's own API: enrolments of both kinds, and registrations.

https://learn.microsoft.com/rest/api/iot-dps/service
"""

from collections.abc import Sequence
from typing import Any

from cloud.localhub.enrollments import Kind, attestation_form, service_form
from cloud.localhub.errors import invalid_argument
from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.policies import Right
from cloud.localhub.rest.routes import PAGE_MAX, Handler, Route, route

_PAGE = 100


def _put(kind: Kind) -> Handler:
    async def put(hub: Hub, request: Request) -> Response:
        body, etag = request.json_object(), request.if_match()
        enrollment = await hub.enrolling.put(kind, request.path["id"], body, etag=etag)
        return Response(200, service_form(enrollment, hostname=hub.enrolling.hostname))

    return put


def _get(kind: Kind) -> Handler:
    async def get(hub: Hub, request: Request) -> Response:
        enrollment = await hub.enrolling.get(kind, request.path["id"])
        return Response(200, service_form(enrollment, hostname=hub.enrolling.hostname))

    return get


def _delete(kind: Kind) -> Handler:
    async def delete(hub: Hub, request: Request) -> Response:
        await hub.enrolling.delete(kind, request.path["id"], etag=request.if_match() or "*")
        return Response(204)

    return delete


def _attestation(kind: Kind) -> Handler:
    async def attestation(hub: Hub, request: Request) -> Response:
        return Response(200, attestation_form(await hub.enrolling.get(kind, request.path["id"])))

    return attestation


def _query(kind: Kind, table: str) -> Handler:
    async def query(hub: Hub, request: Request) -> Response:
        text = request.json_object().get("query")
        if not isinstance(text, str) or text.lower().split() != ["select", "*", "from", table]:
            raise invalid_argument(f"Expected a query of all {table} and no condition, got {str(text)[:80]!r}")
        limit, after = _page_of(request)
        found = await hub.enrolling.page(kind, after=after, limit=limit)
        forms = [service_form(enrollment, hostname=hub.enrolling.hostname) for enrollment in found]
        return _paged(forms, limit=limit, last=found[-1].enrollment_id if found else "")

    return query


async def _get_registration(hub: Hub, request: Request) -> Response:
    return Response(200, await hub.enrolling.get_registration(request.path["id"]))


async def _delete_registration(hub: Hub, request: Request) -> Response:
    await hub.enrolling.delete_registration(request.path["id"])
    return Response(204)


async def _query_registrations(hub: Hub, request: Request) -> Response:
    limit, after = _page_of(request)
    states = await hub.enrolling.registrations_of(request.path["id"], after=after, limit=limit)
    return _paged(states, limit=limit, last=states[-1]["registrationId"] if states else "")


async def _id_scope(hub: Hub, request: Request) -> Response:
    return Response(200, {"idScope": await hub.enrolling.id_scope()})


def _page_of(request: Request) -> tuple[int, str]:
    limit = request.header_whole("x-ms-max-item-count", default=_PAGE, low=1, high=PAGE_MAX)
    return limit, request.headers.get("x-ms-continuation", "").lower()


def _paged(forms: Sequence[dict[str, Any]], *, limit: int, last: str) -> Response:
    return Response(200, list(forms), {"x-ms-continuation": last} if len(forms) == limit else {})


def _routes_of(kind: Kind, path: str, table: str) -> tuple[Route, ...]:
    return (
        route("POST", f"{path}/query", Right.REGISTRY_READ, _query(kind, table)),
        route("GET", f"{path}/{{id}}", Right.REGISTRY_READ, _get(kind)),
        route("PUT", f"{path}/{{id}}", Right.REGISTRY_WRITE, _put(kind)),
        route("DELETE", f"{path}/{{id}}", Right.REGISTRY_WRITE, _delete(kind)),
        route("POST", f"{path}/{{id}}/attestationmechanism", Right.REGISTRY_WRITE, _attestation(kind)),
    )


ROUTES: tuple[Route, ...] = (
    *_routes_of(Kind.INDIVIDUAL, "/enrollments", "enrollments"),
    *_routes_of(Kind.GROUP, "/enrollmentGroups", "enrollmentgroups"),
    route("GET", "/registrations/{id}", Right.REGISTRY_READ, _get_registration),
    route("DELETE", "/registrations/{id}", Right.REGISTRY_WRITE, _delete_registration),
    route("POST", "/registrations/{id}/query", Right.REGISTRY_READ, _query_registrations),
    route("GET", "/provisioning", Right.REGISTRY_READ, _id_scope),
)
