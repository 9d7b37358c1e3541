"""`fleetlearn coordinator serve`: the coordinator as one process, over TLS, until SIGTERM or Ctrl-C."""

import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import uvicorn
from fastapi import FastAPI

from cloud.app import create_app
from cloud.compose import build_services
from cloud.controllers import running
from cloud.database_lock import DatabaseLock
from cloud.domains import controllers, routers
from cloud.first_start import prepare
from cloud.locks import exclusive
from cloud.logs import configure_logs
from cloud.services import Services
from cloud.settings import Settings

_SHUTDOWN_S = 5
_log = structlog.get_logger()


def serve(settings: Settings) -> None:
    """Prepares the data folder, then serves. Raises AlreadyRunningError for a folder or a database in use."""
    configure_logs(level=settings.log_level, style=settings.log_format)
    folder = exclusive(settings.data_dir / "coordinator.lock", what="coordinator")
    with folder, DatabaseLock(settings.database) as database:
        prepare(settings, now=time.time())
        # Uvicorn stops in order and then raises the signal again: the way out is a plain exit.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        _log.info("coordinator_starting", url=settings.url)
        server = _server(settings)
        with database.watched(stop=lambda: setattr(server, "should_exit", True)):
            server.run()


def application(services: Services) -> FastAPI:
    """The coordinator's application with its controllers, which run while it is served."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with running(controllers(services), services.health):
            yield
        await services.hub.close()

    return create_app(services, routers(), lifespan=lifespan)


def _server(settings: Settings) -> uvicorn.Server:
    config = uvicorn.Config(
        lambda: application(build_services(settings)),
        factory=True,
        host=settings.address,
        port=settings.port,
        ssl_certfile=settings.pki_dir / "coordinator.pem",
        ssl_keyfile=str(settings.pki_dir / "coordinator.key"),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    return uvicorn.Server(config)
