"""What jobs do to their tables: each function is a part of one operation for `Store.submit`, in one transaction."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cloud.localhub import tables, twins
from cloud.localhub.configurations import parse_target
from cloud.localhub.errors import ServiceError, job_not_found
from cloud.localhub.jobs import DeviceStatus, Job, JobStatus, device_form, error_form, service_form
from cloud.localhub.query.run import matching
from cloud.localhub.times import iso

_NO_ANSWER = {"outcome": {"deviceMethodResponse": None}}


def targets(database: sqlite3.Connection, job: Job) -> list[str]:
    """The keys of the devices or modules that a job is for. Raises ServiceError."""
    target = parse_target(job.condition)
    assert target.source is not None
    return matching(database, target.source, target.condition)


def update_twin(
    database: sqlite3.Connection, job: Job, key: str, parts: twins.Json, *, now: float
) -> tables.Device | None:
    """Updates a twin and notes it, or notes why not."""
    try:
        device = tables.patch_twin(database, key, parts, etag="*", now=iso(now))
    except ServiceError as error:
        put_device_job(database, job, key, DeviceStatus.FAILED, now=now, more=error_form(error))
        return None
    put_device_job(database, job, key, DeviceStatus.COMPLETED, now=now, more=_NO_ANSWER)
    return device


def next_devices(database: sqlite3.Connection, job: Job, *, limit: int) -> list[str]:
    """The next devices of a job, none where it has ended."""
    query = """
        SELECT device_key FROM device_jobs JOIN jobs USING (job_id)
        WHERE job_id = ? AND device_jobs.status = ? AND ended_at IS NULL ORDER BY job_key LIMIT ?
    """
    return [key for (key,) in database.execute(query, (job.id, DeviceStatus.PENDING, limit))]


def end_job(database: sqlite3.Connection, job: Job, status: JobStatus, rest: DeviceStatus, *, now: float) -> Job:
    """The job, ended; the devices that have not are given the status `rest`."""
    move_devices(database, job, (DeviceStatus.PENDING, DeviceStatus.RUNNING), rest, now=now)
    ended = replace(job, status=status, ended_at=now)
    put_job(database, ended)
    return ended


def move_devices(
    database: sqlite3.Connection, job: Job, of: tuple[DeviceStatus, ...], to: DeviceStatus, *, now: float
) -> None:
    """Gives the devices of these statuses another."""
    query = "SELECT device_key FROM device_jobs WHERE job_id = ? AND status IN (SELECT value FROM json_each(?))"
    keys = [key for (key,) in database.execute(query, (job.id, json.dumps(of)))]
    for key in keys:
        put_device_job(database, job, key, to, now=now)


def put_job(database: sqlite3.Connection, job: Job) -> None:
    """Writes the row, new or not."""
    row = (job.id, job.status, job.start_at, job.ended_at, job.dumps())
    database.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?)", row)


def put_device_job(
    database: sqlite3.Connection,
    job: Job,
    key: str,
    status: DeviceStatus,
    *,
    now: float,
    more: Mapping[str, Any] | None = None,
) -> None:
    document = json.dumps(device_form(job, key, status, now=now) | dict(more or {}), ensure_ascii=False)
    row = (f"{job.id}/{key}", job.id, key, status, document)
    database.execute("INSERT OR REPLACE INTO device_jobs VALUES (?, ?, ?, ?, ?)", row)


def find_job(database: sqlite3.Connection, job_id: str) -> Job | None:
    row = database.execute("SELECT document FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    return None if row is None else Job.loads(row[0])


def get_job(database: sqlite3.Connection, job_id: str) -> Job:
    job = find_job(database, job_id)
    if job is None:
        raise job_not_found(job_id)
    return job


def job_form(database: sqlite3.Connection, job: Job) -> dict[str, Any]:
    query = "SELECT status, count(*) FROM device_jobs WHERE job_id = ? GROUP BY status"
    return service_form(job, dict(database.execute(query, (job.id,)).fetchall()))


def forget_jobs(database: sqlite3.Connection, *, before: float) -> None:
    old = "SELECT job_id FROM jobs WHERE ended_at < ?"
    database.execute(f"DELETE FROM device_jobs WHERE job_id IN ({old})", (before,))  # a constant
    database.execute("DELETE FROM jobs WHERE ended_at < ?", (before,))
