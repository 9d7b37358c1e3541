"""Analyses over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, status

from cloud.auth.operators import Principal, require_operator
from cloud.campaigns.analytics import service
from cloud.campaigns.launch import launch
from cloud.dependencies import Limit, services
from cloud.governance.service import record
from cloud.services import Services
from shared.api.analytics import Analysis, AnalysisCreate

router = APIRouter(prefix="/v1/analyses", tags=["analytics"], dependencies=[Depends(require_operator)])
_Services = Annotated[Services, Depends(services)]
_Operator = Annotated[Principal, Depends(require_operator)]


@router.post("", status_code=status.HTTP_201_CREATED)
def create_analysis(asked: AnalysisCreate, services: _Services, principal: _Operator) -> Analysis:
    """Asks the fleet a question about one feature."""
    started = launch(services, principal)
    with services.sessions() as session, session.begin():
        created = service.create_analysis(session, asked, started)
        record(
            session,
            principal,
            action="analysis.create",
            subject=started.campaign_id,
            at=started.now,
            details=asked.model_dump(mode="json"),
        )
        return created


@router.get("")
def list_analyses(services: _Services, limit: Limit = 100) -> list[Analysis]:
    """The newest analyses, newest first, without their tries."""
    with services.sessions() as session, session.begin():
        return service.list_analyses(session, limit=limit)


@router.get("/{analysis_id}")
def show_analysis(analysis_id: str, services: _Services) -> Analysis:
    """One analysis with its answer."""
    with services.sessions() as session, session.begin():
        return service.get_analysis(session, analysis_id)


@router.post("/{analysis_id}/cancel")
def cancel_analysis(analysis_id: str, services: _Services, principal: _Operator) -> Analysis:
    """Stops asking; devices that already answered have spent what it cost."""
    now = services.now()
    with services.sessions() as session, session.begin():
        record(session, principal, action="analysis.cancel", subject=analysis_id, at=now)
        return service.cancel_analysis(session, analysis_id, now=now)
