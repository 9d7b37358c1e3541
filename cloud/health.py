"""`GET /health`: whether each part of the coordinator works, for supervisors and people; needs no token."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from cloud.dependencies import services
from cloud.services import Services
from shared.api.base import Shape

router = APIRouter(tags=["health"])
OK = "ok"
DEGRADED = "degraded"


class Health(Shape):
    """`status` is `ok` when every component is; otherwise the component says what is wrong."""

    status: str
    components: dict[str, str]


@router.get("/health")
def get_health(services: Annotated[Services, Depends(services)], response: Response) -> Health:
    """503 when requests cannot be answered, which needs the database; what else is wrong is only named."""
    components = {"database": _database(services)} | dict(services.health)
    if components["database"] != OK:
        response.status_code = 503
    status = OK if all(state == OK for state in components.values()) else DEGRADED
    return Health(status=status, components=components)


def _database(services: Services) -> str:
    try:
        with services.sessions() as session:
            session.connection().execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        return f"unavailable: {type(error).__name__}"
    return OK
