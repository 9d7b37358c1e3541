"""Central training over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, status

from cloud.auth.operators import Principal, require_operator
from cloud.dependencies import services
from cloud.governance.service import record
from cloud.services import Services
from cloud.training.service import start_training
from shared.api.jobs import Job, TrainingCreate

router = APIRouter(prefix="/v1/trainings", tags=["training"])


@router.post("", status_code=status.HTTP_201_CREATED)
def create_training(
    asked: TrainingCreate,
    services: Annotated[Services, Depends(services)],
    principal: Annotated[Principal, Depends(require_operator)],
) -> Job:
    """Trains a task's base model on its public data, in a worker process; follow the job."""
    now = services.now()
    with services.sessions() as session, session.begin():
        job = start_training(session, asked, job_id=services.new_id(), now=now, principal=principal)
        record(session, principal, action="training.create", subject=job.job_id, at=now, details=asked.model_dump())
        return job
