"""The process that runs one job: `python -m cloud.jobs.worker --job ID --parent PID`.

The first line on standard input is its settings; each line after it says that there are news (`bell`). It writes how
the job ended by itself. A process that dies before that leaves the job running, and the runner starts it again: a job
resumes from what it stored.
"""

import argparse
import sys
import time

import structlog

from cloud.compose import open_blobs, open_hub, open_sessions
from cloud.db import SessionFactory
from cloud.jobs.bell import JobEar
from cloud.jobs.context import JobContext, JobStoppedError
from cloud.jobs.kinds import job_function
from cloud.jobs.lifeline import die_with
from cloud.jobs.reporting import CancelCheck, ProgressReporter
from cloud.jobs.service import fail_job, finish_job, get_job
from cloud.logs import configure_logs
from cloud.settings import Settings
from shared.errors import FleetlearnError
from shared.lifecycles import JobState

_log = structlog.get_logger()


def main(argv: list[str]) -> int:
    """Runs the job to its end; 0 whatever became of it, because the row says that."""
    parser = argparse.ArgumentParser(prog="cloud.jobs.worker")
    parser.add_argument("--job", required=True)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args(argv)
    die_with(arguments.parent)
    settings = Settings.model_validate_json(sys.stdin.readline())
    configure_logs(level=settings.log_level, style=settings.log_format)
    structlog.contextvars.bind_contextvars(job_id=arguments.job)
    run_job(settings, open_sessions(settings), arguments.job)
    return 0


def run_job(settings: Settings, sessions: SessionFactory, job_id: str) -> None:
    """Runs the job's function and stores its result, or its error in a sentence."""
    with sessions() as session, session.begin():
        job = get_job(session, job_id)
        kind, spec = job.kind, job.spec
    context = _context(settings, sessions, job_id)
    _log.info("job_started", kind=kind)
    try:
        result = job_function(kind)(context, spec)
    except JobStoppedError as stop:
        _log.info("job_stopped", why=type(stop).__name__)
    except FleetlearnError as error:
        _log.warning("job_failed", reason=error.message)
        _fail(sessions, job_id, error=error.message, hint=error.hint)
    except Exception as error:
        # A mistake of ours in a job ends the job, with its traceback in the log, and says so to the operator.
        _log.exception("job_broke")
        _fail(sessions, job_id, error=f"{type(error).__name__}: {error}", hint=_see_log(settings, job_id))
    else:
        with sessions() as session, session.begin():
            job = get_job(session, job_id)
            if job.state == JobState.RUNNING:
                finish_job(session, job, result=result, now=time.time())
        _log.info("job_done")


def _fail(sessions: SessionFactory, job_id: str, *, error: str, hint: str) -> None:
    with sessions() as session, session.begin():
        job = get_job(session, job_id)
        if job.state == JobState.RUNNING:
            fail_job(session, job, error=error[:2000], hint=hint, now=time.time())


def _context(settings: Settings, sessions: SessionFactory, job_id: str) -> JobContext:
    work_dir = settings.jobs_dir / job_id
    work_dir.mkdir(parents=True, exist_ok=True)
    ear = JobEar()
    ear.listen(sys.stdin.fileno())
    report = ProgressReporter(sessions, job_id, monotonic=time.monotonic)
    stop_if_told = CancelCheck(sessions, job_id, monotonic=time.monotonic)

    def check() -> None:
        report.catch_up()
        stop_if_told()

    return JobContext(
        job_id=job_id,
        sessions=sessions,
        blobs=open_blobs(settings),
        work_dir=work_dir,
        open_hub=lambda: open_hub(settings),
        report_progress=report,
        check_cancelled=check,
        now=time.time,
        sleep=ear.sleep,
        flower_apps=settings.flower_apps_dir,
    )


def _see_log(settings: Settings, job_id: str) -> str:
    return f"Its log: {settings.jobs_dir / job_id / 'worker.log'}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
