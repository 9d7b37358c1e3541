"""Asks for central training: a durable job, checked before it is accepted. Knows no HTTP."""

from typing import TYPE_CHECKING

from cloud.jobs.service import create_job, view
from shared.api.jobs import Job, TrainingCreate
from shared.tasks.registry import load_task

if TYPE_CHECKING:
    from sqlmodel import Session

    from cloud.auth.operators import Principal

JOB_KIND = "train_base"


def start_training(
    session: "Session", asked: TrainingCreate, *, job_id: str, now: float, principal: "Principal"
) -> Job:
    """The queued job. Raises UnknownTaskError."""
    load_task(asked.task)
    row = create_job(session, kind=JOB_KIND, spec=asked.model_dump(), job_id=job_id, now=now, principal=principal)
    session.flush()
    return view(row)
