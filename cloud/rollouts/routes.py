"""Rollouts over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends

from cloud.auth.operators import Principal, require_operator
from cloud.dependencies import Limit, services
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
def start_rollout(rollout_id: str, services: FromServices) -> Rollout:
    """Lets a planned rollout run: the canary wave is asked first."""
    with services.sessions() as session, session.begin():
        return view(session, service.start_rollout(session, rollout_id, now=services.now()))


@router.post("/{rollout_id}/stop")
def stop_rollout(rollout_id: str, services: FromServices, operator: Operator) -> Rollout:
    """Ends a rollout where it is: no further device is asked."""
    with services.sessions() as session, session.begin():
        row = service.stop_rollout(session, rollout_id, principal=operator.name, now=services.now())
        return view(session, row)


@router.post("/{rollout_id}/resume")
def resume_rollout(rollout_id: str, services: FromServices) -> Rollout:
    """Lets a halted rollout go on: devices that failed are asked again."""
    with services.sessions() as session, session.begin():
        return view(session, service.resume_rollout(session, rollout_id, now=services.now()))
