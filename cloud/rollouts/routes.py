"""Rollouts over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends

from cloud.auth.operators import Principal, require_operator
from cloud.dependencies import Limit, services
from cloud.governance.service import record
from cloud.rollouts import service, store
from cloud.rollouts.preparation import prepare
from cloud.rollouts.views import view
from cloud.services import Services
from shared.api.rollouts import Rollout, RolloutCreate

router = APIRouter(prefix="/v1/rollouts", tags=["rollouts"], dependencies=[Depends(require_operator)])

FromServices = Annotated[Services, Depends(services)]
Operator = Annotated[Principal, Depends(require_operator)]


@router.post("")
def create_rollout(request: RolloutCreate, services: FromServices, operator: Operator) -> Rollout:
    """Plans a rollout and stores the plan; nothing moves until it is started."""
    now = services.now()
    with services.sessions() as session, session.begin():
        prepared = prepare(session, services.blobs, request, now=now, heartbeat_s=services.settings.heartbeat_s)
        row = service.create_rollout(
            session,
            request,
            target=prepared.target,
            inventory=prepared.inventory,
            rollout_id=services.new_id(),
            principal=operator.name,
            role=operator.role,
            now=now,
        )
        details = {"release_id": row.release_id, "generation": row.generation}
        record(session, operator, action="rollout.create", subject=row.rollout_id, at=now, details=details)
        return view(session, row)


@router.get("")
def list_rollouts(services: FromServices, limit: Limit = 100) -> list[Rollout]:
    """Rollouts, newest first."""
    with services.sessions() as session, session.begin():
        return [view(session, row) for row in store.newest_rollouts(session, limit=limit)]


@router.get("/{rollout_id}")
def show_rollout(rollout_id: str, services: FromServices) -> Rollout:
    with services.sessions() as session, session.begin():
        return view(session, store.get_rollout(session, rollout_id))


@router.post("/{rollout_id}/start")
def start_rollout(rollout_id: str, services: FromServices, operator: Operator) -> Rollout:
    """Lets a planned rollout run: the canary wave is asked first."""
    now = services.now()
    with services.sessions() as session, session.begin():
        row = service.start_rollout(session, rollout_id, now=now)
        record(session, operator, action="rollout.start", subject=rollout_id, at=now)
        return view(session, row)


@router.post("/{rollout_id}/stop")
def stop_rollout(rollout_id: str, services: FromServices, operator: Operator) -> Rollout:
    """Ends a rollout where it is: no further device is asked."""
    now = services.now()
    with services.sessions() as session, session.begin():
        row = service.stop_rollout(session, rollout_id, principal=operator.name, now=now)
        record(session, operator, action="rollout.stop", subject=rollout_id, at=now, details={"reason": row.reason})
        return view(session, row)


@router.post("/{rollout_id}/resume")
def resume_rollout(rollout_id: str, services: FromServices, operator: Operator) -> Rollout:
    """Lets a halted rollout go on: devices that failed are asked again."""
    now = services.now()
    with services.sessions() as session, session.begin():
        row = service.resume_rollout(session, rollout_id, now=now)
        details = {"generation": row.generation}
        record(session, operator, action="rollout.resume", subject=rollout_id, at=now, details=details)
        return view(session, row)
