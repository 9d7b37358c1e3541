"""Jobs as rows: made, started, reported on, ended. A change of state is a row of the table in `shared.lifecycles`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlmodel import Session, col, or_, select

from cloud.auth.operators import Principal
from cloud.jobs.errors import JobFinishedError, JobNotPausedError, UnknownJobError
from cloud.jobs.models import JobRecord
from shared.api.jobs import Job
from shared.lifecycles import JOB_TRANSITIONS, JobEvent, JobState, advance

OVER = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})


def create_job(
    session: Session,
    *,
    kind: str,
    spec: Mapping[str, Any],
    job_id: str,
    now: float,
    principal: Principal,
    not_before: float | None = None,
) -> JobRecord:
    """A queued job; the runner of the coordinator starts it, not before its time. `Any`: JSON, typed by the kind."""
    row = JobRecord(
        job_id=job_id,
        kind=kind,
        spec=dict(spec),
        not_before=not_before,
        created_at=now,
        created_by_principal=principal.name,
        created_by_role=principal.role,
    )
    session.add(row)
    return row


def get_job(session: Session, job_id: str) -> JobRecord:
    """Raises UnknownJobError."""
    found = session.get(JobRecord, job_id)
    if found is None:
        raise UnknownJobError(f"Expected a job, got the unknown id {job_id[:80]!r}")
    return found


def list_jobs(session: Session, *, limit: int = 100) -> Sequence[JobRecord]:
    """Jobs, newest first."""
    newest = select(JobRecord).order_by(col(JobRecord.created_at).desc(), col(JobRecord.job_id).desc())
    return session.exec(newest.limit(limit)).all()


def next_queued(
    session: Session, *, kinds_busy: frozenset[str], now: float, except_for: Collection[str] = ()
) -> JobRecord | None:
    """The oldest queued job whose time has come, of a kind that is not busy; `except_for` names jobs."""
    query = select(JobRecord).where(JobRecord.state == JobState.QUEUED)
    query = query.where(or_(col(JobRecord.not_before).is_(None), col(JobRecord.not_before) <= now))
    if kinds_busy:
        query = query.where(col(JobRecord.kind).not_in(kinds_busy))
    if except_for:
        query = query.where(col(JobRecord.job_id).not_in(except_for))
    return session.exec(query.order_by(col(JobRecord.created_at), col(JobRecord.job_id)).limit(1)).first()


def start_job(session: Session, job: JobRecord, *, now: float) -> None:
    """Queued to running. Raises IllegalTransitionError."""
    _advance(job, JobEvent.START)
    job.started_at = job.started_at or now
    session.add(job)


def finish_job(session: Session, job: JobRecord, *, result: Mapping[str, Any], now: float) -> None:
    """Running to done. Raises IllegalTransitionError."""
    _advance(job, JobEvent.FINISH)
    job.result, job.finished_at = dict(result), now
    session.add(job)


def fail_job(session: Session, job: JobRecord, *, error: str, hint: str, now: float) -> None:
    """Running to failed, with a sentence for people. Raises IllegalTransitionError."""
    _advance(job, JobEvent.FAIL)
    job.error, job.hint, job.finished_at = error, hint, now
    session.add(job)


def restart_job(session: Session, job: JobRecord) -> None:
    """Running to queued: its process died, and it resumes from what it stored itself. Raises IllegalTransitionError."""
    _advance(job, JobEvent.RESTART)
    session.add(job)


def cancel_job(session: Session, job_id: str, *, now: float) -> JobRecord:
    """Queued, running or paused to cancelled; its process stops soon. Raises UnknownJobError or JobFinishedError."""
    job = get_job(session, job_id)
    if job.state == JobState.CANCELLED:
        return job
    if job.state in OVER:
        raise JobFinishedError(f"Expected a job that is not over, got {job_id}, which is {job.state}")
    _advance(job, JobEvent.CANCEL)
    job.finished_at = now
    session.add(job)
    return job


def pause_job(session: Session, job_id: str) -> JobRecord:
    """Queued or running to paused; its process stops soon. Raises UnknownJobError or JobFinishedError."""
    job = get_job(session, job_id)
    if job.state == JobState.PAUSED:
        return job
    if job.state in OVER:
        raise JobFinishedError(f"Expected a queued or running job, got {job_id}, which is {job.state}")
    _advance(job, JobEvent.PAUSE)
    session.add(job)
    return job


def resume_job(session: Session, job_id: str) -> JobRecord:
    """Paused to queued: it goes on from what it stored. Raises UnknownJobError or JobNotPausedError."""
    job = get_job(session, job_id)
    if job.state != JobState.PAUSED:
        raise JobNotPausedError(f"Expected a paused job, got {job_id}, which is {job.state}")
    _advance(job, JobEvent.RESUME)
    session.add(job)
    return job


def report_progress(session: Session, job_id: str, progress: Mapping[str, Any]) -> None:
    """Stores how far a running job is."""
    job = get_job(session, job_id)
    if job.state == JobState.RUNNING:
        job.progress = dict(progress)
        session.add(job)


def view(job: JobRecord) -> Job:
    """The job as operators see it."""
    return Job(
        job_id=job.job_id,
        kind=job.kind,
        state=JobState(job.state),
        progress=job.progress,
        result=job.result,
        error=job.error,
        hint=job.hint,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _advance(job: JobRecord, event: JobEvent) -> None:
    job.state = advance(JOB_TRANSITIONS, JobState(job.state), event)
