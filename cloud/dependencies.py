"""How a route gets at the services: `Annotated[Services, Depends(services)]`."""

from typing import Annotated

from fastapi import Query, Request

from cloud.services import Services

Limit = Annotated[int, Query(ge=1, le=1000, description="Most entries to list, newest first")]
"""`limit: Limit = 100` in every list."""


async def services(request: Request) -> Services:
    """The services of the application that serves this request; async, or each request would hop through a thread."""
    found: Services = request.app.state.services
    return found
