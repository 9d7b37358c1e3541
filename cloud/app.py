"""The HTTP application: every domain's routes, and the one place where errors get their status."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from cloud.blobs.uploads import UploadOffsetError
from cloud.errors import (
    ConflictError,
    CoordinatorError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    RangeError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
)
from cloud.health import router as health_router
from cloud.middleware import BodyLimit, NonceOnAnswers
from cloud.services import Services
from shared.api.base import Problem
from shared.device_auth import BadSignatureError
from shared.errors import FleetlearnError
from shared.hub.port import HubError, HubUnavailableError
from shared.lifecycles import IllegalTransitionError

_log = structlog.get_logger()

STATUS_BY_FAMILY: Mapping[type[FleetlearnError], int] = {
    UnauthenticatedError: 401,
    BadSignatureError: 401,
    ForbiddenError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    IllegalTransitionError: 409,
    TooLargeError: 413,
    RangeError: 416,
    InvalidRequestError: 422,
    UnavailableError: 503,
    HubUnavailableError: 503,
    HubError: 502,
    CoordinatorError: 500,
    FleetlearnError: 422,
}
"""The nearest base class counts. What remains of ours comes from parsing what was sent: 422."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(services: Services, routers: Iterable[APIRouter], *, lifespan: Lifespan | None = None) -> FastAPI:
    """The coordinator over HTTP. Its page of documentation at /docs needs no token; every call does.

    Args:
        services: What the routes work with.
        routers: Of all domains.
        lifespan: Starts and stops what runs beside the routes.
    """
    # FastAPI's own page loads its script from a public host: blank in a factory without the internet.
    app = FastAPIOffline(
        title="fleetlearn coordinator",
        version=version("fleetlearn"),
        lifespan=lifespan or _nothing_beside,
        responses={"4XX": {"model": Problem}},
    )
    app.state.services = services
    for router in (health_router, *routers):
        app.include_router(router)
    app.add_middleware(BodyLimit, bytes_max=services.settings.body_bytes_max)
    app.add_middleware(NonceOnAnswers, nonces=services.nonces, now=services.now)
    _answer_errors(app)
    return app


def status_of(error: FleetlearnError) -> int:
    """The HTTP status of an error: its nearest family's."""
    return next(STATUS_BY_FAMILY[base] for base in type(error).__mro__ if base in STATUS_BY_FAMILY)


def _answer_errors(app: FastAPI) -> None:
    handlers: Mapping[type[Exception], Callable[[Request, Any], Awaitable[JSONResponse]]] = {
        FleetlearnError: _answer_ours,
        RequestValidationError: _answer_validation,
        HTTPException: _answer_http,
        OperationalError: _answer_no_database,
        ClientDisconnect: _answer_nobody,
        Exception: _answer_bug,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _answer_ours(_request: Request, error: FleetlearnError) -> JSONResponse:
    headers = {}
    if isinstance(error, UploadOffsetError):
        headers["Upload-Offset"] = str(error.offset)
    if isinstance(error, RangeError):
        headers["Content-Range"] = f"bytes */{error.size_bytes}"
    return _problem(status_of(error), Problem(code=error.code, message=error.message, hint=error.hint), headers)


async def _answer_validation(_request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = f"Expected a valid request, got a problem in {where}: {first['msg']}"
    return _problem(
        422, Problem(code=InvalidRequestError.code, message=message, hint="The page /docs shows the shapes.")
    )


async def _answer_http(_request: Request, error: HTTPException) -> JSONResponse:
    code = {404: "no_such_route", 405: "no_such_method"}.get(error.status_code, f"http_{error.status_code}")
    return _problem(error.status_code, Problem(code=code, message=str(error.detail)), error.headers)


async def _answer_no_database(request: Request, error: OperationalError) -> JSONResponse:
    """The database is away or busy for too long: the request may be sent again."""
    _log.error("database_unavailable", method=request.method, path=request.url.path, reason=str(error.orig))
    message = "Expected the database to answer in time, it did not"
    return _problem(503, Problem(code="database_unavailable", message=message, hint="Try again in a moment."))


async def _answer_nobody(_request: Request, _error: ClientDisconnect) -> JSONResponse:
    """Devices lose their line in the middle of an upload all the time; they come back and resume."""
    return _problem(400, Problem(code="client_disconnected", message="Expected the whole body, the client hung up"))


async def _answer_bug(request: Request, error: Exception) -> JSONResponse:
    """A mistake of ours: said without details, which are in the log."""
    _log.error("request_failed", method=request.method, path=request.url.path, exc_info=error)
    return _problem(500, Problem(code="internal_error", message="The coordinator made a mistake; its log says which"))


def _problem(status: int, problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(problem.model_dump(), status_code=status, headers=dict(headers or {}))


@asynccontextmanager
async def _nothing_beside(_app: FastAPI) -> AsyncIterator[None]:
    yield
