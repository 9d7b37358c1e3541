"""Alerts and serving windows over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from cloud.auth.operators import Principal, require_operator
from cloud.dependencies import Limit, services
from cloud.governance.service import record
from cloud.monitoring import alerts
from cloud.monitoring.windows import newest_windows
from cloud.services import Services
from shared.api.alerts import Alert, ServingWindow

router = APIRouter(prefix="/v1", tags=["monitoring"], dependencies=[Depends(require_operator)])

FromServices = Annotated[Services, Depends(services)]
Operator = Annotated[Principal, Depends(require_operator)]


@router.get("/alerts")
def list_alerts(
    services: FromServices,
    is_open: Annotated[bool | None, Query(alias="open", description="Only open, or only closed ones")] = None,
    limit: Limit = 100,
) -> list[Alert]:
    """Alerts, newest first."""
    with services.sessions() as session, session.begin():
        return [alerts.shape(row) for row in alerts.newest_alerts(session, is_open=is_open, limit=limit)]


@router.get("/alerts/{alert_id}")
def show_alert(alert_id: str, services: FromServices) -> Alert:
    with services.sessions() as session, session.begin():
        return alerts.shape(alerts.get_alert(session, alert_id))


@router.post("/alerts/{alert_id}/close")
def close_alert(alert_id: str, services: FromServices, operator: Operator) -> Alert:
    """Closes an alert by hand. It opens again if its cause is seen again."""
    now = services.now()
    with services.sessions() as session, session.begin():
        row = alerts.close_alert(session, alert_id, principal=operator.name, role=operator.role, now=now)
        record(session, operator, action="alert.close", subject=alert_id, at=now)
        return alerts.shape(row)


@router.get("/serving-windows")
def list_serving_windows(
    services: FromServices,
    device_id: Annotated[str | None, Query(description="Only of this device")] = None,
    limit: Limit = 100,
) -> list[ServingWindow]:
    """Windows of inference endpoints, newest first."""
    with services.sessions() as session, session.begin():
        return newest_windows(session, device_id=device_id, limit=limit)
