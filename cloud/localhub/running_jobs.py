"""Jobs kept, and run: each as a task of its own, at most a few at a time.

The devices of a job are fixed, in one transaction, when it starts. A twin's update and the note that it is done are one
transaction too, so it happens once. A method that was under way when the hub was killed is called again: it is at least
once. A job ends when all its devices have, at its deadline, or when it is cancelled.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from cloud.localhub import tables, twins
from cloud.localhub.bell import Bell, wait_until
from cloud.localhub.errors import ServiceError, job_exists
from cloud.localhub.job_tables import (
    end_job,
    find_job,
    forget_jobs,
    get_job,
    job_form,
    move_devices,
    next_devices,
    put_device_job,
    put_job,
    targets,
    update_twin,
)
from cloud.localhub.jobs import (
    ENDED,
    DeviceStatus,
    Job,
    JobStatus,
    JobType,
    error_form,
    parse_job,
    service_form,
)
from cloud.localhub.limits import Limits
from cloud.localhub.links import MethodResult
from cloud.localhub.query.run import Presence, prepare
from cloud.localhub.store import Store

_log = structlog.get_logger("localhub")

TWINS_BATCH_MAX = 100
"""Twins in one transaction; what others want to write comes between two."""
_METHODS_AT_ONCE = 16
_LOOK_S = 60.0
"""The longest sleep between two looks for jobs that are due, and for some to forget."""
_RETRY_S = 5.0
_FORGET_S = 30 * 24 * 3600.0

Invoke = Callable[[str, Mapping[str, Any]], Awaitable[MethodResult]]
TwinChanged = Callable[[tables.Device, twins.Json | None], None]
"""Told of a twin and the patch of its desired properties, after the commit."""


class Jobs:
    """The jobs of a hub. `run` is their worker; `pace` returns when so many devices more may be worked on."""

    def __init__(
        self,
        store: Store,
        *,
        limits: Limits,
        clock: Callable[[], float],
        presence: Presence,
        invoke: Invoke,
        twin_changed: TwinChanged,
        pace: Callable[[int], Awaitable[None]],
    ) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock
        self._presence = presence
        self._invoke = invoke
        self._twin_changed = twin_changed
        self._pace = pace
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._bell = Bell()

    # What the service API asks

    async def put(self, job_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Schedules a job. Raises ServiceError."""
        job = parse_job(job_id, body, now=self._clock())

        def operation(database: sqlite3.Connection) -> None:
            if find_job(database, job_id) is not None:
                raise job_exists(job_id)
            (count,) = database.execute("SELECT count(*) FROM jobs").fetchone()
            if count >= self._limits.jobs_max:
                message = f"Expected at most {self._limits.jobs_max} jobs, got one more"
                raise ServiceError(403, 403008, "JobQuotaExceeded", message)
            put_job(database, job)

        await self._store.submit(operation)
        self._bell.ring()
        return service_form(job, {})

    async def get(self, job_id: str) -> dict[str, Any]:
        """Raises ServiceError where there is none."""
        return await self._store.read(lambda database: job_form(database, get_job(database, job_id)))

    async def find(
        self, *, job_type: str | None, status: str | None, after: str, limit: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Jobs in order of their ids, and the id to go on after, or None."""
        query = """
            SELECT document FROM jobs WHERE job_id > ? AND status = coalesce(?, status)
            AND document ->> '$.type' = coalesce(?, document ->> '$.type') ORDER BY job_id LIMIT ?
        """

        def operation(database: sqlite3.Connection) -> list[dict[str, Any]]:
            rows = database.execute(query, (after, status, job_type, limit + 1)).fetchall()
            return [job_form(database, Job.loads(text)) for (text,) in rows]

        found = await self._store.read(operation)
        return found[:limit], found[limit - 1]["jobId"] if len(found) > limit else None

    async def cancel(self, job_id: str) -> dict[str, Any]:
        """Stops a job; what its devices have done stays done. Raises ServiceError."""
        now = self._clock()

        def operation(database: sqlite3.Connection) -> dict[str, Any]:
            job = get_job(database, job_id)
            if job.status in ENDED:
                message = f"Expected a job that has not ended, got {job_id!r}, which is {job.status}"
                raise ServiceError(409, 409005, "JobAlreadyEnded", message)
            job = end_job(database, job, JobStatus.CANCELLED, DeviceStatus.CANCELED, now=now)
            return job_form(database, job)

        form = await self._store.submit(operation)
        if task := self._tasks.get(job_id):
            task.cancel()
        return form

    # Running them

    async def run(self) -> None:
        """Starts jobs when they are due, for as long as the hub runs."""
        try:
            while True:
                ring = self._bell.next_ring()
                try:
                    delay_s = await self._start_due()
                except ServiceError as error:
                    _log.warning("jobs_failed", reason=str(error))
                    delay_s = _RETRY_S
                await wait_until(ring, asyncio.get_running_loop().time() + delay_s)
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _start_due(self) -> float:
        """Gives due jobs a task, the oldest first; returns the seconds until the next look."""
        now = self._clock()

        def operation(database: sqlite3.Connection) -> list[Job]:
            forget_jobs(database, before=now - _FORGET_S)
            query = "SELECT document FROM jobs WHERE ended_at IS NULL ORDER BY start_at LIMIT ?"
            rows = database.execute(query, (self._limits.jobs_running_max + 1,))
            return [Job.loads(text) for (text,) in rows]

        waiting = await self._store.submit(operation)
        for job in waiting:
            if job.start_at > now:
                return min(job.start_at - now, _LOOK_S)
            if job.id not in self._tasks and len(self._tasks) < self._limits.jobs_running_max:
                self._tasks[job.id] = asyncio.create_task(self._run_one(job))
        return _LOOK_S

    async def _run_one(self, job: Job) -> None:
        try:
            started = await self._begin(job)
            if started is not None:
                is_update = job.type is JobType.UPDATE_TWIN
                workers, step = (1, self._update_twins) if is_update else (_METHODS_AT_ONCE, self._call_method)
                async with asyncio.TaskGroup() as group:
                    for _ in range(workers):
                        group.create_task(self._work(started, step))
                await self._finish(started)
        except* ServiceError as errors:
            # The store failed: the job goes on where it was once that heals.
            _log.warning("job_interrupted", job_id=job.id, reason=str(errors.exceptions[0]))
            await asyncio.sleep(_RETRY_S)
        finally:
            del self._tasks[job.id]
            self._bell.ring()

    async def _begin(self, job: Job) -> Job | None:
        """Fixes the devices of a job that starts; of one that goes on, those in between are to be done again.

        None where it was cancelled meanwhile.
        """
        now = self._clock()

        def operation(database: sqlite3.Connection) -> Job | None:
            current = get_job(database, job.id)
            if current.status is JobStatus.RUNNING:
                move_devices(database, current, (DeviceStatus.RUNNING,), DeviceStatus.PENDING, now=now)
                return current
            if current.status in ENDED:
                return None
            running = replace(current, status=JobStatus.RUNNING, start_at=now)
            prepare(database, self._presence)
            for key in targets(database, running):
                put_device_job(database, running, key, DeviceStatus.PENDING, now=now)
            put_job(database, running)
            return running

        return await self._store.submit(operation)

    async def _work(self, job: Job, step: "Callable[[Job], Awaitable[bool]]") -> None:
        while self._clock() < job.deadline and await step(job):
            pass

    async def _update_twins(self, job: Job) -> bool:
        """Updates the next twins; False where none was left."""
        now, parts = self._clock(), twins.parts_of(job.body)

        def operation(database: sqlite3.Connection) -> list[tables.Device | None]:
            keys = next_devices(database, job, limit=TWINS_BATCH_MAX)
            return [update_twin(database, job, key, parts, now=now) for key in keys]

        updated = await self._store.submit(operation)
        for device in updated:
            if device is not None:
                self._twin_changed(device, parts.get("desired"))
        await self._pace(len(updated))
        return bool(updated)

    async def _call_method(self, job: Job) -> bool:
        """Calls the method on the next device; False where none was left."""
        now = self._clock()

        def take(database: sqlite3.Connection) -> str | None:
            for key in next_devices(database, job, limit=1):
                put_device_job(database, job, key, DeviceStatus.RUNNING, now=now)
                return key
            return None

        key = await self._store.submit(take)
        if key is None:
            return False
        await self._pace(1)
        status, more = DeviceStatus.COMPLETED, {}
        try:
            answer = await self._invoke(key, job.body)
            more = {"outcome": {"deviceMethodResponse": {"status": answer.status, "payload": answer.payload}}}
        except ServiceError as error:
            status, more = DeviceStatus.FAILED, error_form(error)
        ended_at = self._clock()
        await self._store.submit(lambda database: put_device_job(database, job, key, status, now=ended_at, more=more))
        return True

    async def _finish(self, job: Job) -> None:
        now = self._clock()

        def operation(database: sqlite3.Connection) -> None:
            current = get_job(database, job.id)
            if current.status not in ENDED:
                end_job(database, current, JobStatus.COMPLETED, DeviceStatus.FAILED, now=now)

        await self._store.submit(operation)
