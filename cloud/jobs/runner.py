"""Runs queued jobs in worker processes, so many of each kind as the settings allow, and starts again what died.

A job that was running when the coordinator died is queued again at the start: its process died with the coordinator.
"""

import asyncio
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import select

from cloud.health import OK
from cloud.jobs.models import JobRecord
from cloud.jobs.service import fail_job, get_job, next_queued, restart_job, start_job
from cloud.services import Services
from shared.lifecycles import JobState

INTERVAL_S = 0.2
STOP_GRACE_S = 10.0
"""The process of a job that was cancelled or paused is killed when it still runs after this long."""
_STOP_S = 5.0
_log = structlog.get_logger()


@dataclass
class _Running:
    kind: str
    process: Process
    stopped_at: float | None = None
    """When it was first seen that the job is not to run any more, monotonic."""


class JobRunner:
    """One for a coordinator; `health["jobs"]` says how it goes."""

    def __init__(
        self, services: Services, *, worker: Sequence[str] = (sys.executable, "-m", "cloud.jobs.worker")
    ) -> None:
        self._services = services
        self._worker = tuple(worker)
        self._running: dict[str, _Running] = {}

    async def run_forever(self, *, interval_s: float = INTERVAL_S) -> None:
        """Steps until it is cancelled; then its processes are ended, and their jobs resume at the next start."""
        await asyncio.to_thread(self.requeue)
        try:
            while True:
                await self._step_or_say_why_not()
                await asyncio.sleep(interval_s)
        finally:
            await self.stop()

    async def step(self) -> None:
        """Settles processes that ended, ends those of stopped jobs, and starts what is queued and has room."""
        for job_id, running in list(self._running.items()):
            if running.process.returncode is not None:
                await asyncio.to_thread(self._settle, job_id, running.process.returncode)
                del self._running[job_id]
                self._services.bell.disconnect(job_id)
        await self._end_stopped()
        while (job := await asyncio.to_thread(self._claim)) is not None:
            await self._start(job)

    async def stop(self) -> None:
        """Kills every worker process and waits for their end."""
        for running in self._running.values():
            if running.process.returncode is None:
                running.process.kill()
        waits = [asyncio.wait_for(running.process.wait(), _STOP_S) for running in self._running.values()]
        await asyncio.gather(*waits, return_exceptions=True)
        self._running.clear()

    def requeue(self) -> None:
        """Queues again what ran under a coordinator that is gone."""
        with self._services.sessions() as session, session.begin():
            for job in session.exec(select(JobRecord).where(JobRecord.state == JobState.RUNNING)):
                restart_job(session, job)  # Not the job's fault, so it does not count.
                _log.info("job_requeued", job_id=job.job_id, kind=job.kind)

    async def _step_or_say_why_not(self) -> None:
        try:
            await self.step()
        except SQLAlchemyError as error:
            if self._services.health.get("jobs") == OK:
                _log.warning("jobs_stand_still", reason=str(error))
            self._services.health["jobs"] = f"stand still: {type(error).__name__}"
        else:
            self._services.health["jobs"] = OK

    def _claim(self) -> JobRecord | None:
        now, running = self._services.now(), Counter(one.kind for one in self._running.values())
        busy = frozenset(kind for kind, count in running.items() if count >= self._room(kind))
        with self._services.sessions() as session, session.begin():
            # A job that was paused and resumed waits for its old process to end.
            job = next_queued(session, kinds_busy=busy, now=now, except_for=tuple(self._running))
            if job is not None:
                start_job(session, job, now=self._services.now())
            return job

    def _room(self, kind: str) -> int:
        return self._services.settings.campaigns_max if kind in ("campaign", "analysis") else 1

    async def _start(self, job: JobRecord) -> None:
        folder = self._services.settings.jobs_dir / job.job_id
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "worker.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self._worker,
                *("--job", job.job_id, "--parent", str(os.getpid())),
                stdin=PIPE,  # Settings may hold secrets, which have no place on a command line.
                stdout=DEVNULL,
                stderr=log,
            )
        self._running[job.job_id] = _Running(job.kind, process)
        _log.info("job_process_started", job_id=job.job_id, kind=job.kind, pid=process.pid)
        assert process.stdin is not None  # PIPE above
        process.stdin.write(self._services.settings.model_dump_json().encode() + b"\n")
        self._services.bell.connect(job.job_id, _ringing(process, asyncio.get_running_loop()))

    async def _end_stopped(self) -> None:
        stopped = await asyncio.to_thread(self._stopped_ids) if self._running else frozenset()
        for job_id in stopped & self._running.keys():
            running = self._running[job_id]
            running.stopped_at = running.stopped_at or time.monotonic()
            if time.monotonic() - running.stopped_at > STOP_GRACE_S and running.process.returncode is None:
                running.process.kill()

    def _stopped_ids(self) -> frozenset[str]:
        with self._services.sessions() as session, session.begin():
            jobs = [session.get(JobRecord, job_id) for job_id in self._running]
            return frozenset(job.job_id for job in jobs if job and job.state != JobState.RUNNING)

    def _settle(self, job_id: str, returncode: int) -> None:
        with self._services.sessions() as session, session.begin():
            job = get_job(session, job_id)
            if job.state != JobState.RUNNING:
                return
            how = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
            if job.restarts < self._services.settings.job_restarts_max:
                restart_job(session, job)
                job.restarts += 1
                _log.warning("job_process_died", job_id=job_id, how=how, restarts=job.restarts)
                return
            error = f"Expected the job's process to finish, it died {job.restarts + 1} times, last with {how}"
            fail_job(session, job, error=error, hint=f"Its log: {self._log_file(job_id)}", now=self._services.now())
            _log.warning("job_failed", job_id=job_id, reason=error)

    def _log_file(self, job_id: str) -> str:
        return str(self._services.settings.jobs_dir / job_id / "worker.log")


def _ringing(process: Process, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Writes a line to the process; one that does not read, or has ended, misses it."""

    def write() -> None:
        line = process.stdin
        if line is not None and not line.is_closing() and line.transport.get_write_buffer_size() == 0:
            line.write(b"\n")

    def ring() -> None:
        with suppress(RuntimeError):  # the loop is closed: the coordinator ends
            loop.call_soon_threadsafe(write)

    return ring
