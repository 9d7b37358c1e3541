"""Model versions over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends

from cloud.auth.operators import Principal, require_operator
from cloud.dependencies import Limit, services
from cloud.governance.service import record
from cloud.registry import service
from cloud.registry.stages import StageEvent
from cloud.services import Services
from shared.api.models import ModelVersion

router = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[Depends(require_operator)])
_Services = Annotated[Services, Depends(services)]
_Operator = Annotated[Principal, Depends(require_operator)]


@router.get("")
def list_models(services: _Services, limit: Limit = 100) -> list[ModelVersion]:
    """The newest model versions, newest first."""
    with services.sessions() as session, session.begin():
        return service.list_versions(session, limit=limit)


@router.get("/{model_version_id}")
def show_model(model_version_id: str, services: _Services) -> ModelVersion:
    """One model version."""
    with services.sessions() as session, session.begin():
        return service.get_version(session, model_version_id)


@router.post("/{model_version_id}/approve")
def approve_model(model_version_id: str, services: _Services, principal: _Operator) -> ModelVersion:
    """Says that a candidate is good."""
    return _change_stage(services, principal, model_version_id, StageEvent.APPROVE)


@router.post("/{model_version_id}/retire")
def retire_model(model_version_id: str, services: _Services, principal: _Operator) -> ModelVersion:
    """Takes a version out of use."""
    return _change_stage(services, principal, model_version_id, StageEvent.RETIRE)


def _change_stage(services: Services, principal: Principal, model_version_id: str, event: StageEvent) -> ModelVersion:
    now = services.now()
    with services.sessions() as session, session.begin():
        record(session, principal, action=f"model.{event}", subject=model_version_id, at=now)
        return service.change_stage(session, model_version_id, event)
