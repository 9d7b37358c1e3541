"""Asks for packaging: a durable job, checked before it is accepted. Knows no HTTP."""

from typing import TYPE_CHECKING

from cloud.jobs.service import create_job, view
from cloud.registry.service import get_version
from shared.api.jobs import Job
from shared.api.releases import ReleaseCreate
from shared.tasks.registry import load_task

if TYPE_CHECKING:
    from sqlmodel import Session

    from cloud.auth.operators import Principal

JOB_KIND = "package"


def start_packaging(
    session: "Session", asked: ReleaseCreate, *, job_id: str, now: float, principal: "Principal"
) -> Job:
    """The queued job. Raises UnknownModelVersionError, UnknownTaskError."""
    load_task(get_version(session, asked.model_version_id).task)
    row = create_job(session, kind=JOB_KIND, spec=asked.model_dump(), job_id=job_id, now=now, principal=principal)
    session.flush()
    return view(row)
