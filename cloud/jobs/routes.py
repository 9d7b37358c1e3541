"""Jobs for operators: list, show, cancel. Each kind of job is made by its own domain's route."""

from typing import Annotated

from fastapi import APIRouter, Depends

from cloud.auth.operators import Principal, require_operator
from cloud.dependencies import Limit, services
from cloud.governance.service import record
from cloud.jobs.service import cancel_job, get_job, list_jobs, view
from cloud.services import Services
from shared.api.jobs import Job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("", dependencies=[Depends(require_operator)])
def get_jobs(services: Annotated[Services, Depends(services)], limit: Limit = 100) -> list[Job]:
    """Newest first."""
    with services.sessions() as session, session.begin():
        return [view(job) for job in list_jobs(session, limit=limit)]


@router.get("/{job_id}", dependencies=[Depends(require_operator)])
def get_one_job(job_id: str, services: Annotated[Services, Depends(services)]) -> Job:
    """One job."""
    with services.sessions() as session, session.begin():
        return view(get_job(session, job_id))


@router.post("/{job_id}/cancel")
def post_cancel(
    job_id: str,
    services: Annotated[Services, Depends(services)],
    principal: Annotated[Principal, Depends(require_operator)],
) -> Job:
    """Cancels a queued or running job; its process stops within seconds."""
    now = services.now()
    with services.sessions() as session, session.begin():
        job = cancel_job(session, job_id, now=now)
        record(session, principal, action="job.cancel", subject=job_id, at=now)
        return view(job)
