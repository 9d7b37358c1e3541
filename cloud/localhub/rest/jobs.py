"""Routes of scheduled jobs, and of the jobs that import and export identities."""

from cloud.localhub.devices import check_device_id
from cloud.localhub.errors import invalid_argument
from cloud.localhub.http import Request, Response
from cloud.localhub.hub import Hub
from cloud.localhub.jobs import JobStatus, JobType
from cloud.localhub.policies import Right
from cloud.localhub.rest.routes import PAGE_MAX, Route, route
from cloud.localhub.throttles import Operation


async def _put(hub: Hub, request: Request) -> Response:
    return Response(200, await hub.jobs.put(request.path["id"], request.json_object()))


async def _get(hub: Hub, request: Request) -> Response:
    return Response(200, await hub.jobs.get(request.path["id"]))


async def _cancel(hub: Hub, request: Request) -> Response:
    return Response(200, await hub.jobs.cancel(request.path["id"]))


async def _query(hub: Hub, request: Request) -> Response:
    """Jobs by type and status. The answer is as the REST reference has it; continuation also comes as a header."""
    job_type, status = request.query.get("jobType"), request.query.get("jobStatus")
    if job_type is not None and job_type not in set(JobType):
        raise invalid_argument(f"Expected jobType of {', '.join(JobType)}, got {job_type[:40]!r}")
    if status is not None and status not in set(JobStatus):
        raise invalid_argument(f"Expected jobStatus of {', '.join(JobStatus)}, got {status[:40]!r}")
    limit = request.whole("pageSize", default=100, low=1, high=PAGE_MAX)
    told = request.headers.get("x-ms-continuation") or request.query.get("continuationToken")
    after = check_device_id(told) if told else ""
    items, following = await hub.jobs.find(job_type=job_type, status=status, after=after, limit=limit)
    headers = {"x-ms-item-type": "JobResponse"} | ({} if following is None else {"x-ms-continuation": following})
    return Response(200, {"type": "jobResponse", "items": items, "continuationToken": following}, headers)


async def _create_transfer(hub: Hub, request: Request) -> Response:
    return Response(200, await hub.transfers.create(request.json_object()))


async def _list_transfers(hub: Hub, request: Request) -> Response:
    return Response(200, await hub.transfers.all())


async def _get_transfer(hub: Hub, request: Request) -> Response:
    return Response(200, await hub.transfers.get(request.path["id"]))


async def _cancel_transfer(hub: Hub, request: Request) -> Response:
    await hub.transfers.cancel(request.path["id"])
    return Response(204)


ROUTES: tuple[Route, ...] = (
    route("POST", "/jobs/create", Right.REGISTRY_WRITE, _create_transfer, Operation.JOB),
    route("GET", "/jobs", Right.REGISTRY_WRITE, _list_transfers, Operation.JOB),
    route("GET", "/jobs/{id}", Right.REGISTRY_WRITE, _get_transfer, Operation.JOB),
    route("DELETE", "/jobs/{id}", Right.REGISTRY_WRITE, _cancel_transfer, Operation.JOB),
    route("GET", "/jobs/v2/query", Right.SERVICE_CONNECT, _query, Operation.JOB),
    route("PUT", "/jobs/v2/{id}", Right.SERVICE_CONNECT, _put, Operation.JOB),
    route("GET", "/jobs/v2/{id}", Right.SERVICE_CONNECT, _get, Operation.JOB),
    route("POST", "/jobs/v2/{id}/cancel", Right.SERVICE_CONNECT, _cancel, Operation.JOB),
)
